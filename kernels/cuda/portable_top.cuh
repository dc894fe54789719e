#pragma once

#include "kernels/cuda/portable_tile.cuh"

/// The largest probabilities of each row, exact, without n^2 memory, in two sweeps over the scores.
/// The first keeps the largest score of each row in every group of 16 keys. The k-th largest of
/// those bounds the row's k-th score from below: k groups hold a score as good. The second sweep
/// takes the steps that hold more than that for one of the block's rows, and puts what is larger
/// into a list of the row, which is cut down to its best k, with a better bound, whenever it is
/// nearly full. Keys come in ascending order, so that a later key with the k-th score has lost.
namespace sparsight::kernels::cuda::portable {

struct TopArgs {
    Layer layer;
    Rows q, k;
    const float* norm2 = nullptr;
    int topK = 0;       ///< asked for
    int wanted = 0;     ///< min(topK, Nk)
    int capacity = 0;   ///< of a row's list, a power of two, >= wanted + 128
    int steps = 0;      ///< ceil(Nk / 64)
    int firstTile = 0;  ///< row tiles of all heads, the longest rows first; this launch's first
    std::uint16_t* most = nullptr;     ///< [tiles][rows][steps][4] upper half of the rank
    float* bound = nullptr;            ///< [tiles][rows] scores above it are taken
    int* held = nullptr;               ///< [tiles][rows] entries
    std::uint64_t* entries = nullptr;  ///< [tiles][rows][capacity]
    std::int32_t* key = nullptr;
    float* p = nullptr;
};

/// Order of floats as unsigned numbers.
__device__ inline std::uint32_t rankOf(float x) {
    const std::uint32_t bits = __float_as_uint(x);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
__device__ inline float valueOf(std::uint32_t rank) {
    return __uint_as_float(rank & 0x80000000u ? rank & 0x7fffffffu : ~rank);
}
/// Larger score first, then the lower key. Zeros are alike whatever their sign.
__device__ inline std::uint64_t entryOf(float score, int key) {
    return std::uint64_t(rankOf(score + 0.0f)) << 32 | std::uint32_t(~key);
}

/// A warp sorts 32 kEach entries, descending; lane l has the places kEach l ...
template <int kEach>
__device__ void sortInRegisters(std::uint64_t* entries, int count) {
    const int lane = int(threadIdx.x) % 32;
    std::uint64_t v[kEach];
#pragma unroll
    for (int r = 0; r < kEach; ++r) v[r] = lane * kEach + r < count ? entries[lane * kEach + r] : 0;
#pragma unroll
    for (int size = 2; size <= 32 * kEach; size *= 2)
#pragma unroll
        for (int stride = size / 2; stride > 0; stride /= 2)
#pragma unroll
            for (int r = 0; r < kEach; ++r) {
                const bool descending = ((lane * kEach + r) & size) == 0;
                if (stride >= kEach) {
                    const std::uint64_t other = __shfl_xor_sync(kAllLanes, v[r], stride / kEach);
                    const bool lower = (lane & (stride / kEach)) == 0;
                    v[r] = (v[r] > other) == (lower == descending) ? v[r] : other;
                } else if ((r & stride) == 0) {
                    const std::uint64_t a = v[r], b = v[r + stride];
                    const bool swap = (a < b) == descending;
                    v[r] = swap ? b : a;
                    v[r + stride] = swap ? a : b;
                }
            }
    __syncwarp();
#pragma unroll
    for (int r = 0; r < kEach; ++r)
        if (lane * kEach + r < count) entries[lane * kEach + r] = v[r];
    __syncwarp();
}

/// A warp sorts its row's entries, descending.
__device__ inline void sortEntries(std::uint64_t* entries, int count) {
    __syncwarp();
    if (count <= 64) return sortInRegisters<2>(entries, count);
    if (count <= 128) return sortInRegisters<4>(entries, count);
    if (count <= 256) return sortInRegisters<8>(entries, count);
    const int lane = int(threadIdx.x) % 32;
    int places = 512;
    while (places < count) places *= 2;  // the capacity at most
    for (int n = count + lane; n < places; n += 32) entries[n] = 0;
    __syncwarp();
    for (int size = 2; size <= places; size *= 2)
        for (int stride = size / 2; stride > 0; stride /= 2) {
            for (int n = lane; n < places / 2; n += 32) {
                const int at = 2 * n - (n & (stride - 1));
                const std::uint64_t a = entries[at], b = entries[at + stride];
                if ((a < b) == ((at & size) == 0)) {
                    entries[at] = b;
                    entries[at + stride] = a;
                }
            }
            __syncwarp();
        }
}

/// The same out of line, for a kernel that seldom does it.
static __device__ __noinline__ void sortSeldom(std::uint64_t* entries, int count) {
    sortEntries(entries, count);
}

/// What a block of either sweep works on.
template <int kRows>
struct TopTile {
    int head, batch, first, end;
    __device__ TopTile(const TopArgs& args, int tile) {
        const int heads = args.layer.batch * args.layer.Hq;
        const int tiles = (args.layer.Nq + kRows - 1) / kRows;
        head = tile % heads % args.layer.Hq;
        batch = tile % heads / args.layer.Hq;
        first = (tiles - 1 - tile / heads) * kRows;
        end = min(first + kRows, args.layer.Nq);
    }
};

/// Scores of the row tile's steps; a row's hidden keys are -inf. use(step, s)
template <class S, class At, class Use>
__device__ void sweepRows(const TopArgs& args, const TopTile<S::kRows>& tile, std::uint32_t left,
                          int count, const At& at, const Use& use) {
    using T = typename S::T;
    const Layer& layer = args.layer;
    const Lane lane;
    const Scale scale(layer);
    const int row = tile.first + lane.warp * 16 * S::kM + lane.g;
    sweep<S, 2>(
        left, left + S::kLeftBytes,
        static_cast<const char*>(args.k.at(tile.batch, layer.kvHead(tile.head), sizeof(T))),
        rowBytes<T>(args.k), nullptr, count, at, [](const Step&, int) {},
        [&](const Step& step, int, Tile<S::kM>& s) {
            if (!scale.direct) toLogits<S::kM>(s, layer, tile.head, step, row, nullptr);
            if (step.flags & kTested) hide<S::kM>(s, layer, step, row, nullptr, nullptr);
            use(step, s);
        });
}
template <class S>
__device__ void copyQueries(const TopArgs& args, const TopTile<S::kRows>& tile,
                            std::uint32_t left) {
    using T = typename S::T;
    copyResident<S>(left, static_cast<const char*>(args.q.at(tile.batch, tile.head, sizeof(T))),
                    rowBytes<T>(args.q), tile.first, args.layer.Nq);
    commitCopies();
}

/// First sweep: the largest score of each row and of each 16 keys of a step (those that one lane
/// has).
template <class T, int W>
__global__ void __launch_bounds__(kThreads, 2) mostKernel(const __grid_constant__ TopArgs args) {
    using S = WideShape<T, W>;
    extern __shared__ __align__(1024) unsigned char shared[];
    const TopTile<S::kRows> tile(args, args.firstTile + int(blockIdx.x));
    const Lane lane;
    copyQueries<S>(args, tile, sharedAddress(shared));
    const VisibleSteps visible(args.layer, tile.first, tile.end);
    std::uint16_t* const most =
        args.most +
        (Index(blockIdx.x) * S::kRows + lane.warp * 16 * S::kM + lane.g) * args.steps * 4 + lane.t;
    sweepRows<S>(args, tile, sharedAddress(shared), visible.count, visible,
                 [&](const Step& step, const Tile<S::kM>& s) {
#pragma unroll
                     for (int m = 0; m < S::kM; ++m)
#pragma unroll
                         for (int h = 0; h < 2; ++h) {
                             float top = -kInfinity;
#pragma unroll
                             for (int j = 0; j < 8; ++j)
                                 top = fmaxf(top, fmaxf(s[m][j][2 * h], s[m][j][2 * h + 1]));
                             most[((16 * m + 8 * h) * Index(args.steps) + step.token / kStep) * 4] =
                                 std::uint16_t(rankOf(top) >> 16);
                         }
                 });
}

/// Each row's bound, a warp a row: the k-th largest of its maxima, rounded down.
template <int kRows>
__global__ void __launch_bounds__(kThreads) boundKernel(const __grid_constant__ TopArgs args) {
    const Lane lane;
    const int at = int(blockIdx.x) * kWarps + lane.warp;
    const TopTile<kRows> tile(args, args.firstTile + at / kRows);
    const int row = tile.first + at % kRows;
    float from = kInfinity;  // nothing to take
    const float norm =
        row < tile.end
            ? args.norm2[(Index(tile.batch) * args.layer.Hq + tile.head) * args.layer.Nq + row]
            : 0;
    if (row < tile.end && norm == norm) {
        const VisibleSteps visible(args.layer, tile.first, tile.end);
        const uint2* const most = reinterpret_cast<const uint2*>(args.most) +
                                  Index(at) * args.steps + visible.begin / kStep;
        from = -kInfinity;
        if (4 * visible.count >= args.wanted) {
            std::uint32_t low = 0xffff, high = 0;
            for (int i = lane.lane; i < visible.count; i += 32) {
                const uint2 four = most[i];
                low = min(low, min(min(four.x & 0xffff, four.x >> 16),
                                   min(four.y & 0xffff, four.y >> 16)));
                high = max(high, max(max(four.x & 0xffff, four.x >> 16),
                                     max(four.y & 0xffff, four.y >> 16)));
            }
            // The largest rank that k maxima reach.
            low = __reduce_min_sync(kAllLanes, low);
            high = __reduce_max_sync(kAllLanes, high);
            while (low < high) {
                const std::uint32_t middle = (low + high + 1) / 2;
                int reached = 0;
#pragma unroll 4
                for (int i = lane.lane; i < visible.count; i += 32) {
                    const uint2 four = most[i];
                    reached += ((four.x & 0xffff) >= middle) + ((four.x >> 16) >= middle) +
                               ((four.y & 0xffff) >= middle) + ((four.y >> 16) >= middle);
                }
                if (__reduce_add_sync(kAllLanes, reached) >= args.wanted)
                    low = middle;
                else
                    high = middle - 1;
            }
            // Just below it; -0 is not below 0.
            if (low << 16 > rankOf(-kInfinity)) {
                from = valueOf((low << 16) - 1);
                if (from == 0) from = -std::numeric_limits<float>::min();
                // The two sweeps may round a cap and a bias differently.
                if (!Scale(args.layer).direct) from -= 1e-5f * (1 + fabsf(from));
            }
        }
    }
    if (lane.lane == 0) args.bound[at] = from;
}

/// Second sweep: the entries above the bound.
template <class T, int W>
__global__ void __launch_bounds__(kThreads, 2) topKernel(const __grid_constant__ TopArgs args) {
    using S = WideShape<T, W>;
    constexpr int kOwn = 16 * S::kM;  // rows of a warp
    extern __shared__ __align__(1024) unsigned char shared[];
    const std::uint32_t left = sharedAddress(shared);
    Step* const steps = reinterpret_cast<Step*>(shared + S::kLeftBytes + 2 * S::kRightBytes);
    int* const counts = reinterpret_cast<int*>(steps + kListedSteps);
    int* const held = counts + 4;  // entries of each row
    float* const bound = reinterpret_cast<float*>(held + S::kRows);

    const TopTile<S::kRows> tile(args, args.firstTile + int(blockIdx.x));
    const Lane lane;
    copyQueries<S>(args, tile, left);
    const VisibleSteps visible(args.layer, tile.first, tile.end);
    const Index firstRow = Index(blockIdx.x) * S::kRows;
    const uint2* const most =
        reinterpret_cast<const uint2*>(args.most) + firstRow * args.steps + visible.begin / kStep;
    std::uint64_t* const entries = args.entries + (firstRow + lane.warp * kOwn) * args.capacity;
    for (int n = int(threadIdx.x); n < S::kRows; n += kThreads) {
        held[n] = 0;
        bound[n] = args.bound[firstRow + n];
    }

    for (int begin = 0; begin < visible.count; begin += kListedSteps) {
        __syncthreads();  // bounds stand; nobody reads the old list
        const int i = begin + int(threadIdx.x);
        bool used = false;
        if (i < visible.count)
            for (int row = 0; row < S::kRows && !used; row += 8) {
                uint2 four[8];
#pragma unroll
                for (int n = 0; n < 8; ++n) four[n] = most[(row + n) * Index(args.steps) + i];
#pragma unroll
                for (int n = 0; n < 8; ++n) {  // maxima were rounded down
                    const std::uint32_t from = rankOf(bound[row + n]) >> 16;
                    used = used || (four[n].x & 0xffff) >= from || four[n].x >> 16 >= from ||
                           (four[n].y & 0xffff) >= from || four[n].y >> 16 >= from;
                }
            }
        const int count =
            compactSteps(steps, counts, i < visible.count ? visible(i) : Step{}, used);
        sweepRows<S>(
            args, tile, left, count, [&](int n) { return steps[n]; },
            [&](const Step& step, const Tile<S::kM>& s) {
#pragma unroll
                for (int m = 0; m < S::kM; ++m)
#pragma unroll
                    for (int h = 0; h < 2; ++h) {
                        const int n = 16 * m + 8 * h + lane.g, row = lane.warp * kOwn + n;
                        const float from = bound[row];
                        std::uint64_t* const mine = entries + Index(n) * args.capacity;
#pragma unroll
                        for (int j = 0; j < 8; ++j)
#pragma unroll
                            for (int b = 0; b < 2; ++b)
                                if (s[m][j][2 * h + b] > from)
                                    mine[atomicAdd(&held[row], 1)] = entryOf(
                                        s[m][j][2 * h + b], step.token + 8 * j + 2 * lane.t + b);
                    }
                __syncwarp();
                unsigned full = __ballot_sync(
                    kAllLanes,
                    lane.lane < kOwn && held[lane.warp * kOwn + lane.lane] > args.capacity - kStep);
                for (; full; full &= full - 1) {
                    const int n = __ffs(int(full)) - 1, row = lane.warp * kOwn + n;
                    std::uint64_t* const mine = entries + Index(n) * args.capacity;
                    sortSeldom(mine, held[row]);
                    if (lane.lane == 0) {
                        held[row] = args.wanted;
                        bound[row] = valueOf(std::uint32_t(mine[args.wanted - 1] >> 32));
                    }
                    __syncwarp();
                }
            });
    }
    __syncthreads();
    for (int n = int(threadIdx.x); n < S::kRows; n += kThreads) args.held[firstRow + n] = held[n];
}

/// The row's best entries in order, a warp a row.
template <int kRows>
__global__ void __launch_bounds__(kThreads, 6) finishKernel(const __grid_constant__ TopArgs args) {
    const Lane lane;
    const int at = int(blockIdx.x) * kWarps + lane.warp;
    const TopTile<kRows> tile(args, args.firstTile + at / kRows);
    const int row = tile.first + at % kRows;
    if (row >= tile.end) return;
    std::uint64_t* const mine = args.entries + Index(at) * args.capacity;
    const int held = args.held[at], count = min(held, args.wanted);
    sortEntries(mine, held);
    const Index to = (Index(tile.batch) * args.layer.Hq + tile.head) * args.layer.Nq + row;
    const float lse = args.norm2[to], factor = Scale(args.layer).factor;
    for (int i = lane.lane; i < args.topK; i += 32) {
        const std::uint64_t entry = i < count ? mine[i] : 0;
        if (args.key) args.key[to * args.topK + i] = i < count ? int(~std::uint32_t(entry)) : -1;
        if (args.p)
            args.p[to * args.topK + i] =
                lse != lse  ? lse
                : i < count ? exp2Fast(fmaf(valueOf(std::uint32_t(entry >> 32)), factor, -lse))
                            : 0;
    }
}

template <class T, int W>
void topOf(const TopArgs& args, int tiles, cudaStream_t stream) {
    using S = WideShape<T, W>;
    constexpr int kFirst = S::kLeftBytes + 2 * S::kRightBytes;
    constexpr int kSecond = kFirst + kListedSteps * int(sizeof(Step)) + 16 + 8 * S::kRows;
    allowShared(mostKernel<T, W>, kFirst);
    allowShared(topKernel<T, W>, kSecond);
    const auto rows = unsigned(tiles * S::kRows / kWarps);
    mostKernel<T, W><<<unsigned(tiles), kThreads, kFirst, stream>>>(args);
    check(cudaGetLastError(), "top keys");
    boundKernel<S::kRows><<<rows, kThreads, 0, stream>>>(args);
    check(cudaGetLastError(), "top keys");
    topKernel<T, W><<<unsigned(tiles), kThreads, kSecond, stream>>>(args);
    check(cudaGetLastError(), "top keys");
    finishKernel<S::kRows><<<rows, kThreads, 0, stream>>>(args);
    check(cudaGetLastError(), "top keys");
}

template <class T>
void topOf(int width, const TopArgs& args, int tiles, cudaStream_t stream) {
    width == 64    ? topOf<T, 64>(args, tiles, stream)
    : width == 128 ? topOf<T, 128>(args, tiles, stream)
                   : topOf<T, 256>(args, tiles, stream);
}

}  // namespace sparsight::kernels::cuda::portable
