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
LayerCost layerCost(const ModelConfig& config, Index layer, const InputSize& size);

}  // namespace sparsight
