#include "core/capture/cost.h"

#include <algorithm>

#include "core/model/encoder_config.h"
#include "core/model/weights.h"

namespace sparsight {

namespace {

/// Weights of the projections of one layer.
Index attentionParameters(const ModelConfig& c) {
    const Index q = c.heads * c.headDim, o = c.heads * c.valueWidth() * c.hidden;
    const LatentConfig& m = c.latent;
    if (!m.used()) return o + c.hidden * (q + c.kvHeads * (c.headDim + c.valueWidth()));
    const Index queries = m.qRank > 0 ? m.qRank * (c.hidden + q) : c.hidden * q;
    return o + queries + c.hidden * (m.kvRank + m.rope) +
           m.kvRank * c.heads * (m.nope + c.valueWidth());
}

Index mlpParameters(const ModelConfig& c, Index width) {
    const bool gated = !c.block.gate.empty() || !c.block.gateUp.empty();
    return (gated ? 3 : 2) * c.hidden * width;
}

/// @param experts  how many of a mixture count
Index parametersOf(const ModelConfig& c, Index layer, Index experts) {
    const Index rest = attentionParameters(c) + 2 * c.hidden;
    if (!c.layer(layer).experts) return rest + mlpParameters(c, c.intermediate);
    return rest + c.hidden * c.experts.count + mlpParameters(c, c.experts.sharedIntermediate) +
           experts * mlpParameters(c, c.experts.intermediate);
}

/// (query, key) pairs of a causal layer over n tokens.
double causalPairs(double n, double window) {
    if (window <= 0 || window >= n) return n * (n + 1) / 2;
    return n * window - window * (window - 1) / 2;
}

}  // namespace

Index layerParameters(const ModelConfig& c, Index layer) {
    return parametersOf(c, layer, c.experts.count);
}

Index activeParameters(const ModelConfig& c, Index layer) {
    return parametersOf(c, layer, c.experts.perToken);
}

Index residentWeightBytes(const ModelConfig& c) {
    const Index all = modelParameters(c) * 4;
    if (c.encoder || all <= kConvertedAtOnce) return all;
    Index most = 0;
    for (Index l = 0; l < c.layers; ++l) most = std::max(most, parametersOf(c, l, 1));
    return most * 4;
}

GpuNeed gpuNeed(const ModelConfig& c, Index rows, Index keys, Index cacheLayers, Index bytesEach) {
    GpuNeed need;
    for (Index l = 0; l < c.layers && !c.encoder; ++l)
        need.weights = std::max(need.weights, 2 * parametersOf(c, l, 1) * bytesEach);
    need.everyWeight = modelParameters(c) * bytesEach;
    if (c.encoder) need.weights = need.everyWeight;
    const Index width = c.heads * (c.headDim + c.valueWidth()),
                kvWidth = c.kvHeads * (c.headDim + c.valueWidth());
    const Index mixtures = c.experts.count > 0 ? c.hidden * (bytesEach + 4) : 0;
    const Index rotations = 4 * c.headDim * 4;
    need.tensors = rows * ((c.hidden + width) * bytesEach + mixtures + rotations) +
                   keys * cacheLayers * kvWidth * bytesEach;
    constexpr Index kBlock = 64;
    const Index blocks = ((rows + kBlock - 1) / kBlock) * ((keys + kBlock - 1) / kBlock);
    need.tensors += c.heads * (2 * blocks + 7 * rows + 3 * keys) * 4;
    // Norms and rotations in float32, the branches of the MLP.
    const Index widest =
        std::max({c.intermediate, c.experts.intermediate, c.experts.sharedIntermediate});
    need.perRow = 4 * c.hidden * 4 + (width + kvWidth) * (bytesEach + 8) + 3 * widest * bytesEach;
    return need;
}

Index gpuRows(const GpuNeed& need, Index rows, Index free) {
    Index chunk = std::min(rows, kMostGpuRows);
    while (need.bytes(chunk) > free && chunk > kFewestGpuRows)
        chunk = std::max(kFewestGpuRows, chunk / 2);
    return need.bytes(chunk) > free ? 0 : chunk;
}

Index gpuBytesEach(const ModelConfig& c) {
    return c.encoder || c.dtype == "float32" || c.dtype.empty() ? 4 : 2;
}

Index modelParameters(const ModelConfig& c) {
    const Index embeddings = c.vocab * c.hidden * (c.tiedEmbeddings || c.encoder ? 1 : 2);
    Index sum = embeddings + (c.encoder ? 0 : c.hidden);
    if (!c.encoder) {
        for (Index l = 0; l < c.layers; ++l) sum += layerParameters(c, l);
        return sum;
    }
    for (const AttentionStack& s : c.stacks) {
        const Tower& t = towerOf(*c.encoder, s);
        const Index mlp = t.hidden * t.intermediate * (t.names.front().gate.empty() ? 2 : 3);
        sum += s.layers * (4 * t.hidden * t.heads * t.headDim + (s.name == "dec" ? 0 : mlp));
    }
    return sum;
}

LayerCost layerCost(const ModelConfig& c, Index layer, const InputSize& size) {
    if (c.stacks.empty()) {
        const double n = double(size.text), pairs = causalPairs(n, double(c.layer(layer).window));
        LayerCost cost;
        cost.matrices = 2 * n * double(activeParameters(c, layer));
        cost.attention = 2 * pairs * double(c.heads * (c.headDim + c.valueWidth()));
        // Two passes over q k^T, each with an exponential per pair.
        cost.capture = 6 * pairs * double(c.heads * c.headDim);
        return cost;
    }
    const LayerShape shape = layerShape(c, layer, size);
    const AttentionStack& stack = *stackOf(c, layer);
    const Tower& t = towerOf(*c.encoder, stack);
    const double rows = double(shape.Nq), keys = double(shape.Nk);
    const double width = double(shape.heads * shape.headDim), hidden = double(t.hidden);
    const double pairs = shape.causal ? rows * (rows + 1) / 2 : rows * keys;
    // The decoder's MLP follows its cross-attention.
    const bool mlp = stack.name != "dec";
    const double matrices = t.names.front().gate.empty() ? 2 : 3;
    LayerCost cost;
    cost.matrices = 4 * (rows + keys) * width * hidden +
                    (mlp ? 2 * rows * hidden * double(t.intermediate) * matrices : 0);
    cost.attention = 4 * pairs * width;
    cost.capture = 6 * pairs * width;
    return cost;
}

}  // namespace sparsight
