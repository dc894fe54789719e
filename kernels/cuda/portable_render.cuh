#pragma once

#include "kernels/cuda/portable.h"
#include "kernels/cuda/portable_bins.cuh"

/// The pixels of one head's attention.
namespace sparsight::kernels::cuda::portable {

struct RenderArgs {
    Layer layer;
    Rows q, k;
    const float* norm2 = nullptr;
    Bins rows, columns;
    int band = 1, stretch = 1;  ///< row bins and column bins of a block
    int q0 = 0;                 ///< the row of mask.rowPtr[0]
    RenderMask mask;
    bool most = false;
    float* out = nullptr;  ///< [rows.count][columns.count], zero before
};

template <class T, int W>
__global__ void __launch_bounds__(kThreads, 2)
    renderKernel(const __grid_constant__ RenderArgs args) {
    using S = SlimShape<T, W, 128>;
    constexpr int kM = S::kM, kRows = S::kRows;
    extern __shared__ __align__(1024) unsigned char shared[];
    const std::uint32_t left = sharedAddress(shared), ring = left + S::kLeftBytes;
    const BinTile tile{reinterpret_cast<float*>(shared + S::kLeftBytes + 2 * S::kRightBytes)};
    int* const rowBin = reinterpret_cast<int*>(tile.p + kRows * kStep);

    const Layer& layer = args.layer;
    const Lane lane;
    const Scale scale(layer);
    // The last rows first: they see most.
    const int band = int(gridDim.y - 1 - blockIdx.y) * args.band;
    const int bandEnd = min(band + args.band, args.rows.count);
    const int bin = int(blockIdx.x) * args.stretch;
    const int from = args.columns.begin(bin);
    const int to = args.columns.begin(min(bin + args.stretch, args.columns.count));
    const int rowsEnd = args.rows.begin(bandEnd), rowsBegin = args.rows.begin(band);
    for (int first = rowsBegin; first < rowsEnd; first += kRows) {
        const int end = min(first + kRows, rowsEnd);
        const VisibleSteps visible(layer, first, end, from, to);
        if (visible.count == 0) continue;
        copyResident<S>(left, static_cast<const char*>(args.q.p), rowBytes<T>(args.q), first, end);
        commitCopies();
        BinBlock<kRows> bins(args.rows, args.columns, band, bandEnd - band, first, end,
                             visible.begin, tile, rowBin, args.out, args.most,
                             rowsEnd - rowsBegin > kRows);
        float norm[kM][2];
#pragma unroll
        for (int m = 0; m < kM; ++m)
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                const int row = first + lane.warp * 16 * kM + 16 * m + 8 * h + lane.g;
                norm[m][h] = row < end ? args.norm2[row] : 0;
            }
        const int mine = first + int(threadIdx.x);  // the row that the thread walks along
        const bool walks = mine < end && args.norm2[mine] != -kInfinity;
        const int seenFrom = walks ? layer.visibleBegin(mine) : 0,
                  seenTo = walks ? layer.visibleEnd(mine) : 0;
        RangeWalk walk;
        if (args.mask.rowPtr && walks)
            walk =
                RangeWalk(args.mask.ranges + args.mask.rowPtr[mine - args.q0],
                          args.mask.ranges + args.mask.rowPtr[mine - args.q0 + 1], args.mask.kept);
        sweep<S, 2>(
            left, ring, static_cast<const char*>(args.k.p), rowBytes<T>(args.k), nullptr,
            visible.count, visible, [](const Step&, int) {},
            [&](const Step& step, int, Tile<kM>& s) {
                if (!scale.direct)
                    toLogits<kM>(s, layer, 0, step, first + lane.warp * 16 * kM + lane.g, nullptr);
#pragma unroll
                for (int m = 0; m < kM; ++m)
#pragma unroll
                    for (int j = 0; j < 8; ++j)
#pragma unroll
                        for (int e = 0; e < 4; ++e)
                            s[m][j][e] = exp2Fast(fmaf(s[m][j][e], scale.factor, -norm[m][e / 2]));
                bins.template put<kM>(s);
                bins.add(step.token, step.valid,
                         columnRange(seenFrom - step.token, min(seenTo - step.token, step.valid)) &
                             walk.columns(step.token));
            });
        bins.finish();
        __syncthreads();
    }
}

template <class T, int W>
void renderOf(RenderArgs args, cudaStream_t stream) {
    using S = SlimShape<T, W, 128>;
    constexpr int kShared =
        S::kLeftBytes + 2 * S::kRightBytes + S::kRows * kStep * 4 + (S::kRows + 1) * 4;
    static_assert(kShared <= 99 * 1024);
    const BinGrid grid(args.rows, args.columns, S::kRows, 2048);
    args.band = grid.band;
    args.stretch = grid.stretch;
    allowShared(renderKernel<T, W>, kShared);
    renderKernel<T, W>
        <<<dim3(unsigned(grid.stretches), unsigned(grid.bands)), kThreads, kShared, stream>>>(args);
    check(cudaGetLastError(), "render");
}

template <class T>
void renderOf(int width, const RenderArgs& args, cudaStream_t stream) {
    width == 64    ? renderOf<T, 64>(args, stream)
    : width == 128 ? renderOf<T, 128>(args, stream)
                   : renderOf<T, 256>(args, stream);
}

}  // namespace sparsight::kernels::cuda::portable
