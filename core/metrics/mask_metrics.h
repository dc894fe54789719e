#pragma once

#include <array>
#include <optional>
#include <vector>

#include "core/capture/layer_capture.h"
#include "core/masks/method.h"

namespace sparsight {

/// Recall and cost of one mask on one head (probes.md 8, kernels.md 2). Shares in [0, 1]. Means and
/// percentiles are over all rows that see a key; percentiles interpolate linearly between order
/// statistics (rank p (rows - 1), as numpy does).
struct MaskMetrics {
    Index layer = 0, head = 0;
    double coverage = 0;  ///< nominal kept pairs / valid pairs
    double density = 0;   ///< executed tile area / valid tile area
    double recall = 0;    ///< exact, mean over rows
    double recallMin = 0, recallP1 = 0, recallP5 = 0;
    double tileRecall = 0;               ///< mass in the executed tiles, mean over rows
    std::optional<double> needleRecall;  ///< answer rows x needle columns: kept share of that mass
    double outputError = 0;  ///< sqrt(sum ||o_M - o||^2 / sum ||o||^2), renormalised softmax; NaN
                             ///< when the capture holds no V
    Index tiles = 0;
    /// Share of a row's k largest probabilities (all keys of rows that see fewer) whose keys are in
    /// the nominal set, mean over rows, for the k of kOverlaps; null where the capture keeps none.
    std::optional<std::array<double, 3>> topOverlap;
    std::vector<float> rowRecall;  ///< [Nq] exact; empty rows give 0
};

/// The k of MaskMetrics::topOverlap.
inline constexpr std::array<Index, 3> kOverlaps = {1, 16, 64};

struct MetricsOptions {
    std::optional<NeedleTruth> needle;
    bool outputError = true;
    bool tileRecall = true;
    /// Dense output [Nq][dv] when the caller has it already (a slider moves, the head stays); null
    /// = computed here where outputError needs it.
    const float* denseOutput = nullptr;
    const TopKeys* top = nullptr;  ///< of the head's rows, for topOverlap; null = not known
};

/// Exact metrics of `policy` on one head, without n x n memory.
///
///     recall_i = sum_{j in M} P_ij = exp(LSE_M,i - LSE_i)     (learned sinks count in neither)
///
/// @param head  its lse (dense, [Nq]) is computed when null
/// @param v     [Nk, Dv]; read for outputError only
/// @throws Error(Format) when scores are NaN or a recall is above 1 by more than 1e-4 (then the
///         stored lse does not belong to q and k); Error(Shape) for a policy that does not fit
MaskMetrics measureMask(kernels::Backend& backend, const HeadInput& head, kernels::TensorView v,
                        const kernels::Policy& policy, const MetricsOptions& options,
                        const Job& job = {});

/// MaskMetrics::topOverlap alone; null when no row has a key.
/// @param top  of all rows of the head
std::optional<std::array<double, 3>> topOverlap(const kernels::Problem& head,
                                                const kernels::Policy& policy, const TopKeys& top);

/// HeadInput of one captured head. @param stats null = no pyramid
HeadInput headInput(const LayerCapture& layer, const LayerStats* stats, Index head,
                    kernels::Backend& backend);

/// The dense output of a head, [Nq][dv], for MetricsOptions::denseOutput; empty without V.
std::vector<float> denseOutput(kernels::Backend& backend, const HeadInput& head,
                               kernels::TensorView v, const Job& job = {});

/// Recall against density of one method on one head: the budget parameter swept over a log range
/// (other given parameters stay; vertical-slash scales its two sizes together, as MInference's
/// minference_ratio does), for oracle-blocks from the block masses alone. Points ascend in density,
/// one per density; a method without a budget gives one point.
/// @param points  at most so many, at least 2
/// @throws Error(Usage) as the method's select() does
struct CurvePoint {
    double density = 0, coverage = 0, recall = 0;
    MethodSpec spec;
};
std::vector<CurvePoint> recallCurve(kernels::Backend& backend, const HeadInput& head,
                                    kernels::TensorView v, const MethodSpec& method, int points,
                                    const Job& job = {});

}  // namespace sparsight
