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
Index layerParameters(const ModelConfig& config);  ///< weights of one layer
LayerCost layerCost(const ModelConfig& config, Index tokens);

}  // namespace sparsight
