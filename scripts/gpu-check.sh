#!/bin/bash
# Builds core, kernels, sessions, the command line and their tests with CUDA on a machine with a GPU,
# and checks the GPU's kernels there:
#   - the kernel tests, on every kernel that the machine has
#   - every operation twice, in two processes: the bits must be the same
#   - compute-sanitizer's memcheck and racecheck over small layers
#   - a model's forward pass and capture on the GPU against the CPU
#   - sparsight-bench --device cuda, with PyTorch as its peer where that is installed
#
#   scripts/gpu-check.sh [--build DIR] [--skip STEPS] [PREFIX]
#
# PREFIX  a folder with usr/include and usr/lib of libraries that the machine lacks
# DIR     the build folder (build-gpu); one that was built elsewhere is used as it is
# STEPS   any of build,tests,bits,memcheck,racecheck,model,bench, separated by commas
set -uo pipefail
cd "$(dirname "$0")/.."
build=build-gpu skip= prefix=
while [ $# -gt 0 ]; do
    case $1 in
        --build) build=$2; shift ;;
        --skip) skip=$2; shift ;;
        -*) sed -n '2,17p' "$0" >&2; exit 2 ;;
        *) prefix=$(cd "$1" && pwd) || exit 2 ;;
    esac
    shift
done
mkdir -p "$build/log" && build=$(cd "$build" && pwd) || exit 2
log=$build/log
rows=() failed=0
export SPARSIGHT_RESOURCES=$PWD/resources

wanted() { case ",$skip," in *",$1,"*) return 1 ;; esac; }
# step NAME TITLE COMMAND...: runs it with a log of its own and notes how it ended.
step() {
    local name=$1 title=$2 start=$SECONDS result=ok
    shift 2
    wanted "$name" || { rows+=("$title|skipped||"); return 0; }
    echo "== $title"
    if ! "$@" >"$log/$name.txt" 2>&1; then
        result=FAILED failed=1
        tail -n 25 "$log/$name.txt"
    fi
    rows+=("$title|$result|$((SECONDS - start)) s|$(note "$name")")
    [ $result = ok ]
}
# The line of a step's log that says most.
note() {
    case $1 in
        tests) grep -E 'tests passed|tests failed' "$log/tests.txt" | tail -n 1 ;;
        memcheck | racecheck) grep -E 'ERROR SUMMARY|RACECHECK SUMMARY' "$log/$1.txt" | tail -n 1 | sed 's/=* *//' ;;
        *) tail -n 1 "$log/$1.txt" ;;
    esac
}

flags=() where= reused=
if [ -n "$prefix" ]; then
    libs=$prefix/usr/lib
    multiarch=$(gcc -print-multiarch)
    where=$libs/$multiarch:$libs/$multiarch/hdf5/serial:$libs
    export CPATH=$prefix/usr/include:$prefix/usr/include/$multiarch${CPATH:+:$CPATH}
    export LIBRARY_PATH=$where${LIBRARY_PATH:+:$LIBRARY_PATH}
    export PKG_CONFIG_PATH=$libs/$multiarch/pkgconfig:$prefix/usr/share/pkgconfig
    export PKG_CONFIG_SYSROOT_DIR=$prefix
    [ -d "$prefix/hdf5" ] && export HDF5_ROOT=$prefix/hdf5
    if ! command -v pkg-config >/dev/null && [ -x "$prefix/usr/bin/pkgconf" ]; then
        mkdir -p "$build/tools"
        printf '#!/bin/sh\nLD_LIBRARY_PATH=%s exec %s "$@"\n' "$where" "$prefix/usr/bin/pkgconf" \
            >"$build/tools/pkg-config"
        chmod +x "$build/tools/pkg-config"
        export PATH=$build/tools:$PATH
    fi
    # Found by the programs too, so that nothing else on the machine meets these libraries.
    paths=
    for p in ${where//:/ }; do paths="$paths -Wl,-rpath-link,$p -Wl,-rpath,$p"; done
    flags+=("-DCMAKE_PREFIX_PATH=$prefix/usr" "-DCMAKE_EXE_LINKER_FLAGS=-Wl,--disable-new-dtags$paths")
fi

# Runs a program of ours; one that was built elsewhere finds its libraries in PREFIX and in torch.
ours() {
    if [ -n "$reused" ]; then
        LD_LIBRARY_PATH=$where:$reused "$@"
    else
        "$@"
    fi
}
# configure BUILD FLAGS...
configure() {
    # For the GPU of this machine alone: "9.0" becomes "90-real".
    local dir=$1 capability
    shift
    capability=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -n 1)
    [ -n "$capability" ] && flags+=("-DSPARSIGHT_CUDA_ARCHITECTURES=${capability/./}-real")
    cmake -S . -B "$dir" -G Ninja -DCMAKE_BUILD_TYPE=Release -DSPARSIGHT_WITH_CUDA=ON \
        -DSPARSIGHT_WITH_GUI=OFF -DSPARSIGHT_SANITIZER_TESTS=OFF "${flags[@]}" "$@"
}
build() {
    if [ -x "$build/bin/sparsight" ] && [ -x "$build/tests/bin/kernel_digest" ]; then
        reused=$(python3 -c 'import os, torch; print(os.path.dirname(torch.__file__) + "/lib")' || echo /)
        echo "$build is used as it is"
        return 0
    fi
    configure "$build" &&
        cmake --build "$build" --target sparsight sparsight-bench kernel_digest test_plan \
            test_backends test_properties test_cuda_planner
}
tests() {
    local name status=0
    for name in test_plan test_backends test_properties test_cuda_planner; do
        echo "-- $name"
        ours "$build/tests/bin/$name" || status=1
    done
    return $status
}
bits() {
    ours "$build/tests/bin/kernel_digest" cuda >"$log/bits1.txt" &&
        ours "$build/tests/bin/kernel_digest" cuda >"$log/bits2.txt" &&
        diff "$log/bits1.txt" "$log/bits2.txt" &&
        echo "$(wc -l <"$log/bits1.txt") results, each the same twice"
}
# sanitizer TOOL BUILD: every kernel of the GPU
sanitizer() {
    local kernel status=0
    for kernel in cuda cuda-sm80; do
        echo "-- $kernel"
        ours compute-sanitizer --tool "$1" --error-exitcode 9 \
            "$2/tests/bin/kernel_digest" $kernel --small || status=1
    done
    return $status
}
# Hopper's kernels are built once more for it: see SPARSIGHT_RACECHECK.
racecheck() {
    [ -x "$build-race/tests/bin/kernel_digest" ] ||
        { configure "$build-race" -DSPARSIGHT_WITH_TORCH=OFF -DSPARSIGHT_RACECHECK=ON &&
            cmake --build "$build-race" --target kernel_digest; } || return 1
    sanitizer racecheck "$build-race"
}
# Largest differences between a capture on the GPU and one on the CPU, and the same answer.
model() {
    local dir=$build/model device
    rm -rf "$dir" && mkdir -p "$dir"
    ours "$build/bin/sparsight" devices || return 1
    for device in cpu cuda; do
        ours "$build/bin/sparsight" capture bookworm --probe niah:tokens=1500,seed=3 --device $device \
            -o "$dir/$device.sparsight" --json >"$dir/$device.json" || return 1
        cat "$dir/$device.json"
        printf 'Call me Ishmael. Some years ago, never mind how long precisely, ' >"$dir/prompt.txt"
        ours "$build/bin/sparsight" generate bookworm --text "$dir/prompt.txt" --max-new 24 \
            --device $device --json >"$dir/$device.generate.json" || return 1
        ours "$build/bin/sparsight" logits bookworm --text "$dir/prompt.txt" --device $device \
            -o "$dir/$device.npy" || return 1
    done
    python3 scripts/compare_devices.py "$dir"
}
# Beside PyTorch's kernels where there is a PyTorch that knows the GPU.
bench() {
    local peer=()
    python3 -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' 2>/dev/null &&
        peer=(--peer "python3 scripts/peer_gpu.py")
    ours "$build/bin/sparsight-bench" --device cuda --json "$log/bench.json" "${peer[@]}"
}

if step build "build" build; then
    step tests "kernel tests" tests
    step bits "bits of two runs" bits
    step memcheck "memcheck" sanitizer memcheck "$build"
    step racecheck "racecheck" racecheck
    step model "model on the GPU" model
    step bench "benchmark" bench
    [ -s "$log/bench.txt" ] && cat "$log/bench.txt"
fi

echo
printf '%-20s %-8s %8s  %s\n' "check" "result" "time" ""
for row in "${rows[@]}"; do
    IFS='|' read -r title result time text <<<"$row"
    printf '%-20s %-8s %8s  %s\n' "$title" "$result" "$time" "$text"
done
nvidia-smi --query-gpu=name,driver_version --format=csv,noheader 2>/dev/null
exit $failed
