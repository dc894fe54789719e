#pragma once

#include "core/capture/capture.h"

namespace sparsight {

/// Called once with the tokens that were generated, before the first layer reaches the sink.
using GeneratedFn = std::function<void(std::span<const std::int32_t> generated)>;

/// Prefills the prompt, generates up to `steps` tokens greedily with the KV cache and captures the
/// rows of both: q of step s is row prompt + s as the decode pass computed it, keys and values are
/// the cache's. Every layer reaches the sink with prompt + generated rows, at the last step; that
/// token too is run, so that it has a row. Ends early after an end-of-text token.
/// Memory: the KV cache of all layers and Q of the chosen ones (in the stored type).
/// @param steps  1 or more
/// @return the largest massError
/// @throws Error(Usage) empty prompt, no step or a layer out of range; Error(Unsupported) for
///         models that are not one causal decoder; Cancelled
double captureDecode(ModelRunner& model, kernels::Backend& backend,
                     std::span<const std::int32_t> prompt, Index steps,
                     const CaptureOptions& options, const GeneratedFn& generated,
                     const LayerSink& sink, const Job& job = {});

/// What captureDecode takes: estimateCapture() of all tokens, and the cache and Q that stay in
/// memory until the last step.
CaptureEstimate estimateDecode(const ModelConfig& config, Index prompt, Index steps,
                               const CaptureOptions& options, kernels::Backend& backend);

/// "0,3,5-9" -> {0,3,5,6,7,8,9}. @throws Error(Usage) for anything else, or a step beyond 2^20
std::vector<Index> parseSteps(std::string_view text);

}  // namespace sparsight
