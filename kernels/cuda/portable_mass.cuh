#pragma once

#include "kernels/cuda/portable_tile.cuh"

/// Block, column and diagonal statistics. Keys are resident and queries stream by, so that a row of
/// the score tile is a key and a column a query: s[m][j][2 h + b] is key 16 kM w + 16 m + 8 h + g
/// and query 8 j + 2 t + b.
namespace sparsight::kernels::cuda::portable {

struct MassArgs {
    Layer layer;
    Rows q, k;
    /// [heads][paddedQueries] norms of the slab's heads; +inf where nothing counts
    const float* norm = nullptr;
    int paddedQueries = 0;
    int firstHead = 0;  ///< of the slab, counted over the batch
    int heads = 0;      ///< of the slab
    int groups = 1;  ///< owners of key tiles of one head; owner g has the tiles g, g + groups, ...
    /// [heads][ceil(Nq / grain)][ceil(Nk / grain)], or null
    float *cellSum = nullptr, *cellMax = nullptr;
    int grain = 64;             ///< 16, 32 or 64; or any block edge when `blocks`
    bool blocks = false;        ///< cells of any edge; nothing else is computed
    float* colMass = nullptr;   ///< [heads][Nk] or null
    float* diagonal = nullptr;  ///< [heads][groups][diagonals] partial sums or null
    int diagonals = 0;
};

constexpr int kMassBuffers = 2, kNorms = 4;

/// Shared memory beside the keys and the ring.
struct MassShared {
    float norm[kNorms][kStep];
    float cellSum[2][8][4], cellMax[2][8][4];  ///< 16 x 16 cells of two steps
    float diagonal[kWarps][256];               ///< sums of each warp by query - key, modulo 256
};

/// Sums (or maxima) of `kCount` values over the 32 lanes: value n ends in the lanes whose upper
/// bits are n.
template <int kCount, bool kSum>
__device__ float reduceCells(float (&x)[kCount], int lane) {
    const auto join = [](float a, float b) { return kSum ? a + b : fmaxf(a, b); };
    int bit = 16;
#pragma unroll
    for (int n = kCount / 2; n > 0; n /= 2) {
        const bool upper = lane & bit;
#pragma unroll
        for (int i = 0; i < n; ++i) {
            const float send = upper ? x[i] : x[i + n], keep = upper ? x[i + n] : x[i];
            x[i] = join(keep, __shfl_xor_sync(kAllLanes, send, bit));
        }
        bit /= 2;
    }
    float all = x[0];
    for (; bit > 0; bit /= 2) all = join(all, __shfl_xor_sync(kAllLanes, all, bit));
    return all;
}

/// The sums of a warp's tile along its diagonals. A lane's values at equal j - 2 m - h share one:
/// query - key = 8 (j - 2 m - h) + 2 t + b - g. Three exchanges bring b and t to 0, at the price of
/// a group number one higher where g wraps round.
/// @return in lanes with t = 0: sum[n] is the diagonal 8 (n - (2 kM - 1)) - g of the warp's tile
template <int kM>
__device__ void diagonalSums(const Tile<kM>& p, float (&sum)[12], const Lane& lane) {
    constexpr int kShift = 2 * kM - 1;
    float odd[12];
#pragma unroll
    for (int n = 0; n < 12; ++n) sum[n] = odd[n] = 0;
#pragma unroll
    for (int m = 0; m < kM; ++m)
#pragma unroll
        for (int h = 0; h < 2; ++h)
#pragma unroll
            for (int j = 0; j < 8; ++j) {
                sum[j - 2 * m - h + kShift] += p[m][j][2 * h];
                odd[j - 2 * m - h + kShift] += p[m][j][2 * h + 1];
            }
    // From lane (g + by, t + by / 2): its group n where g + by stays below 8, else n - 1.
    const auto fold = [&](const float(&from)[12], int by, int ahead) {
        const int source = ((lane.g + by) & 7) * 4 + ((lane.t + ahead) & 3);
        const bool wraps = lane.g < by;  // as a sender
        float previous = 0;
#pragma unroll
        for (int n = 0; n < 12; ++n) {
            const float here = from[n];
            const float send = wraps ? previous : here;
            previous = here;
            sum[n] += __shfl_sync(kAllLanes, send, source);
        }
    };
    fold(odd, 1, 0);
    fold(sum, 2, 1);
    fold(sum, 4, 2);
}

template <class T, int W>
__global__ void __launch_bounds__(kThreads, (sizeof(T) == 2 && W == 128 ? 3 : 2))
    massKernel(const __grid_constant__ MassArgs args) {
    using S = WideShape<T, W>;
    constexpr int kM = S::kM, kRows = S::kRows;
    extern __shared__ __align__(1024) unsigned char shared[];
    const std::uint32_t left = sharedAddress(shared), ring = left + S::kLeftBytes;
    MassShared& own =
        *reinterpret_cast<MassShared*>(shared + S::kLeftBytes + kMassBuffers * S::kRightBytes);
    const Layer& layer = args.layer;
    const int local = int(blockIdx.x), global = args.firstHead + local;
    const int head = global % layer.Hq, batch = global / layer.Hq;
    const int offset = layer.Nk - layer.Nq;
    const Lane lane;
    const Scale scale(layer);
    const auto* const queries = static_cast<const char*>(args.q.at(batch, head, sizeof(T)));
    const auto* const keys =
        static_cast<const char*>(args.k.at(batch, layer.kvHead(head), sizeof(T)));
    const float* const norm = args.norm + Index(local) * args.paddedQueries;

    const int edge = args.blocks ? args.grain : kRows;  // keys of a unit
    const int cellRows = (layer.Nq + args.grain - 1) / args.grain,
              cellCols = (layer.Nk + args.grain - 1) / args.grain;
    float* const cellSum =
        args.cellSum ? args.cellSum + Index(local) * cellRows * cellCols : nullptr;
    float* const cellMax =
        args.cellMax ? args.cellMax + Index(local) * cellRows * cellCols : nullptr;
    const bool cells = cellSum || cellMax;
    float* const diagonal =
        args.diagonal ? args.diagonal + (Index(local) * args.groups + blockIdx.y) * args.diagonals
                      : nullptr;
    const int mainDiagonal = layer.causal ? offset : layer.Nk - 1;  // where query = key is stored

    for (int unit = int(blockIdx.y); unit < (layer.Nk + edge - 1) / edge; unit += int(gridDim.y)) {
        const int unitEnd = min(layer.Nk, (unit + 1) * edge);
        for (int first = unit * edge; first < unitEnd; first += kRows) {
            const int end = min(unitEnd, first + kRows);
            // Queries that see one of the keys.
            int from = layer.causal ? max(0, first - offset) : 0, to = layer.Nq;
            if (layer.window > 0) to = min(to, max(0, end - 1 + layer.window - offset));
            const int perBlock = (args.grain + kStep - 1) / kStep;  // steps
            from = args.blocks ? from / args.grain * args.grain : from / kStep * kStep;
            const int span = max(0, to - from);
            const int count = args.blocks ? (span + args.grain - 1) / args.grain * perBlock
                                          : (span + kStep - 1) / kStep;
            if (count == 0) continue;

            copyResident<S>(left, keys, rowBytes<T>(args.k), first, end);
            commitCopies();
            if (diagonal)
                for (int n = int(threadIdx.x); n < kWarps * 256; n += kThreads)
                    own.diagonal[n / 256][n % 256] = 0;

            const auto at = [&](int i) {
                Step step{from + i * kStep, 0, kOwnLower | kOwnUpper, 0};
                step.valid = min(kStep, layer.Nq - step.token);
                if (args.blocks) {
                    const int inside = i % perBlock * kStep;
                    step.token = from + i / perBlock * args.grain + inside;
                    step.valid =
                        max(0, min(min(kStep, args.grain - inside), layer.Nq - step.token));
                }
                const int oldest = layer.position(step.token);
                if (layer.causal && end - 1 > oldest) step.flags |= kCausal;
                if (layer.window > 0 && first < oldest + kStep - layer.window)
                    step.flags |= kWindow;
                if (end - first < kRows || step.valid < kStep) step.flags |= kTail;
                return step;
            };
            // The norms of the queries stand beside them. In blocks of any edge they need not begin
            // on 16 bytes.
            const auto ready = [&](const Step& step, int i) {
                if (args.blocks) {
                    if (int(threadIdx.x) < kStep)
                        own.norm[i % kNorms][threadIdx.x] =
                            int(threadIdx.x) < step.valid ? norm[step.token + int(threadIdx.x)]
                                                          : kInfinity;
                } else if (int(threadIdx.x) < kStep / 4) {
                    copyAsync16(sharedAddress(&own.norm[i % kNorms][4 * threadIdx.x]),
                                norm + step.token + 4 * int(threadIdx.x), true);
                }
            };

            // Cells and diagonals of a step are written when all warps have passed the next
            // barrier.
            const auto writeCells = [&](int i) {
                const int wide = args.grain / 16, across = kStep / args.grain;
                const int n = int(threadIdx.x);
                if (n >= kRows / args.grain * across) return;
                const int a = n % across, b = n / across;  // query cell, key cell
                const int I = (from + i * kStep) / args.grain + a, J = first / args.grain + b;
                float sum = 0, most = 0;
                for (int x = b * wide; x < (b + 1) * wide; ++x)
                    for (int y = a * wide; y < (a + 1) * wide; ++y) {
                        sum += own.cellSum[i % 2][x][y];
                        most = fmaxf(most, own.cellMax[i % 2][x][y]);
                    }
                if (I >= cellRows || J >= cellCols) return;
                if (cellSum) cellSum[Index(I) * cellCols + J] = sum;
                if (cellMax) cellMax[Index(I) * cellCols + J] = sum == sum ? most : sum;
            };
            // The 64 diagonals that no later step touches: where they are stored, and their sum.
            const auto diagonalPlace = [&](int i) {
                return from + i * kStep - first + 1 - kRows + int(threadIdx.x) + mainDiagonal;
            };
            const auto diagonalSum = [&](int i) {
                const int slot = (from + i * kStep - first + 1 - kRows + int(threadIdx.x)) & 255;
                return ((own.diagonal[0][slot] + own.diagonal[1][slot]) + own.diagonal[2][slot]) +
                       own.diagonal[3][slot];
            };
            const auto addDiagonals = [&](int i) {
                const int place = diagonalPlace(i);
                if (int(threadIdx.x) < kStep && place >= 0 && place < args.diagonals)
                    diagonal[place] += diagonalSum(i);
            };

            float columns[kM][2] = {};
            float blockSum = 0, blockMax = 0;
            sweep<S, kMassBuffers>(
                left, ring, queries, rowBytes<T>(args.q), nullptr, count, at, ready,
                [&](const Step& step, int i, Tile<kM>& s) {
                    if (cells && !args.blocks && i > 0) writeCells(i - 1);
                    float old = 0;
                    int place = -1;
                    if (diagonal && i > 0 && int(threadIdx.x) < kStep) {
                        place = diagonalPlace(i - 1);
                        if (place >= args.diagonals) place = -1;
                        if (place >= 0) old = diagonal[place];
                    }
                    const int key = first + lane.warp * 16 * kM + lane.g;
                    if (!scale.direct)
                        toLogits<kM>(s, layer, head, [&](int m, int h, int j, int b) {
                            return key + 16 * m + 8 * h - (step.token + 8 * j + 2 * lane.t + b) +
                                   layer.Nq - 1;
                        });
#pragma unroll
                    for (int j = 0; j < 8; ++j) {
                        const float2 lse = *reinterpret_cast<const float2*>(
                            &own.norm[i % kNorms][8 * j + 2 * lane.t]);
#pragma unroll
                        for (int m = 0; m < kM; ++m)
#pragma unroll
                            for (int e = 0; e < 4; ++e)
                                s[m][j][e] = exp2Fast(
                                    fmaf(s[m][j][e], scale.factor, e % 2 ? -lse.y : -lse.x));
                    }
                    if (step.flags & kTested) {
#pragma unroll
                        for (int m = 0; m < kM; ++m)
#pragma unroll
                            for (int h = 0; h < 2; ++h) {
                                const int j = onTheSpot(key) + 16 * m + 8 * h;
                                const int begin = layer.causal ? j - offset - step.token : 0;
                                int stop = j < end ? step.valid : 0;
                                if (layer.window > 0)
                                    stop = min(stop, j + layer.window - offset - step.token);
                                keepColumns<kM>(s, m, h, columnRange(begin, stop), 0.0f);
                            }
                    }
                    if (cells || args.colMass) {
                        float sum[4 * kM], most[4 * kM];
#pragma unroll
                        for (int m = 0; m < kM; ++m)
#pragma unroll
                            for (int h = 0; h < 2; ++h)
#pragma unroll
                                for (int c = 0; c < 4; ++c) {
                                    const float a = s[m][2 * c][2 * h], b = s[m][2 * c][2 * h + 1],
                                                d = s[m][2 * c + 1][2 * h],
                                                e = s[m][2 * c + 1][2 * h + 1];
                                    const float four = (a + b) + (d + e);
                                    const float top = fmaxf(fmaxf(a, b), fmaxf(d, e));
                                    columns[m][h] += four;
                                    sum[4 * m + c] = h ? sum[4 * m + c] + four : four;
                                    most[4 * m + c] = h ? fmaxf(most[4 * m + c], top) : top;
                                }
                        if (cells && !args.blocks) {
                            const float total = reduceCells<4 * kM, true>(sum, lane.lane),
                                        top = reduceCells<4 * kM, false>(most, lane.lane);
                            constexpr int kSame = 32 / (4 * kM);
                            if (lane.lane % kSame == 0) {
                                const int n = lane.lane / kSame;
                                own.cellSum[i % 2][lane.warp * kM + n / 4][n % 4] = total;
                                own.cellMax[i % 2][lane.warp * kM + n / 4][n % 4] = top;
                            }
                        } else if (args.blocks) {
#pragma unroll
                            for (int n = 0; n < 4 * kM; ++n) {
                                blockSum += sum[n];
                                blockMax = fmaxf(blockMax, most[n]);
                            }
                            if (i % perBlock == perBlock - 1) {
                                float x[1] = {blockSum}, y[1] = {blockMax};
                                const float total = reduceCells<1, true>(x, lane.lane),
                                            top = reduceCells<1, false>(y, lane.lane);
                                const int slot = i / perBlock % 2;
                                if (lane.lane == 0) {
                                    own.cellSum[slot][lane.warp][0] = total;
                                    own.cellMax[slot][lane.warp][0] = top;
                                }
                                blockSum = blockMax = 0;
                                __syncthreads();
                                if (threadIdx.x == 0) {
                                    const Index to =
                                        Index(step.token / args.grain) * cellCols + unit;
                                    float all = 0, best = 0;
                                    for (int w = 0; w < kWarps; ++w) {
                                        all += own.cellSum[slot][w][0];
                                        best = fmaxf(best, own.cellMax[slot][w][0]);
                                    }
                                    if (all != all) best = all;
                                    if (cellSum) cellSum[to] += all;
                                    if (cellMax) cellMax[to] = maxOrNaN(cellMax[to], best);
                                }
                            }
                        }
                    }
                    if (diagonal) {
                        float sum[12];
                        diagonalSums<kM>(s, sum, lane);
                        if (lane.t == 0) {
                            const int base = step.token - first - 16 * kM * lane.warp -
                                             8 * (2 * kM - 1) - lane.g;
#pragma unroll
                            for (int n = 0; n < 12; ++n) {
                                float& to = own.diagonal[lane.warp][(base + 8 * n) & 255];
                                to = n < 4 ? to + sum[n] : sum[n];
                            }
                        }
                        if (place >= 0) diagonal[place] = old + diagonalSum(i - 1);
                    }
                });
            if (cells && !args.blocks) writeCells(count - 1);
            if (diagonal) {
                // Past the last step nothing is added; its own diagonals leave the window.
                addDiagonals(count - 1);
                for (int i = count; i < count + kM; ++i) {
                    if (lane.t == 0) {
                        const int base = from + i * kStep - first - 16 * kM * lane.warp -
                                         8 * (2 * kM - 1) - lane.g;
#pragma unroll
                        for (int n = 4; n < 12; ++n)
                            own.diagonal[lane.warp][(base + 8 * n) & 255] = 0;
                    }
                    __syncthreads();
                    addDiagonals(i);
                }
                __syncthreads();
            }
            if (args.colMass) {
#pragma unroll
                for (int m = 0; m < kM; ++m)
#pragma unroll
                    for (int h = 0; h < 2; ++h) {
                        float x = columns[m][h];
                        x += __shfl_xor_sync(kAllLanes, x, 1);
                        x += __shfl_xor_sync(kAllLanes, x, 2);
                        const int key = first + lane.warp * 16 * kM + lane.g + 16 * m + 8 * h;
                        if (lane.t == 0 && key < end)
                            args.colMass[Index(local) * layer.Nk + key] = x;
                    }
            }
        }
    }
}

template <class T, int W>
void massOf(const MassArgs& args, cudaStream_t stream) {
    using S = WideShape<T, W>;
    constexpr int kShared = S::kLeftBytes + kMassBuffers * S::kRightBytes + int(sizeof(MassShared));
    static_assert(kShared <= 99 * 1024);
    allowShared(massKernel<T, W>, kShared);
    massKernel<T, W>
        <<<dim3(unsigned(args.heads), unsigned(args.groups)), kThreads, kShared, stream>>>(args);
    check(cudaGetLastError(), "mass statistics");
}

template <class T>
void massOf(int width, const MassArgs& args, cudaStream_t stream) {
    width == 64    ? massOf<T, 64>(args, stream)
    : width == 128 ? massOf<T, 128>(args, stream)
                   : massOf<T, 256>(args, stream);
}

/// Keys of a resident tile, by the bytes of a row.
inline int massRows(DType type, int width) {
    return width * bytesOf(type) <= 512 ? 128 : 64;
}

}  // namespace sparsight::kernels::cuda::portable
