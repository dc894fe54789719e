#pragma once

#include <memory>
#include <string_view>

#include "core/torch/decoder.h"

namespace sparsight {

/// The forward pass of every decoder as transformers runs it on a GPU: weights and activations in
/// the type of the stored weights; norms, rotations, routing and logits in float32. A layer's
/// weights are copied from the mapped file as they are while the layer before computes; they stay
/// when all of them fit beside everything else.
/// @param device  "cuda:N"; "cpu" runs the same code there (tests)
/// @throws Error(Resources) when a pass does not fit the device's memory, Error as loadModel
std::unique_ptr<Decoder> makeGpuDecoder(ModelConfig config, WeightFile file, int threads,
                                        std::string_view device);

}  // namespace sparsight
