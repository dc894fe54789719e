#include "sessions/capture_input.h"

#include <algorithm>

#include "core/capture/token_texts.h"
#include "core/model/encoder_config.h"
#include "kernels/base/error.h"

namespace sparsight::sessions {
namespace {

/// Ids as a text that labels can be cut from, for models without a tokenizer: "12 7 31".
TokenTexts spelled(const std::vector<std::int32_t>& ids) {
    TokenTexts out;
    for (const std::int32_t id : ids) {
        if (!out.text.empty()) out.text += ' ';
        const Index begin = Index(out.text.size());
        out.text += std::to_string(id);
        const Index end = Index(out.text.size());
        out.offsets.push_back({begin, end, begin, end});
    }
    return out;
}

TokenTexts textsOf(const Tokenizer* tokenizer, const std::vector<std::int32_t>& ids) {
    if (!tokenizer) return spelled(ids);
    TokenTexts out;
    appendDecoded(*tokenizer, ids, 0, out);
    return out;
}

const Tokenizer& required(const Tokenizer* tokenizer, const ModelConfig& config) {
    if (tokenizer) return *tokenizer;
    throw Error(Errc::NotFound, "model '" + config.name +
                                    "' has no tokenizer.json: give token ids in place of a text");
}

bool hasDecoder(const ModelConfig& config) {
    return config.encoder && config.encoder->decoder.layers > 0;
}

void setDecoder(CaptureRequest& request, const Tokenizer* tokenizer, const CaptureInput& input) {
    const ModelConfig& config = request.config;
    const bool given = input.decoderText.has_value() || !input.decoderIds.empty();
    if (!given) return;
    if (!hasDecoder(config))
        throw Error(Errc::Unsupported, "model '" + config.name + "' (" + config.arch +
                                           ") does not read a decoder's text: only "
                                           "encoder-decoders do");
    if (!input.decoderIds.empty()) {
        request.decoderIds = input.decoderIds;
        TokenTexts texts = textsOf(tokenizer, request.decoderIds);
        request.decoderText = std::move(texts.text);
        request.decoderOffsets = std::move(texts.offsets);
        return;
    }
    // As in training: the start token, then the text without its end token.
    const Encoding e = required(tokenizer, config).encode(*input.decoderText, true);
    request.decoderIds = {std::int32_t(config.encoder->startToken)};
    request.decoderOffsets = {TokenOffset{}};
    const auto& eos = config.eosTokens;
    for (std::size_t i = 0; i < e.ids.size(); ++i) {
        const bool last = i + 1 == e.ids.size();
        if (last && std::find(eos.begin(), eos.end(), e.ids[i]) != eos.end()) break;
        request.decoderIds.push_back(e.ids[i]);
        request.decoderOffsets.push_back(e.offsets[i]);
    }
    request.decoderText = *input.decoderText;
}

}  // namespace

std::shared_ptr<const Tokenizer> tokenizerIfAny(const std::filesystem::path& modelDirectory) {
    try {
        return Tokenizer::load(modelDirectory);
    } catch (const Error& e) {
        if (e.code() != Errc::NotFound) throw;
        return nullptr;
    }
}

CaptureRequest makeRequest(const std::filesystem::path& modelDirectory, const ModelConfig& config,
                           const Tokenizer* tokenizer, const CaptureInput& input) {
    CaptureRequest request;
    request.config = config;
    request.modelDirectory = modelDirectory;
    request.promptName = input.name;
    if (!input.image.empty()) {
        setImage(request, readPixels(input.image, modelDirectory, config, input.imageSize));
        if (request.promptName.empty()) request.promptName = input.image.filename().string();
        return request;
    }
    if (input.imageSize) throw Error(Errc::Usage, "an image size was given, but no image");
    if (config.encoder && config.encoder->text.layers == 0)
        throw Error(Errc::Usage, "model '" + config.name + "' (" + config.arch +
                                     ") reads images: give one in place of a text");
    if (!input.ids.empty()) {
        request.tokenIds = input.ids;
        TokenTexts texts = textsOf(tokenizer, request.tokenIds);
        request.promptText = std::move(texts.text);
        request.offsets = std::move(texts.offsets);
        if (request.promptName.empty()) request.promptName = "token ids";
    } else {
        request.promptText = input.text;
        Encoding e = required(tokenizer, config).encode(request.promptText, input.special);
        request.tokenIds = std::move(e.ids);
        request.offsets = std::move(e.offsets);
        if (request.promptText.empty() || request.tokenIds.empty())
            throw Error(Errc::Usage, "the prompt is empty: give a text with at least one token");
    }
    setDecoder(request, tokenizer, input);
    return request;
}

bool wantsDecoderText(const CaptureRequest& request, const CaptureInput& input) {
    if (!hasDecoder(request.config) || !request.decoderIds.empty() || input.decoderNew < 1)
        return false;
    const auto& layers = request.options.layers;
    return layers.empty() || std::any_of(layers.begin(), layers.end(), [&](Index l) {
               const AttentionStack* s = stackOf(request.config, l);
               return s && s->queries == Sequence::Decoder;
           });
}

void generateDecoder(CaptureRequest& request, ModelRunner& model, kernels::Backend& backend,
                     const Tokenizer* tokenizer, Index count, const Job& job) {
    const ModelConfig& config = model.config();
    const Job quiet = withoutReport(job);
    const AttentionFn attention = denseAttention(backend, quiet);
    if (config.maxPositions > 0) count = std::min(count, config.maxPositions - 1);
    std::int32_t token = model.encode(request.tokenIds, attention, quiet);
    KvCache cache(config, std::max<Index>(count, 1));
    std::vector<float> logits(std::size_t(config.vocab));
    request.decoderIds = {token};
    for (Index i = 0; i < count; ++i) {
        job.step(double(i) / double(count), "generating the decoder's text");
        model.forward({&token, 1}, cache, attention, quiet);
        model.logits(0, 1, logits.data());
        token = std::int32_t(std::max_element(logits.begin(), logits.end()) - logits.begin());
        const auto& eos = config.eosTokens;
        if (std::find(eos.begin(), eos.end(), token) != eos.end()) break;
        request.decoderIds.push_back(token);
    }
    TokenTexts texts = textsOf(tokenizer, request.decoderIds);
    request.decoderText = std::move(texts.text);
    request.decoderOffsets = std::move(texts.offsets);
}

}  // namespace sparsight::sessions
