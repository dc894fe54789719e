#include "sessions/decode_to_session.h"

#include "core/capture/token_texts.h"
#include "kernels/base/error.h"

namespace sparsight::sessions {
namespace {

/// The request of prompt and generated tokens together.
void append(CaptureRequest& request, std::span<const std::int32_t> generated,
            const Tokenizer* tokenizer) {
    const auto prompt = Index(request.tokenIds.size());
    request.prefill = prompt;
    request.tokenIds.insert(request.tokenIds.end(), generated.begin(), generated.end());
    std::erase_if(request.decodeSteps, [&](Index s) { return s >= Index(generated.size()); });
    if (!tokenizer || Index(request.offsets.size()) != prompt) {
        request.offsets.clear();  // texts of some tokens only would belong to the wrong ones
        return;
    }
    TokenTexts texts{std::move(request.promptText), std::move(request.offsets)};
    appendDecoded(*tokenizer, request.tokenIds, prompt, texts);
    request.promptText = std::move(texts.text);
    request.offsets = std::move(texts.offsets);
}

}  // namespace

std::string decodeToSession(Session& session, ModelRunner& model, kernels::Backend& backend,
                            CaptureRequest request, const Tokenizer* tokenizer, Index steps,
                            const Job& job) {
    std::string uuid;
    const std::vector<std::int32_t> prompt = request.tokenIds;
    const auto mark = [&](const std::string& state, const std::string& why) {
        if (uuid.empty()) return;
        try {
            session.finishCapture(uuid, state, why);
        } catch (const Error&) {
            // The reason why the capture ended is what counts.
        }
    };
    try {
        captureDecode(
            model, backend, prompt, steps, request.options,
            [&](std::span<const std::int32_t> generated) {
                append(request, generated, tokenizer);
                uuid = session.beginCapture(request);
            },
            [&](const LayerCapture& layer, const LayerStats& stats) {
                session.addLayer(uuid, layer, stats);
            },
            job);
        session.finishCapture(uuid, "complete");
    } catch (const Cancelled&) {
        mark("cancelled", {});
        throw;
    } catch (const std::exception& e) {
        mark("failed", e.what());
        throw;
    }
    return uuid;
}

}  // namespace sparsight::sessions
