#!/usr/bin/env bash
# Installs what Sparsight needs to build and run on Debian 12, when something is missing. Safe to run
# again: with all packages present it calls no package manager. `--print` only lists the packages.
set -euo pipefail

# package: why
packages=(
    "g++:the compiler (C++20)"
    "cmake:the build"
    "ninja-build:the build"
    "pkg-config:finds cairo"
    "libtorch-dev:linear algebra of the forward pass"
    "libopenblas0-pthread:fast matrix products under LibTorch"
    "qt6-base-dev:the desktop program"
    "qt6-charts-dev:charts"
    "libqt6opengl6-dev:Qt Charts needs it"
    "libqt6svg6-dev:icons"
    "libgl-dev:Qt needs its headers"
    "libhdf5-dev:session arrays"
    "libsqlite3-dev:session catalogue"
    "libpcre2-dev:the tokenizer's regular expressions"
    "libicu-dev:Unicode normalisation"
    "libhwy-dev:SIMD kernels"
    "libcairo2-dev:figures in PNG, SVG and PDF"
    "libzip-dev:import of .npz"
    "libjpeg62-turbo-dev:JPEG images for vision models"
    "libfmt-dev:text formatting"
    "nlohmann-json3-dev:JSON"
    "libcli11-dev:the command line"
    "catch2:tests"
    "fonts-inter:the window's typeface"
)

# Only for the tests.
if [[ -n "${SPARSIGHT_SETUP_FUZZ:-}" ]]; then
    packages+=("clang:the fuzz targets" "libclang-rt-14-dev:libFuzzer and AddressSanitizer")
fi

names=("${packages[@]%%:*}")
if [[ "${1:-}" == --print ]]; then
    printf '%s\n' "${names[@]}"
    exit 0
fi

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
    cat >&2 <<TXT
This script installs packages on Debian 12 and its relatives only. Install the equivalents of these
yourself, then run it again with SPARSIGHT_NO_INSTALL=1:
$(printf '  %s\n' "${packages[@]}")
TXT
    [[ -n "${SPARSIGHT_NO_INSTALL:-}" ]] && exit 0
    exit 1
fi

missing=()
for entry in "${packages[@]}"; do
    name=${entry%%:*}
    state=$(dpkg-query -W -f '${Status}' "$name" 2>/dev/null || true)
    if [[ "$state" != "install ok installed" ]]; then
        missing+=("$name")
        echo "missing: $name (${entry#*:})"
    fi
done
((${#missing[@]} == 0)) && exit 0
if [[ -n "${SPARSIGHT_NO_INSTALL:-}" ]]; then
    echo "SPARSIGHT_NO_INSTALL is set: going on without them" >&2
    exit 0
fi

run=()
if ((EUID != 0)); then
    if ! command -v sudo >/dev/null; then
        echo "Installing needs root: run as root, or install sudo, or install the packages above." >&2
        exit 1
    fi
    echo "Installing needs root; sudo may ask for your password."
    run=(sudo)
fi
echo "Installing ${#missing[@]} Debian packages."
export DEBIAN_FRONTEND=noninteractive
"${run[@]}" apt-get update -q
"${run[@]}" apt-get install -y -q --no-install-recommends "${missing[@]}"
