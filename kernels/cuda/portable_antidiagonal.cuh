#pragma once

#include "kernels/cuda/portable_bins.cuh"
#include "kernels/cuda/portable_row_sums.cuh"

/// Antidiagonal block scores: row a and column b of the tile are groups of `stride` tokens, and
///     s[a][b] = sum over t < stride of q[a stride + stride - 1 - t] . k[b stride + t],
/// a product of long rows whose parts are strided views; both sides stream.
namespace sparsight::kernels::cuda::portable {

struct AntidiagonalArgs {
    Rows q, k;
    int Hq = 1, group = 1;  ///< query heads, query heads of a key head
    int Nq = 0, Nk = 0, stride = 1;
    int rows = 0, columns = 0;  ///< groups that hold a token
    int ahead = 0;              ///< row a sees the columns 0 .. a + ahead, or all
    bool causal = true;
    float factor = 1;        ///< of s, for base-2 logits
    float* norm2 = nullptr;  ///< [heads][rows]
    Bins rowBins, columnBins;
    int band = 1, stretch = 1;
    float* out = nullptr;  ///< [heads][rowBins.count][columnBins.count], zero before

    __device__ int seen(int row) const {
        return !causal ? columns : min(max(row + ahead + 1, 0), columns);
    }
};

template <class T, int W>
using AntidiagonalShape = Shape<T, W, 2, 128>;

/// The score tiles of rows first .. first + 127 with the columns from, from + 64, ...: use(column,
/// s).
template <class S, class Use>
__device__ void sweepGroups(const AntidiagonalArgs& args, std::uint32_t ring, int head, int batch,
                            int first, int from, int count, const Use& use) {
    using T = typename S::T;
    constexpr int kLeft = S::kRows * S::kChunk;
    const Lane lane;
    const auto* const queries = static_cast<const char*>(args.q.at(batch, head, sizeof(T)));
    const auto* const keys =
        static_cast<const char*>(args.k.at(batch, head / args.group, sizeof(T)));
    const int parts = args.stride * S::kChunks;
    const auto issue = [&](int item, std::uint32_t to) {
        const int column = from + item / parts * kStep, part = item % parts;
        const int t = part / S::kChunks, chunk = part % S::kChunks;
        copyRows<S::kChunk, S::kRows>(
            to, queries + chunk * S::kChunk, rowBytes<T>(args.q), [&](int row) {
                const int n = (first + row) * args.stride + args.stride - 1 - t;
                return n < args.Nq ? n : -1;
            });
        copyRows<S::kChunk, kStep>(to + kLeft, keys + chunk * S::kChunk, rowBytes<T>(args.k),
                                   [&](int row) {
                                       const int n = (column + row) * args.stride + t;
                                       return n < args.Nk ? n : -1;
                                   });
    };
    Ring<2, kLeft + S::kRightBytes, decltype(issue)> buffers(ring, count * parts, issue);
    for (int i = 0; i < count; ++i) {
        Tile<S::kM> s;
        clear<S::kM>(s);
        for (int part = 0; part < parts; ++part) {
            const std::uint32_t at = buffers.next();
            addScores<S, S::kChunk>(s,
                                    leftAddress(at, lane.warp * 16 * S::kM, S::kChunk, lane.lane),
                                    rightAddress(at + kLeft, S::kChunk, lane.lane));
        }
        use(from + i * kStep, s);
    }
    buffers.drain();
}

/// First sweep: the LSE of every row.
template <class T, int W>
__global__ void __launch_bounds__(kThreads, 2)
    antidiagonalNormKernel(const __grid_constant__ AntidiagonalArgs args) {
    using S = AntidiagonalShape<T, W>;
    constexpr int kM = S::kM;
    extern __shared__ __align__(1024) unsigned char shared[];
    const Lane lane;
    const int first = int(gridDim.y - 1 - blockIdx.y) * S::kRows;
    const int row = first + lane.warp * 16 * kM + lane.g;
    const int seen = args.seen(min(first + S::kRows, args.rows) - 1);
    RowSums sums[kM][2];
    clear<kM>(sums);
    sweepGroups<S>(args, sharedAddress(shared), int(blockIdx.x) % args.Hq,
                   int(blockIdx.x) / args.Hq, first, 0, (seen + kStep - 1) / kStep,
                   [&](int column, Tile<kM>& s) {
#pragma unroll
                       for (int m = 0; m < kM; ++m)
#pragma unroll
                           for (int h = 0; h < 2; ++h) {
#pragma unroll
                               for (int j = 0; j < 8; ++j) {
                                   s[m][j][2 * h] *= args.factor;
                                   s[m][j][2 * h + 1] *= args.factor;
                               }
                               const int end = args.seen(row + 16 * m + 8 * h) - column;
                               if (end < kStep)
                                   keepColumns<kM>(s, m, h, columnRange(0, end), -kInfinity);
                               addStep<false, kM>(sums[m][h], s, m, h, 1.0f, 0);
                           }
                   });
#pragma unroll
    for (int m = 0; m < kM; ++m)
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            sums[m][h].merge(sums[m][h].fromLane(1), 1.0f);
            sums[m][h].merge(sums[m][h].fromLane(2), 1.0f);
            const int r = row + 16 * m + 8 * h;
            if (r < args.rows && lane.t == 0)
                args.norm2[Index(blockIdx.x) * args.rows + r] =
                    sums[m][h].top + log2f(sums[m][h].sum);
        }
}

/// Second sweep: probabilities, added up in blocks.
template <class T, int W>
__global__ void __launch_bounds__(kThreads, 2)
    antidiagonalMassKernel(const __grid_constant__ AntidiagonalArgs args) {
    using S = AntidiagonalShape<T, W>;
    constexpr int kM = S::kM, kRows = S::kRows;
    extern __shared__ __align__(1024) unsigned char shared[];
    const BinTile tile{reinterpret_cast<float*>(shared + 2 * (kRows * S::kChunk + S::kRightBytes))};
    int* const rowBin = reinterpret_cast<int*>(tile.p + kRows * kStep);
    const Lane lane;
    const int band = int(gridDim.y - 1 - blockIdx.y) * args.band;
    const int bandEnd = min(band + args.band, args.rowBins.count);
    const int bin = int(blockIdx.z) * args.stretch;
    const int from = args.columnBins.begin(bin);
    const int to = args.columnBins.begin(min(bin + args.stretch, args.columnBins.count));
    const int rowsBegin = args.rowBins.begin(band),
              rowsEnd = min(args.rowBins.begin(bandEnd), args.rows);
    const float* const norm2 = args.norm2 + Index(blockIdx.x) * args.rows;
    for (int first = rowsBegin; first < rowsEnd; first += kRows) {
        const int end = min(first + kRows, rowsEnd);
        const int last = min(args.seen(end - 1), to);
        if (last <= from) continue;
        BinBlock<kRows> bins(
            args.rowBins, args.columnBins, band, bandEnd - band, first, end, from, tile, rowBin,
            args.out + Index(blockIdx.x) * args.rowBins.count * args.columnBins.count, false,
            rowsEnd - rowsBegin > kRows);
        const int row = first + lane.warp * 16 * kM + lane.g;
        float norm[kM][2];
#pragma unroll
        for (int m = 0; m < kM; ++m)
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                const int r = row + 16 * m + 8 * h;
                norm[m][h] = r < end ? norm2[r] : 0;
            }
        const int mine = first + int(threadIdx.x);
        const int seen = mine < end ? args.seen(mine) : 0;
        sweepGroups<S>(
            args, sharedAddress(shared), int(blockIdx.x) % args.Hq, int(blockIdx.x) / args.Hq,
            first, from, (last - from + kStep - 1) / kStep, [&](int column, Tile<kM>& s) {
#pragma unroll
                for (int m = 0; m < kM; ++m)
#pragma unroll
                    for (int j = 0; j < 8; ++j)
#pragma unroll
                        for (int e = 0; e < 4; ++e)
                            s[m][j][e] = exp2Fast(fmaf(s[m][j][e], args.factor, -norm[m][e / 2]));
                bins.template put<kM>(s);
                const int valid = min(kStep, last - column);
                bins.add(column, valid, columnRange(0, min(seen - column, valid)));
            });
        bins.finish();
        __syncthreads();
    }
}

template <class T, int W>
void antidiagonalOf(AntidiagonalArgs args, int heads, cudaStream_t stream) {
    using S = AntidiagonalShape<T, W>;
    constexpr int kRing = 2 * (S::kRows * S::kChunk + S::kRightBytes);
    constexpr int kShared = kRing + S::kRows * kStep * 4 + (S::kRows + 1) * 4;
    static_assert(kShared <= 99 * 1024);
    const BinGrid grid(args.rowBins, args.columnBins, S::kRows, 1024);
    args.band = grid.band;
    args.stretch = grid.stretch;
    allowShared(antidiagonalNormKernel<T, W>, kRing);
    allowShared(antidiagonalMassKernel<T, W>, kShared);
    antidiagonalNormKernel<T, W><<<dim3(unsigned(heads), unsigned(ceilDiv(args.rows, S::kRows))),
                                   kThreads, kRing, stream>>>(args);
    check(cudaGetLastError(), "antidiagonal scores");
    antidiagonalMassKernel<T, W>
        <<<dim3(unsigned(heads), unsigned(grid.bands), unsigned(grid.stretches)), kThreads, kShared,
           stream>>>(args);
    check(cudaGetLastError(), "antidiagonal scores");
}

template <class T>
void antidiagonalOf(int width, const AntidiagonalArgs& args, int heads, cudaStream_t stream) {
    width == 64    ? antidiagonalOf<T, 64>(args, heads, stream)
    : width == 128 ? antidiagonalOf<T, 128>(args, heads, stream)
                   : antidiagonalOf<T, 256>(args, heads, stream);
}

}  // namespace sparsight::kernels::cuda::portable
