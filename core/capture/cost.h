#pragma once

#include "core/model/config.h"

namespace sparsight {

/// Work of one layer of a prefill, in flop (a capture's other arithmetic as the flop that would
/// take as long on the attention path).
struct LayerCost {
    double matrices = 0;   ///< projections and MLP
    double attention = 0;  ///< q k^T and P v over the visible pairs
    double capture = 0;    ///< both passes of Backend::capture
};
Index layerParameters(const ModelConfig& config, Index layer);   ///< of a decoder, all experts
Index activeParameters(const ModelConfig& config, Index layer);  ///< those that one token meets
Index modelParameters(const ModelConfig& config);  ///< of all layers, embeddings and the head
/// float32 bytes of the weights that a capture of `config` holds at a time (weights.h says when
/// layers are converted); experts come one by one.
Index residentWeightBytes(const ModelConfig& config);
/// Bytes that a pass on a GPU takes there.
struct GpuNeed {
    Index weights = 0;      ///< two layers, one of which is on its way
    Index everyWeight = 0;  ///< all of them
    Index tensors = 0;      ///< activations, q, k, v, o and a captured layer's statistics
    Index perRow = 0;       ///< of a row that is computed at a time
    Index bytes(Index rows) const { return weights + tensors + rows * perRow + kReserve; }
    static constexpr Index kReserve = Index(512) << 20;  ///< LibTorch's and the kernels' own
};
/// @param keys         tokens that the key and value cache has room for
/// @param cacheLayers  layers that it keeps
/// @param bytesEach    of a weight and of an activation
GpuNeed gpuNeed(const ModelConfig& config, Index rows, Index keys, Index cacheLayers,
                Index bytesEach);
/// Rows that a GPU with `free` bytes computes at a time; 0 when not even the fewest fit.
Index gpuRows(const GpuNeed& need, Index rows, Index free);
constexpr Index kMostGpuRows = 8192, kFewestGpuRows = 256;
/// Bytes of a weight of `config` on a GPU.
Index gpuBytesEach(const ModelConfig& config);

LayerCost layerCost(const ModelConfig& config, Index layer, const InputSize& size);

}  // namespace sparsight
