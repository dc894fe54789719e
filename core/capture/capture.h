#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/capture/layer_capture.h"
#include "core/model/runner.h"

namespace sparsight {

struct CaptureOptions {
    std::vector<Index> layers;                   ///< sorted; empty = all
    kernels::DType store = kernels::DType::F32;  ///< type of the stored Q, K, V
};

struct CaptureEstimate {
    double seconds = 0;     ///< from measured matrix and attention rates of this machine
    Index memoryBytes = 0;  ///< peak above the loaded model
    Index diskBytes = 0;
    Index modelBytes = 0;  ///< float32 weights that are in memory at a time
};
/// What a capture of `tokens` tokens takes. The first call for a backend and head width measures
/// the machine's rates (~150 ms); later ones reuse them.
CaptureEstimate estimateCapture(const ModelConfig& config, Index tokens,
                                const CaptureOptions& options, kernels::Backend& backend);

CaptureEstimate estimateCapture(const ModelConfig& config, const InputSize& size,
                                const CaptureOptions& options, kernels::Backend& backend);

/// Called layer by layer, in order, as soon as a layer is done. The arguments live only during the
/// call. Throwing stops the capture (disk full); finished layers stay.
using LayerSink = std::function<void(const LayerCapture&, const LayerStats&)>;

/// Runs the prompt and hands each chosen layer to the sink. Memory: one layer's activations, the
/// KV cache is not kept.
/// @return the largest massError
/// @throws Error(Usage) empty prompt or layer out of range; Cancelled between tiles
double capturePrompt(ModelRunner& model, kernels::Backend& backend,
                     std::span<const std::int32_t> ids, const CaptureOptions& options,
                     const LayerSink& sink, const Job& job = {});
/// The same for inputs of any kind: a decoder's text beside the encoder's, an image. Layers reach
/// the sink in the order in which they run; no layers chosen = all that the input reaches.
double capturePrompt(ModelRunner& model, kernels::Backend& backend, const ModelInput& input,
                     const CaptureOptions& options, const LayerSink& sink, const Job& job = {});

}  // namespace sparsight
