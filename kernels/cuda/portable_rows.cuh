#pragma once

#include "kernels/cuda/portable_row_sums.cuh"

/// Row statistics: the LSE over a plan's tiles, or every statistic over the visible pairs.
namespace sparsight::kernels::cuda::portable {

struct RowsArgs {
    Layer layer;
    Rows q, k;
    DevicePlan plan;  ///< without tiles: every visible pair
    bool planned = false;
    RowStatistics out;
};

template <class T, int W>
__global__ void __launch_bounds__(kThreads, (sizeof(T) == 2 && W == 128 ? 3 : 2))
    rowsKernel(const __grid_constant__ RowsArgs args) {
    using S = WideShape<T, W>;
    constexpr int kM = S::kM;
    extern __shared__ __align__(1024) unsigned char shared[];
    const std::uint32_t left = sharedAddress(shared), ring = left + S::kLeftBytes;
    Step* const steps = reinterpret_cast<Step*>(shared + S::kLeftBytes + 2 * S::kRightBytes);
    int* const counts = reinterpret_cast<int*>(steps + kListedSteps);

    const Layer& layer = args.layer;
    int head, batch, first;
    WorkItem item{};
    if (args.planned) {
        item = args.plan.work[blockIdx.x];
        head = item.head;
        batch = int(blockIdx.y);
        first = item.qtile * int(kTile) + int(blockIdx.z) * kStep;
    } else {  // the longest rows first
        head = int(blockIdx.x) % layer.Hq;
        batch = int(blockIdx.x) / layer.Hq;
        first = int(gridDim.y - 1 - blockIdx.y) * S::kRows;
    }
    if (first >= layer.Nq) return;
    const Lane lane;
    const int row = first + lane.warp * 16 * kM + lane.g;
    const Scale scale(layer);
    copyResident<S>(left, static_cast<const char*>(args.q.at(batch, head, sizeof(T))),
                    rowBytes<T>(args.q), first, layer.Nq);
    commitCopies();

    RowSums rows[kM][2];
    clear<kM>(rows);
    const bool all = args.out.beyondLse();
    const int end = min(first + S::kRows, layer.Nq);
    const VisibleSteps visible(layer, first, end);
    for (int tile = item.first;; tile += kListedSteps / 2) {
        const int count = args.planned
                              ? planSteps(steps, counts, args.plan, tile, item.first + item.count,
                                          kM == 2 ? 3 : 1 << blockIdx.z)
                              : visible.count;
        const auto at = [&](int i) { return args.planned ? steps[i] : visible(i); };
        sweep<S, 2>(
            left, ring, static_cast<const char*>(args.k.at(batch, layer.kvHead(head), sizeof(T))),
            rowBytes<T>(args.k), args.plan.gather, count, at, [](const Step&, int) {},
            [&](const Step& step, int, Tile<kM>& s) {
                if (!scale.direct) toLogits<kM>(s, layer, head, step, row, args.plan.gather);
                if (step.flags & kTested)
                    hide<kM>(s, layer, step, row, args.plan.gather, args.plan.bits);
                const bool sinks = all && step.token < args.out.sinkTokens;
                const bool locals = all && layer.position(end - 1) - args.out.localTokens <
                                               step.token + step.valid + S::kRows;
#pragma unroll
                for (int m = 0; m < kM; ++m)
#pragma unroll
                    for (int h = 0; h < 2; ++h) {
                        const int ahead =
                            layer.position(row + 16 * m + 8 * h) - step.token - 2 * lane.t;
                        if (!all) {
                            addStep<false, kM>(rows[m][h], s, m, h, scale.factor, ahead);
                            continue;
                        }
                        addStep<true, kM>(rows[m][h], s, m, h, scale.factor, ahead);
                        if (sinks) {
#pragma unroll
                            for (int n = 0; n < 16; ++n) {
                                const int column = n / 2 * 8 + n % 2;
                                rows[m][h].sink +=
                                    step.token + 2 * lane.t + column < args.out.sinkTokens
                                        ? s[m][n / 2][2 * h + n % 2]
                                        : 0;
                            }
                        }
                        if (locals) {
#pragma unroll
                            for (int n = 0; n < 16; ++n) {
                                const int back = ahead - (n / 2 * 8 + n % 2);
                                rows[m][h].local += back >= 0 && back < args.out.localTokens
                                                        ? s[m][n / 2][2 * h + n % 2]
                                                        : 0;
                            }
                        }
                    }
            });
        if (tile + kListedSteps / 2 >= item.first + item.count) break;
    }

    const RowStatistics& out = args.out;
#pragma unroll
    for (int m = 0; m < kM; ++m)
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            RowSums& sums = rows[m][h];
            sums.merge(sums.fromLane(1), scale.factor);
            sums.merge(sums.fromLane(2), scale.factor);
            const int r = row + 16 * m + 8 * h;
            if (r >= layer.Nq || lane.t != 0) continue;
            const Index to = (Index(batch) * layer.Hq + head) * layer.Nq + r;
            const bool some = sums.sum > 0;
            const float base = some ? sums.top * scale.factor : 0;
            float weight = sums.sum;
            if (layer.sinks) weight += exp2f(layer.sinks[head] * kLog2e - base);
            const float share = some ? 1 / weight : 0;
            if (out.lse) out.lse[to] = some ? kLn2 * (base + log2f(sums.sum)) : -kInfinity;
            if (out.rowMax)
                out.rowMax[to] = !some          ? -kInfinity
                                 : scale.direct ? layer.scale * sums.top
                                                : kLn2 * sums.top;
            if (out.entropy)
                out.entropy[to] =
                    some ? kLn2 * share * fmaf(sums.sum, log2f(weight), -sums.spread) : 0;
            if (out.meanDistance) out.meanDistance[to] = sums.distance * share;
            if (out.sinkMass) out.sinkMass[to] = sums.sink * share;
            if (out.localMass) out.localMass[to] = sums.local * share;
        }
}

template <class T, int W>
void rowsOf(const RowsArgs& args, cudaStream_t stream) {
    using S = WideShape<T, W>;
    constexpr int kShared =
        S::kLeftBytes + 2 * S::kRightBytes + kListedSteps * int(sizeof(Step)) + 16;
    const Layer& layer = args.layer;
    const dim3 grid =
        args.planned
            ? dim3(unsigned(args.plan.workCount), unsigned(layer.batch), S::kM == 2 ? 1 : 2)
            : dim3(unsigned(layer.batch * layer.Hq), unsigned(ceilDiv(layer.Nq, S::kRows)));
    if (grid.x == 0 || grid.y == 0) return;
    allowShared(rowsKernel<T, W>, kShared);
    rowsKernel<T, W><<<grid, kThreads, kShared, stream>>>(args);
    check(cudaGetLastError(), "row statistics");
}

template <class T>
void rowsOf(int width, const RowsArgs& args, cudaStream_t stream) {
    width == 64    ? rowsOf<T, 64>(args, stream)
    : width == 128 ? rowsOf<T, 128>(args, stream)
                   : rowsOf<T, 256>(args, stream);
}

}  // namespace sparsight::kernels::cuda::portable
