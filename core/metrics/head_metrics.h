#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/capture/layer_capture.h"

namespace sparsight {

/// Facts about one head (probes.md 1 and 4); rows >= 64 where means are taken over rows (all rows
/// of prompts that have no more than 64, and of layers that are not causal).
struct HeadFacts {
    Index layer = 0, head = 0, kvHead = 0;
    double sinkMass = 0;              ///< SM_4: mass on the first four keys
    double localMass = 0;             ///< LM_64; not causal: on distances below 64 both ways
    double entropy = 0;               ///< nats
    double distance = 0;              ///< tokens; not causal: without sign
    std::optional<double> retrieval;  ///< retr_set, teacher-forced; null without a needle
    double streamingRecall = 0;       ///< recall of sink 4 + window 256, mean over rows
    std::string label;  ///< retrieval (score >= 0.1), else streaming (recall >= 0.95), else mixed
};

/// @param ids the prompt's tokens (for the retrieval score); [Nk]
/// @throws Error(Shape) when stats, ids or the needle do not belong to the layer
std::vector<HeadFacts> headFacts(kernels::Backend& backend, const LayerCapture& layer,
                                 const LayerStats& stats, std::span<const std::int32_t> ids,
                                 const std::optional<NeedleTruth>& needle, const Job& job = {});

/// Retrieval score of one head from attention argmaxes (probes.md 1, also counts of the authors'
/// code). Steps are pairs (argmax key of the row before the token, the token's id).
struct RetrievalScore {
    double set = 0;   ///< distinct needle positions hit / needle size
    double code = 0;  ///< hits / needle size
};
struct CopyStep {
    Index argmaxKey;
    std::int32_t token;
};
RetrievalScore retrievalScore(std::span<const CopyStep> steps, std::span<const std::int32_t> ids,
                              TokenSpan needle);

/// The key with the largest probability in one row (lowest index on ties) and that probability.
struct RowPeak {
    Index key = -1;
    double probability = 0;
};
/// @throws Error(Shape) for a row outside the problem, Error(Format) when its scores are not finite
RowPeak rowPeak(const kernels::Problem& head, kernels::TensorView q, kernels::TensorView k,
                Index row);

/// The `count` keys with the largest probabilities of one row, ranked by float64 scores.
/// @throws as rowPeak
TopKeys rowTopKeys(const kernels::Problem& head, kernels::TensorView q, kernels::TensorView k,
                   Index row, Index count);

/// All probabilities of one row, [Nk], zeros where the row cannot see: softcap, bias, the layer's
/// window and learned sinks included; float64 inside. @throws as rowPeak
void rowProbabilities(const kernels::Problem& head, kernels::TensorView q, kernels::TensorView k,
                      Index row, float* out);

}  // namespace sparsight
