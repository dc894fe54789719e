#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/capture/layer_capture.h"
#include "core/model/runner.h"

namespace sparsight {

struct CaptureOptions {
    std::vector<Index> layers;  ///< sorted; empty = all
    kernels::DType store = kernels::DType::F32;  ///< type of the stored Q, K, V
};

struct CaptureEstimate {
    double seconds = 0;      ///< from measured matrix and attention rates of this machine
    Index memoryBytes = 0;   ///< peak above the loaded model
    Index diskBytes = 0;
    Index modelBytes = 0;    ///< float32 weights
};
/// What a capture of `tokens` tokens takes. The first call for a backend and head width measures the
/// machine's rates (~150 ms); later ones reuse them.
CaptureEstimate estimateCapture(const ModelConfig& config, Index tokens, const CaptureOptions& options,
                                kernels::Backend& backend);

/// Called layer by layer, in order, as soon as a layer is done. The arguments live only during the
/// call. Throwing stops the capture (disk full); finished layers stay.
using LayerSink = std::function<void(const LayerCapture&, const LayerStats&)>;

/// Runs the prompt and hands each chosen layer to the sink. Memory: one layer's activations, the
/// KV cache is not kept.
/// @return the largest massError
/// @throws Error(Usage) empty prompt or layer out of range; Cancelled between tiles
double capturePrompt(ModelRunner& model, kernels::Backend& backend, std::span<const std::int32_t> ids,
                     const CaptureOptions& options, const LayerSink& sink, const Job& job = {});

/// "0,2-5" -> {0,2,3,4,5}; "all" or "" -> all. @throws Error(Usage/NotFound) with the valid range
std::vector<Index> parseLayers(std::string_view text, Index layerCount);

}  // namespace sparsight
