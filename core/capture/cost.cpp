#include "core/capture/cost.h"

namespace sparsight {

Index layerParameters(const ModelConfig& c) {
    const Index attention = c.hidden * c.headDim * 2 * (c.heads + c.kvHeads);
    return attention + 3 * c.hidden * c.intermediate + 2 * c.hidden;
}

LayerCost layerCost(const ModelConfig& c, Index tokens) {
    const double n = double(tokens), pairs = n * (n + 1) / 2;
    const double product = 2 * pairs * double(c.heads * c.headDim);
    LayerCost cost;
    cost.matrices = 2 * n * double(layerParameters(c));
    cost.attention = 2 * product;
    cost.capture = 3 * product;  // two passes over q k^T, each with an exponential per pair
    return cost;
}

}  // namespace sparsight
