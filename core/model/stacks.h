#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/base/view.h"

namespace sparsight {

struct ModelConfig;

/// What the rows or the keys of a layer's attention are tokens of.
enum class Sequence { Text, Decoder, Image };

/// Layers of one kind in a model that is more than one causal decoder. In captures, sessions and
/// masks its layers have the numbers first .. first + layers - 1; people call them "cross.0".
struct AttentionStack {
    std::string name;  ///< enc, dec, cross, text, vision; "" where the model has one stack only
    Index first = 0, layers = 0;
    Index heads = 0, headDim = 0;
    bool causal = false;
    Sequence queries = Sequence::Text, keys = Sequence::Text;
};

/// Patches of an image as tokens: classTokens first, then the patches row by row.
struct ImageGrid {
    Index rows = 0, cols = 0, classTokens = 1;
    Index tokens() const { return classTokens + rows * cols; }
    bool operator==(const ImageGrid&) const = default;
};

/// Tokens of one forward pass; 0 = it has no such sequence.
struct InputSize {
    Index text = 0, decoder = 0, image = 0;
};

/// The attention of one layer in numbers.
struct LayerShape {
    Index heads = 0, kvHeads = 0, headDim = 0;
    Index Nq = 0, Nk = 0;
    bool causal = true;
    Sequence queries = Sequence::Text, keys = Sequence::Text;
};
/// @param layer  0 .. config.layers - 1
LayerShape layerShape(const ModelConfig& config, Index layer, const InputSize& size);

/// The stack of a layer; null in a model without stacks (one causal decoder).
const AttentionStack* stackOf(const ModelConfig& config, Index layer);

/// "3", or "cross.0" where layers have names.
std::string layerName(const ModelConfig& config, Index layer);
/// "L3H5", or "cross.0H5".
std::string headName(const ModelConfig& config, Index layer, Index head);
/// "layers 0 to 5", or "layers enc.0 to enc.1, cross.0 to cross.1" for messages.
std::string layersInWords(const ModelConfig& config);

/// A layer by its number or its name. @throws Error(Usage), Error(NotFound) with the layers there
/// are
Index parseLayer(std::string_view text, const ModelConfig& config);
/// "0,2-5" -> {0,2,3,4,5}; "all" or "" -> all. @throws Error(Usage), Error(NotFound) with the range
std::vector<Index> parseLayers(std::string_view text, Index layerCount);
/// The same, and where layers have names "enc.0,cross.0-2" or a whole stack "dec"; "" = all.
/// @return ascending, unique. @throws Error as parseLayer
std::vector<Index> parseLayers(std::string_view text, const ModelConfig& config);

/// What a layer's rows and keys are tokens of: "a text", "an image", "a decoder's text beside the
/// text".
std::string inputInWords(const ModelConfig& config, Index layer);

/// The layers whose sequences an input has: CLIP's text tower for a text, an encoder alone when
/// there is no decoder's text.
std::vector<Index> layersFor(const ModelConfig& config, const InputSize& size);

/// The layers that run, in the order in which they do, until all of `wanted` are there: decoder
/// layers alternate with their cross-attention, after the whole encoder.
/// @param wanted  ascending, not empty
std::vector<Index> layerOrder(const ModelConfig& config, std::span<const Index> wanted);

/// For work that only decoder-only models can do. @param what  begins the sentence: "a plan"
/// @throws Error(Unsupported) for any other model
void requireDecoderOnly(const ModelConfig& config, const std::string& what);

}  // namespace sparsight
