#!/usr/bin/env bash
# Installs what is missing, builds Release and runs every test.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
build=${SPARSIGHT_BUILD:-$root/build}

# SPARSIGHT_FUZZ=0 leaves the fuzz targets out.
fuzz=${SPARSIGHT_FUZZ:-1}
[[ "$fuzz" != 0 ]] && export SPARSIGHT_SETUP_FUZZ=1

# Where nvcc is installed the CUDA kernels are compiled too, the portable ones for one architecture.
"$root/scripts/build.sh" "$build" -DSPARSIGHT_TESTS=ON -DSPARSIGHT_WERROR="${SPARSIGHT_WERROR:-OFF}" \
    -DSPARSIGHT_CUDA_ARCHITECTURES=80-real

# Tests compute with several threads themselves: two at a time fill two to four cores.
start=$SECONDS
ctest --test-dir "$build" --output-on-failure -j 2 "$@"
echo "tests took $((SECONDS - start)) s"

# Hostile input: each reader for 30 s. Left out when only some tests were asked for.
if [[ "$fuzz" != 0 && $# -eq 0 ]] && command -v clang++ >/dev/null; then
    cmake -S "$root" -B "$build-fuzz" -G Ninja -DCMAKE_BUILD_TYPE=Release -DCMAKE_C_COMPILER=clang \
        -DCMAKE_CXX_COMPILER=clang++ -DSPARSIGHT_FUZZ=ON -DSPARSIGHT_TESTS=OFF \
        -DSPARSIGHT_WITH_TORCH=OFF -DSPARSIGHT_WITH_GUI=OFF -DSPARSIGHT_WITH_CUDA=OFF
    cmake --build "$build-fuzz" -j 2 --target fuzz_targets
    ctest --test-dir "$build-fuzz" --output-on-failure -j 2
fi
