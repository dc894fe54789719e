#include "core/capture/layer_capture.h"

#include <algorithm>

namespace sparsight {

void buildPyramid(LayerStats& stats) {
    while (!stats.pyramid.empty() &&
           (stats.pyramid.back().rows > 1 || stats.pyramid.back().cols > 1)) {
        const LayerStats::Level& fine = stats.pyramid.back();
        LayerStats::Level coarse;
        coarse.block = fine.block * 2;
        coarse.rows = (fine.rows + 1) / 2;
        coarse.cols = (fine.cols + 1) / 2;
        const auto size = std::size_t(stats.heads * coarse.rows * coarse.cols);
        coarse.sum.assign(size, 0.0f);
        coarse.max.assign(size, 0.0f);
        for (Index h = 0; h < stats.heads; ++h)
            for (Index r = 0; r < fine.rows; ++r)
                for (Index c = 0; c < fine.cols; ++c) {
                    const auto from = std::size_t((h * fine.rows + r) * fine.cols + c);
                    const auto to = std::size_t((h * coarse.rows + r / 2) * coarse.cols + c / 2);
                    coarse.sum[to] += fine.sum[from];
                    coarse.max[to] = std::max(coarse.max[to], fine.max[from]);
                }
        stats.pyramid.push_back(std::move(coarse));
    }
}

kernels::Problem headProblem(const LayerCapture& layer, Index head) {
    return layer.problem.oneHead(head);
}
kernels::TensorView headQ(const LayerCapture& layer, Index head) { return layer.q.head(head); }
kernels::TensorView headK(const LayerCapture& layer, Index head) {
    return layer.k.head(layer.problem.kvHead(head));
}
kernels::TensorView headV(const LayerCapture& layer, Index head) {
    return layer.v.head(layer.problem.kvHead(head));
}

}  // namespace sparsight
