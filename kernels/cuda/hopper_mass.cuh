#pragma once

#include "kernels/cuda/hopper_launch.h"
#include "kernels/cuda/hopper_pipeline.cuh"

namespace sparsight::kernels::cuda::hopper {

/// Shapes of one instantiation.
template <int Width>
struct MassShape {
    static constexpr int kQStages = Width == 256 ? 2 : 4;
    static constexpr int kKStages = Width == 256 ? 1 : 2;
    static constexpr int kTileBytes = tileBytes(kTokens, Width);
    static constexpr int kBytes = (kQStages + kKStages) * kTileBytes + 1024 /* alignment */;
};

/// What the consumers need to know of one stage of queries.
struct MassStep {
    std::int32_t head;  ///< of batch * Hq
    std::int32_t ktile, qtile;
    std::uint32_t flags;  ///< StepFlag
};

template <int QStages, int KStages>
struct MassBarriers {
    alignas(16) float norms[QStages][kTokens];
    MassStep step[QStages];
    std::uint64_t qFull[QStages], qEmpty[QStages], kFull[KStages], kEmpty[KStages];
};

/// Query tiles [begin, end) whose rows may see keys of key tile `ktile`.
__host__ __device__ inline void queryTiles(const Layer& l, int ktile, int& begin, int& end) {
    const int shift = l.Nk - l.Nq, first = ktile * kTokens;
    const int past = min(first + kTokens, l.Nk);
    const int rowBegin = l.causal ? max(0, first - shift) : 0;
    const Index rowEnd =
        l.window > 0 ? min(Index(l.Nq), Index(past) - shift + l.window - 1) : Index(l.Nq);
    begin = rowBegin / kTokens;
    end = rowEnd > rowBegin ? int((rowEnd + kTokens - 1) / kTokens) : begin;
}

template <int Width>
__device__ inline void produceMass(
    const MassArgs& a, const CUtensorMap* qMap, const CUtensorMap* kMap, std::uint32_t q,
    std::uint32_t k, MassBarriers<MassShape<Width>::kQStages, MassShape<Width>::kKStages>& bars) {
    using S = MassShape<Width>;
    const Layer& l = a.layer;
    const int total = a.heads * ((l.Nk + kTokens - 1) / kTokens);
    Ring<S::kQStages> ring;
    Ring<S::kKStages> kRing;
    const auto loadTile = [&](std::uint32_t to, const CUtensorMap* map, std::uint64_t* bar,
                              int tile, int head, int batch) {
        for (int half = 0; half < 2; ++half)
            loadHalf<Width>(to, kTokens, half, map, bar, tile * kTokens + half * kHalfTokens, head,
                            batch);
    };
    for (int w = atomicAdd(a.next, 1); w < total;) {
        const int ktile = w / a.heads, head = a.firstHead + w % a.heads;
        const int batch = head / l.Hq, h = head % l.Hq;
        int begin, end;
        queryTiles(l, ktile, begin, end);
        w = atomicAdd(a.next, 1);
        if (begin == end) continue;
        ptx::wait(&bars.kEmpty[kRing.stage], kRing.phase ^ 1);
        ptx::arriveExpect(&bars.kFull[kRing.stage], S::kTileBytes);
        loadTile(k + std::uint32_t(kRing.stage * S::kTileBytes), kMap, &bars.kFull[kRing.stage],
                 ktile, l.kvHead(h), batch);
        kRing.next();
        for (int qtile = begin; qtile < end; ++qtile) {
            std::uint64_t* const full = &bars.qFull[ring.stage];
            ptx::wait(&bars.qEmpty[ring.stage], ring.phase ^ 1);
            bars.step[ring.stage] = {
                head, ktile, qtile,
                (qtile == begin ? FirstStep : 0u) | (qtile + 1 == end ? LastStep : 0u)};
            ptx::arriveExpect(full, S::kTileBytes + kTokens * 4);
            loadTile(q + std::uint32_t(ring.stage * S::kTileBytes), qMap, full, qtile, h, batch);
            ptx::loadBytes(bars.norms[ring.stage], a.norm2 + head * a.pitch + qtile * kTokens,
                           kTokens * 4, full);
            ring.next();
        }
    }
    ptx::wait(&bars.qEmpty[ring.stage], ring.phase ^ 1);
    bars.step[ring.stage].flags = End;
    ptx::arrive(&bars.qFull[ring.stage]);
}

/// Sum with its rounding error carried along.
struct LongSum {
    float sum = 0, rest = 0;

    __device__ void add(float x) {
        const float y = x - rest, t = sum + y;
        rest = (t - sum) - y;
        sum = t;
    }
};

__device__ inline float maxOrNan(float x, float y) {
    float z;
    asm("max.NaN.f32 %0, %1, %2;" : "=f"(z) : "f"(x), "f"(y));
    return z;
}

/// Bins of a warp's 16 keys x 128 queries by query - key, from -15 on; the last stays 0.
constexpr int kBins = 144;

template <class T, int Width, bool Plain, bool Diagonals>
struct MassConsumer {
    using S = MassShape<Width>;
    static constexpr int kScores = kTokens / 2;  ///< accumulators of a thread

    const MassArgs& a;
    const int group;             ///< warpgroup = half of the keys
    float (&bins)[2][4][kBins];  ///< of this warpgroup, in turn
    const int thread = int(threadIdx.x) % 128;
    const int warp = thread / 32, lane = thread % 32, g = lane / 4, t = lane % 4;
    const float factor = Plain ? a.layer.scale * kLog2e : 1.0f;

    __device__ int key(const MassStep& step, int r) const {
        return step.ktile * kTokens + group * kHalfTokens + warp * 16 + g + 8 * r;
    }
    __device__ bool masked(const MassStep& step) const {
        const Layer& l = a.layer;
        const int first = step.ktile * kTokens, position = l.position(step.qtile * kTokens);
        return first + kTokens > l.Nk || (l.causal && first + kTokens - 1 > position) ||
               (l.window > 0 && first < position + kTokens - l.window);
    }

    /// Scores to probabilities; hidden pairs to 0.
    __device__ void weigh(float (&s)[kScores], const float* norms, const MassStep& step) const {
        const Layer& l = a.layer;
        const int keys[2] = {key(step, 0), key(step, 1)};
        const int query = step.qtile * kTokens + 2 * t;
        if constexpr (!Plain) {
#pragma unroll
            for (int i = 0; i < kScores; ++i) {
                s[i] = l.logit2(s[i], step.head % l.Hq, min(query + i / 4 * 8 + i % 2, l.Nq - 1),
                                min(keys[i / 2 % 2], l.Nk - 1));
                // One after the other: loads ahead of their use would need too many registers.
                if (i % 4 == 3) asm volatile("" ::: "memory");
            }
        }
#pragma unroll
        for (int j = 0; j < kScores / 4; ++j) {
            const float2 norm = *reinterpret_cast<const float2*>(norms + 8 * j + 2 * t);
#pragma unroll
            for (int i = 4 * j; i < 4 * j + 4; ++i)
                s[i] = exp2Fast(fmaf(s[i], factor, i % 2 ? -norm.y : -norm.x));
        }
        if (!masked(step)) return;
#pragma unroll
        for (int i = 0; i < kScores; ++i) {
            const int row = query + i / 4 * 8 + i % 2, position = l.position(row);
            const int at = keys[i / 2 % 2];
            const bool visible = at < l.Nk && (!l.causal || at <= position) &&
                                 (l.window <= 0 || at > position - l.window);
            if (!visible) s[i] = 0;
        }
    }

    /// Sums of the columns (keys) and of the blocks of 16 keys x 64 queries.
    __device__ void pool(const float (&s)[kScores], LongSum (&columns)[2],
                         const MassStep& step) const {
        float sums[2][2] = {}, most[2] = {};
#pragma unroll
        for (int i = 0; i < kScores; ++i) sums[i / 32][i / 2 % 2] += s[i];
#pragma unroll
        for (int r = 0; r < 2; ++r) columns[r].add(sums[0][r] + sums[1][r]);
        if (a.blockPart == nullptr) return;
#pragma unroll
        for (int i = 0; i < kScores; ++i) most[i / 32] = maxOrNan(most[i / 32], s[i]);
        const int sixteenths = (a.layer.Nk + kTokens - 1) / kTokens * 8;
        const int halves = int(a.pitch) / kHalfTokens;
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            float sum = sums[half][0] + sums[half][1];
#pragma unroll
            for (int d = 16; d > 0; d /= 2) sum += __shfl_xor_sync(~0u, sum, d);
            // Not negative: they order as their bits do, and NaN is above all.
            const unsigned top = __reduce_max_sync(~0u, __float_as_uint(most[half]));
            const Index at =
                (Index(step.head - a.firstHead) * halves + 2 * step.qtile + half) * sixteenths +
                step.ktile * 8 + group * 4 + warp;
            if (lane == 0) {
                a.blockPart[at] = sum;
                a.blockPartMax[at] = __uint_as_float(top);
            }
        }
    }

    /// Sums over pairs with equal query - key of the warp's 16 x 128 pairs into its bins. A lane's
    /// value of register j, e belongs to offset 8 j + 2 t + e - g, rows g + 8 to 8 less.
    __device__ void binDiagonals(const float (&s)[kScores], float* to) const {
        constexpr int kFirst = -1, kCount = 18;  // offsets 8 j + ..., j = -1 .. 16
        float even[kCount], odd[kCount];
#pragma unroll
        for (int n = 0; n < kCount; ++n) {
            const int j = n + kFirst;
            const bool upper = j >= 0 && j < 16, lower = j + 1 < 16;
            even[n] = (upper ? s[upper ? 4 * j : 0] : 0) + (lower ? s[lower ? 4 * j + 6 : 0] : 0);
            odd[n] =
                (upper ? s[upper ? 4 * j + 1 : 0] : 0) + (lower ? s[lower ? 4 * j + 7 : 0] : 0);
        }
        // Onto the even columns, then onto t even, then onto t = 0: the values of one offset come
        // from the lane `from` places on; where that wraps around g they stand one register lower.
        const auto fold = [&](float(&onto)[kCount], const float(&x)[kCount], int from, bool wraps) {
#pragma unroll
            for (int n = kCount - 1; n >= 0; --n) {
                const float value = wraps ? (n > 0 ? x[n - 1] : 0) : x[n];
                onto[n] += __shfl_sync(~0u, value, (lane + from) % 32);
            }
        };
        fold(even, odd, 4, g == 0);
        fold(even, even, 9, g < 2);
        fold(even, even, 18, g < 4);
        if (t == 0)
#pragma unroll
            for (int n = 0; n < kCount; ++n) to[8 * (n + kFirst) - g + 15] = even[n];
    }

    /// The warps' bins into the item's partial diagonals. Offsets up to those that the next query
    /// tile adds to are complete; the others are carried on.
    __device__ void sumDiagonals(const float (&warps)[4][kBins], float& carry,
                                 const MassStep& step) const {
        const Layer& l = a.layer;
        const auto at = [&](int offset) {  // query - key, from the first query and key on
            float sum = 0;
#pragma unroll
            for (int w = 0; w < 4; ++w) {
                const int bin = offset + 16 * w + 15;
                if (bin >= 0 && bin < kBins) sum += warps[w][bin];
            }
            return sum;
        };
        const int base = l.position(step.qtile * kTokens) - step.ktile * kTokens -
                         group * kHalfTokens + thread - 63;
        put(step, base, carry + at(thread - 63));
        carry = thread < 63 ? at(thread + 65) : 0;
        if (step.flags & LastStep && thread < 63) put(step, base + 128, carry);
    }
    __device__ void put(const MassStep& step, int offset, float x) const {
        const Layer& l = a.layer;
        const int index = l.causal ? offset : offset + l.Nq - 1;
        const Index pitch = diagonals(l);
        const int halves = 2 * ((l.Nk + kTokens - 1) / kTokens);
        if (index >= 0 && index < pitch)
            a.diagPart[(Index(step.head - a.firstHead) * halves + 2 * step.ktile + group) * pitch +
                       index] = x;
    }
    __device__ static Index diagonals(const Layer& l) {
        return l.causal ? Index(l.Nk) : Index(l.Nq) + l.Nk - 1;
    }

    /// What a warpgroup carries along.
    struct State {
        LongSum columns[2];
        float carry = 0;
        int turn = 0;  ///< of the bins
    };

    /// Takes the scores of one stage in.
    __device__ void take(float (&s)[kScores], State& state, const MassStep& step, int stage,
                         MassBarriers<S::kQStages, S::kKStages>& bars) const {
        weigh(s, bars.norms[stage], step);
        __syncwarp();
        release(&bars.qEmpty[stage]);
        pool(s, state.columns, step);
        if constexpr (Diagonals) {
            binDiagonals(s, bins[state.turn][warp]);
            ptx::namedBarrier(1 + group, 128);
            sumDiagonals(bins[state.turn], state.carry, step);
            state.turn ^= 1;
        }
        if (!(step.flags & LastStep)) return;
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            const float sum = quadSum(state.columns[r].sum);
            if (a.out.colMass && t == 0 && key(step, r) < a.layer.Nk)
                a.out.colMass[Index(step.head) * a.layer.Nk + key(step, r)] = sum;
            state.columns[r] = {};
        }
        state.carry = 0;
    }

    __device__ void run(std::uint32_t q, std::uint32_t k,
                        MassBarriers<S::kQStages, S::kKStages>& bars) const {
        k += std::uint32_t(group * kHalfTokens * kRowBytes);
        Ring<S::kQStages> ring;
        Ring<S::kKStages> kRing;
        State state;
        MassStep step{}, next{};
        float even[kScores], odd[kScores];
        const auto wait = [&](MassStep& of) {  // for a stage of queries; false at the end
            ptx::wait(&bars.qFull[ring.stage], ring.phase);
            of = bars.step[ring.stage];
            if (of.flags & End) return false;
            if (of.flags & FirstStep) ptx::wait(&bars.kFull[kRing.stage], kRing.phase);
            return true;
        };
        // One half of a turn: the scores of `step` are under way in `now`; those of the stage that
        // follows are computed into `then` while they are taken in.
        const auto half = [&](float(&now)[kScores], float(&then)[kScores]) {
            const int stage = ring.stage;
            const bool last = step.flags & LastStep;
            if (last) {  // the keys may go
                wgmma::wait<0>();
                release(&bars.kEmpty[kRing.stage]);
                kRing.next();
            }
            ring.next();
            if (!wait(next)) {
                wgmma::wait<0>();
                wgmma::pin(now);
                take(now, state, step, stage, bars);
                return false;
            }
            issue(then, ring, kRing, q, k);
            wgmma::wait<1>();
            wgmma::pin(now);
            take(now, state, step, stage, bars);
            step = next;
            return true;
        };
        if (!wait(step)) return;
        issue(even, ring, kRing, q, k);
        while (half(even, odd) && half(odd, even)) {
        }
    }
    __device__ static void issue(float (&s)[kScores], const Ring<S::kQStages>& ring,
                                 const Ring<S::kKStages>& kRing, std::uint32_t q, std::uint32_t k) {
        multiply<T, kTokens, Width>(s, k + std::uint32_t(kRing.stage * S::kTileBytes), kTokens,
                                    q + std::uint32_t(ring.stage * S::kTileBytes));
    }
};

template <class T, int Width, bool Plain, bool Diagonals>
__global__ void __launch_bounds__(kThreads, 1)
    massKernel(const __grid_constant__ CUtensorMap qMap, const __grid_constant__ CUtensorMap kMap,
               const __grid_constant__ MassArgs a) {
    using S = MassShape<Width>;
    extern __shared__ char raw[];
    __shared__ MassBarriers<S::kQStages, S::kKStages> bars;
    __shared__ float bins[kConsumers][2][4][Diagonals ? kBins : 1];
    char* const q = raw + (1024 - ptx::shared(raw) % 1024) % 1024;  // swizzle repeats every 1024
    char* const k = q + S::kQStages * S::kTileBytes;
    if (threadIdx.x == 0) {
        for (int i = 0; i < S::kQStages; ++i) {
            ptx::barrierInit(&bars.qFull[i], 1);
            ptx::barrierInit(&bars.qEmpty[i], kReleases);
        }
        for (int i = 0; i < S::kKStages; ++i) {
            ptx::barrierInit(&bars.kFull[i], 1);
            ptx::barrierInit(&bars.kEmpty[i], kReleases);
        }
        ptx::barrierInitFence();
        ptx::prefetchMap(&qMap);
        ptx::prefetchMap(&kMap);
    }
    __syncthreads();
    if (threadIdx.x < 128) {
        ptx::registersDown<56>();
        if (threadIdx.x == 0)
            produceMass<Width>(a, &qMap, &kMap, ptx::shared(q), ptx::shared(k), bars);
    } else {
        ptx::registersUp<224>();
        const int group = int(threadIdx.x) / 128 - 1;
        if constexpr (Diagonals) {
            MassConsumer<T, Width, Plain, true>{a, group, bins[group]}.run(ptx::shared(q),
                                                                           ptx::shared(k), bars);
        } else {
            float none[2][4][kBins];
            MassConsumer<T, Width, Plain, false>{a, group, none}.run(ptx::shared(q), ptx::shared(k),
                                                                     bars);
        }
    }
}

template <class T, int Width, bool Plain, bool Diagonals>
void launchMass(const MassArgs& args, const CUtensorMap& q, const CUtensorMap& k, int blocks,
                cudaStream_t stream) {
    constexpr int bytes = MassShape<Width>::kBytes;
    const auto kernel = massKernel<T, Width, Plain, Diagonals>;
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes),
          "shared memory of the capture kernel");
    kernel<<<blocks, kThreads, bytes, stream>>>(q, k, args);
    check(cudaGetLastError(), "start of the capture kernel");
}

}  // namespace sparsight::kernels::cuda::hopper

/// Defines massLaunchOf<Type, Width>.
#define SPARSIGHT_HOPPER_MASS(Type, Width)                             \
    namespace sparsight::kernels::cuda::hopper {                       \
    template <>                                                        \
    MassLaunch massLaunchOf<Type, Width>(bool plain, bool diagonals) { \
        if (plain)                                                     \
            return diagonals ? launchMass<Type, Width, true, true>     \
                             : launchMass<Type, Width, true, false>;   \
        return diagonals ? launchMass<Type, Width, false, true>        \
                         : launchMass<Type, Width, false, false>;      \
    }                                                                  \
    }
