#!/usr/bin/env bash
# Installs what is missing, configures and builds. Usage: build.sh BUILD_DIR [cmake options].
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
build=$1
shift

"$root/scripts/setup.sh"

cmake -S "$root" -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release "$@"

# A file that includes LibTorch takes 1.1 GB to compile: no more jobs than memory allows.
memory_gb=$(awk '/MemAvailable/ {print int($2 / 1048576)}' /proc/meminfo)
jobs=$(nproc)
((memory_gb / 2 < jobs)) && jobs=$((memory_gb / 2 > 0 ? memory_gb / 2 : 1))
start=$SECONDS
cmake --build "$build" -j "$jobs"
echo "built in $((SECONDS - start)) s with $jobs jobs"
