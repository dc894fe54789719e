#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "core/model/config.h"
#include "kernels/base/job.h"

namespace sparsight {

/// A float32 matrix or vector, with the tensor that looks at it.
struct Weight {
    std::vector<float> values;
    at::Tensor tensor;  ///< over `values`; undefined when the model has no such weight
    bool given() const { return tensor.defined(); }
};

/// One layer of the Llama block: x += o(attention(norm x)); x += down(act(gate n) * up n).
/// Matrices are [out, in].
struct BlockWeights {
    Weight attentionNorm, q, k, v, o, mlpNorm, gate, up, down;
    Weight qBias, kBias, vBias, oBias, gateBias, upBias, downBias;
};

struct ModelWeights {
    Weight embedding, norm, head;  ///< head: undefined when it is the embedding
    std::vector<BlockWeights> blocks;
};

/// Reads the weights that `config` calls for, whatever their stored type, as float32.
/// @throws Error(Format) a tensor is missing, has another shape, or holds a value that is not
/// finite
ModelWeights loadWeights(const std::filesystem::path& directory, const ModelConfig& config,
                         const Job& job);

/// True when no value is NaN or infinite.
bool allFinite(const float* x, Index count);

}  // namespace sparsight
