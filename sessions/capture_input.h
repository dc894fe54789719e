#pragma once

#include <optional>
#include <string>
#include <vector>

#include "core/model/image_input.h"
#include "sessions/session.h"

namespace sparsight::sessions {

/// What a user gives for a capture: a text or ids, an image for models that see, and for
/// encoder-decoders the decoder's text (else it is generated).
struct CaptureInput {
    std::string text, name;         ///< the prompt and what it is called
    bool special = true;            ///< with the post-processor's special tokens
    std::vector<std::int32_t> ids;  ///< in place of the text
    std::filesystem::path image;    ///< PNG, JPEG or .npy in place of the text; "" = none
    std::optional<ImageSize> imageSize;
    std::optional<std::string> decoderText;
    std::vector<std::int32_t> decoderIds;  ///< in place of decoderText, with the start token
    Index decoderNew = 32;  ///< else so many tokens are generated greedily; 0 = the encoder alone
};

/// A request for `input`: prompt, tokens, offsets or pixels. Layers and the stored type are the
/// caller's business.
/// @param tokenizer  may be null when ids or an image are given
/// @throws Error as the tokenizer and readPixels() do; Error(Usage) for an empty prompt or a
///         decoder's text that the model does not read
CaptureRequest makeRequest(const std::filesystem::path& modelDirectory, const ModelConfig& config,
                           const Tokenizer* tokenizer, const CaptureInput& input);

/// Whether the request's layers (none = all) call for a decoder's text that is not there yet.
bool wantsDecoderText(const CaptureRequest& request, const CaptureInput& input);

/// Generates the decoder's text greedily, until an end token: decoderIds, and with a tokenizer its
/// text and offsets.
void generateDecoder(CaptureRequest& request, ModelRunner& model, kernels::Backend& backend,
                     const Tokenizer* tokenizer, Index count, const Job& job = {});

/// The model's tokenizer; null where the directory holds none (image models, bare weights).
std::shared_ptr<const Tokenizer> tokenizerIfAny(const std::filesystem::path& modelDirectory);

}  // namespace sparsight::sessions
