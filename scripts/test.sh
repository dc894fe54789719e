#!/usr/bin/env bash
# Installs what is missing, builds Release and runs every test.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
build=${SPARSIGHT_BUILD:-$root/build}

"$root/scripts/build.sh" "$build" -DSPARSIGHT_TESTS=ON -DSPARSIGHT_WERROR="${SPARSIGHT_WERROR:-OFF}"

# Tests compute with several threads themselves: two at a time fill two to four cores.
start=$SECONDS
ctest --test-dir "$build" --output-on-failure -j 2 "$@"
echo "tests took $((SECONDS - start)) s"
