#include "core/model/input.h"

#include <algorithm>

#include "core/model/encoder_config.h"
#include "kernels/base/error.h"

namespace sparsight {
namespace {

bool reads(const ModelConfig& config, Sequence sequence) {
    if (config.stacks.empty()) return sequence == Sequence::Text;
    return std::any_of(config.stacks.begin(), config.stacks.end(), [&](const AttentionStack& s) {
        return s.queries == sequence || s.keys == sequence;
    });
}

void refuse(bool given, const ModelConfig& config, Sequence sequence, const char* what) {
    if (given && !reads(config, sequence))
        throw Error(Errc::Unsupported,
                    "model '" + config.name + "' (" + config.arch + ") does not read " + what);
}

}  // namespace

ImageGrid imageGrid(const ModelConfig& config, const Pixels& image) {
    refuse(true, config, Sequence::Image, "images");
    const Index patch = config.encoder->image.patch;
    if (image.height < patch || image.width < patch)
        throw Error(Errc::Usage, "an image of " + std::to_string(image.width) + " x " +
                                     std::to_string(image.height) +
                                     " pixels is smaller than the model's patch of " +
                                     std::to_string(patch) + " x " + std::to_string(patch));
    return {image.height / patch, image.width / patch, 1};
}

InputSize inputSize(const ModelConfig& config, const ModelInput& input) {
    const bool image = !input.image.values.empty();
    refuse(!input.ids.empty(), config, Sequence::Text, "text");
    refuse(!input.decoderIds.empty(), config, Sequence::Decoder, "a decoder's text");
    if (input.ids.empty() && !image)
        throw Error(Errc::Usage, reads(config, Sequence::Text)
                                     ? "the prompt is empty: give a text with at least one token"
                                     : "model '" + config.name + "' reads images: give one");
    if (!input.ids.empty() && image)
        throw Error(Errc::Usage, "give either a text or an image: the towers of '" + config.name +
                                     "' are captured one at a time");
    InputSize size;
    size.text = Index(input.ids.size());
    size.decoder = Index(input.decoderIds.size());
    if (image) size.image = imageGrid(config, input.image).tokens();
    return size;
}

OutputShape outputShape(const ModelConfig& config, const InputSize& size) {
    if (!config.encoder) return {size.text, config.vocab};
    const EncoderConfig& e = *config.encoder;
    switch (e.head) {
        case EncoderHead::BertMaskedLm:
        case EncoderHead::RobertaMaskedLm:
            return {size.text, e.outputs};
        case EncoderHead::LanguageModel:
            return {size.decoder, e.outputs};
        case EncoderHead::ImageClasses:
        case EncoderHead::ClipProjection:
            return {1, e.outputs};
        default:
            return {};
    }
}

}  // namespace sparsight
