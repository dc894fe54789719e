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
    std::string device = "cpu";  ///< where the model runs, for estimates: cpu, cuda or cuda:N
    /// Also the kTopKeys largest probabilities of every row: 512 bytes a row and head.
    bool topKeys = false;
    Index topK() const { return topKeys ? kTopKeys : 0; }
};

struct CaptureEstimate {
    double seconds = 0;     ///< from measured matrix and attention rates of this machine
    Index memoryBytes = 0;  ///< peak above the loaded model
    Index diskBytes = 0;
    Index topKeyBytes = 0;  ///< of these, what the top keys take
    Index modelBytes = 0;   ///< weights that are in memory at a time, float32 on the CPU
    Index gpuBytes = 0;     ///< peak in the GPU's memory, weights included; 0 = runs on the CPU
    Index gpuFree = 0;      ///< free there now
    /// What the GPU's memory means for this capture: fewer rows at a time, or that it will run on
    /// the CPU (then gpuBytes says what would be needed); "" when all is well.
    std::string note;
};
/// "79.6 GiB of memory, 3.1 GiB of the GPU's 78.2 GiB" and the like.
std::string memoryText(const CaptureEstimate& estimate);
/// What a capture of `tokens` tokens takes. The first call for a backend and head width measures
/// the machine's rates (~150 ms); later ones reuse them.
CaptureEstimate estimateCapture(const ModelConfig& config, Index tokens,
                                const CaptureOptions& options, kernels::Backend& backend);

CaptureEstimate estimateCapture(const ModelConfig& config, const InputSize& size,
                                const CaptureOptions& options, kernels::Backend& backend);

/// Adds to an estimate what a GPU of `free` bytes means for it.
void addGpu(const ModelConfig& config, const InputSize& size, Index free,
            CaptureEstimate& estimate);

/// Called layer by layer, in order, as soon as a layer is done. The arguments live only during the
/// call, one call at a time, which a model on a GPU makes in another thread while the next layer is
/// computed. Throwing stops the capture (disk full); finished layers stay.
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
