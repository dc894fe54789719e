#pragma once

#include <cuda.h>

#include "kernels/cuda/layer.h"
#include "kernels/cuda/math.cuh"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/wgmma.cuh"

/// What the Hopper kernels share: rings of shared memory stages and the tiles in them.
namespace sparsight::kernels::cuda::hopper {

constexpr int kTokens = int(kTile);       ///< tokens of a tile
constexpr int kHalfTokens = kTokens / 2;  ///< tokens of a warpgroup's rows and of a box
constexpr int kConsumers = 2;             ///< warpgroups
constexpr int kThreads = 128 * (kConsumers + 1);
constexpr int kRowBytes = 128;  ///< a row of a chunk: 64 elements of 16 bits

// A warp says once that it has read a stage, after __syncwarp. compute-sanitizer's racecheck does
// not know what that orders: for it every lane says so.
#ifdef SPARSIGHT_RACECHECK
constexpr bool kEveryLane = true;
#else
constexpr bool kEveryLane = false;
#endif
constexpr int kReleases = 4 * kConsumers * (kEveryLane ? 32 : 1);  ///< of a stage by the consumers

/// The calling warp's arrival at `bar`, one of kReleases.
__device__ inline void release(std::uint64_t* bar) {
    if (kEveryLane || threadIdx.x % 32 == 0) ptx::arrive(bar);
}

/// Position in a ring of `N` stages.
template <int N>
struct Ring {
    int stage = 0;
    unsigned phase = 0;

    __device__ void next() {
        if (++stage == N) {
            stage = 0;
            phase ^= 1;
        }
    }
};

/// What a stage is to its consumers.
enum StepFlag : std::uint32_t {
    FirstStep = 1,
    LastStep = 2,
    NoTile = 4,
    End = 8,
    GatheredStep = 16,  ///< written by ordinary copies
};
constexpr int kUsesBit = 8;    ///< this and the next: whether warpgroup 0, 1 takes part
constexpr int kRestsBit = 10;  ///< this and the next: whether the step that follows leaves 0, 1 out
constexpr int kMaskedBit = 12;  ///< this and the next: whether not every pair counts for 0, 1
constexpr int kValueBit = 16;   ///< this and the next: the stage of V; then the phase of it

/// Bytes of `tokens` rows of `width` elements, stored as chunks of 64 elements.
constexpr int tileBytes(int tokens, int width) {
    return tokens * width * 2;
}

/// Brings a run of 64 tokens into its half of a tile of `tokens` rows.
template <int Width>
__device__ inline void loadHalf(std::uint32_t tile, int tokens, int half, const CUtensorMap* map,
                                std::uint64_t* bar, int token, int head, int batch) {
#pragma unroll
    for (int chunk = 0; chunk < Width / 64; ++chunk)
        ptx::loadBox(tile + std::uint32_t((chunk * tokens + half * kHalfTokens) * kRowBytes), map,
                     bar, chunk * 64, token, head, batch);
}

/// S = A B^T over `Width` elements; A 64 rows of a tile of `aTokens` rows, B `N` rows of a tile of
/// as many rows. Enqueues and commits; `A` and `B` are shared addresses of their first rows.
template <class T, int N, int Width>
__device__ inline void multiply(float (&s)[N / 2], std::uint32_t a, int aTokens, std::uint32_t b) {
    // Descriptors are made here, not kept in registers from call to call.
    asm volatile("" : "+r"(a), "+r"(b));
    wgmma::pin(s);
    wgmma::fence();
#pragma unroll
    for (int step = 0; step < Width / 16; ++step) {
        const int chunk = step / 4, within = step % 4 * 32;
        wgmma::Product<T, N>::mul(
            s, wgmma::descriptor(a + std::uint32_t(chunk * aTokens * kRowBytes + within), 0),
            wgmma::descriptor(b + std::uint32_t(chunk * N * kRowBytes + within), 0), step > 0);
    }
    wgmma::commit();
}

/// Largest (or sum) over the four lanes that share a row of accumulators.
__device__ inline float quadMax(float x) {
    x = fmaxf(x, __shfl_xor_sync(~0u, x, 1));
    return fmaxf(x, __shfl_xor_sync(~0u, x, 2));
}
__device__ inline float quadSum(float x) {
    x += __shfl_xor_sync(~0u, x, 1);
    return x + __shfl_xor_sync(~0u, x, 2);
}

}  // namespace sparsight::kernels::cuda::hopper
