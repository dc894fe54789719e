#pragma once

#include <optional>
#include <vector>

#include "core/capture/layer_capture.h"
#include "core/masks/method.h"

namespace sparsight {

/// Recall and cost of one mask on one head (probes.md 8, kernels.md 2). Shares in [0, 1].
struct MaskMetrics {
    Index layer = 0, head = 0;
    double coverage = 0;      ///< nominal kept pairs / valid pairs
    double density = 0;       ///< executed tile area / valid tile area
    double recall = 0;        ///< exact, mean over rows
    double recallMin = 0, recallP1 = 0, recallP5 = 0;
    double tileRecall = 0;    ///< mass in the executed tiles, mean over rows
    std::optional<double> needleRecall;  ///< answer rows x needle columns: kept share of that mass
    double outputError = 0;   ///< sqrt(sum ||o_M - o||^2 / sum ||o||^2), renormalised softmax
    Index tiles = 0;
    std::vector<float> rowRecall;  ///< [Nq] exact; empty rows give 0
};

struct MetricsOptions {
    std::optional<NeedleTruth> needle;
    bool outputError = true;
    bool tileRecall = true;
};

/// Exact metrics of `policy` on one head, without n x n memory.
/// @param lse dense, [Nq]; @param v needed for outputError
MaskMetrics measureMask(kernels::Backend& backend, const HeadInput& head, kernels::TensorView v,
                        const kernels::Policy& policy, const MetricsOptions& options,
                        const Job& job = {});

/// HeadInput of one captured head. @param stats null = no pyramid
HeadInput headInput(const LayerCapture& layer, const LayerStats* stats, Index head,
                    kernels::Backend& backend);

/// Recall against density of one method on one head: the budget parameter swept over its range, or
/// for oracle-blocks from the pyramid alone. Points ascend in density.
struct CurvePoint {
    double density = 0, coverage = 0, recall = 0;
    MethodSpec spec;
};
std::vector<CurvePoint> recallCurve(kernels::Backend& backend, const HeadInput& head,
                                    kernels::TensorView v, const MethodSpec& method, int points,
                                    const Job& job = {});

}  // namespace sparsight
