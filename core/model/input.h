#pragma once

#include <cstdint>
#include <vector>

#include "core/model/stacks.h"

namespace sparsight {

/// Pixels as a model reads them: resized and normalised.
struct Pixels {
    Index height = 0, width = 0;
    std::vector<float> values;  ///< [3][height][width]; empty = no image
};

/// What one forward pass reads. A causal decoder reads ids alone.
struct ModelInput {
    std::vector<std::int32_t> ids;         ///< the text; of the encoder where there is one
    std::vector<std::int32_t> decoderIds;  ///< encoder-decoders: from the start token on
    Pixels image;
};

/// Tokens of `input` in that model.
/// @throws Error(Unsupported) when it has a text, a decoder's text or an image that the model does
///         not read, Error(Usage) when it has none or the image is smaller than a patch
InputSize inputSize(const ModelConfig& config, const ModelInput& input);

/// The patches of that image in that model, with its class token. @throws as inputSize
ImageGrid imageGrid(const ModelConfig& config, const Pixels& image);

/// Shape of what ModelRunner::logits gives after a complete pass: one row per token of the text or
/// of the decoder's text, or one for the whole (classes of an image, CLIP's embedding).
struct OutputShape {
    Index rows = 0, width = 0;
};
OutputShape outputShape(const ModelConfig& config, const InputSize& size);

}  // namespace sparsight
