#include "kernels/base/error.h"
#include "sessions/session.h"

namespace sparsight::sessions {
namespace {

/// Records how a capture ended without hiding why it ended.
void mark(Session& session, const std::string& uuid, const std::string& state,
          const std::string& error) {
    try {
        session.finishCapture(uuid, state, error);
    } catch (const Error&) {
        // E.g. no space even for the row: the capture stays open, which a resume takes as well.
    }
}

void requireSame(const CaptureInfo& partial, const CaptureRequest& request) {
    if (partial.image)
        throw Error(Errc::Usage, "capture " + partial.uuid.substr(0, 8) +
                                     " is of an image, which a session does not keep: it cannot "
                                     "be resumed, capture the image again");
    const char* what = nullptr;
    if (partial.config.sha256 != request.config.sha256)
        what = "model";
    else if (partial.tokenIds != request.tokenIds || partial.decoderIds != request.decoderIds)
        what = "prompt";
    else if (partial.store != request.options.store)
        what = "stored type";
    else if (partial.topKeys != request.options.topKeys)
        what = "choice of top keys";
    if (what)
        throw Error(Errc::Usage, "capture " + partial.uuid.substr(0, 8) +
                                     " was begun with another " + what +
                                     " and cannot go on with this one");
}

}  // namespace

ModelInput modelInput(const CaptureRequest& request) {
    if (!request.image.values.empty()) return {{}, {}, request.image};
    return {request.tokenIds, request.decoderIds, {}};
}

std::string captureToSession(Session& session, ModelRunner& model, kernels::Backend& backend,
                             const CaptureRequest& request, const std::string& resume,
                             const Job& job) {
    CaptureOptions options = request.options;
    std::string uuid = resume;
    if (resume.empty()) {
        uuid = session.beginCapture(request);
    } else {
        requireSame(session.captureInfo(resume), request);
        options.layers = session.resumeCapture(resume);
    }
    try {
        // No layers would mean all layers.
        if (resume.empty() || !options.layers.empty())
            capturePrompt(
                model, backend, modelInput(request), options,
                [&](const LayerCapture& layer, const LayerStats& stats) {
                    session.addLayer(uuid, layer, stats);
                },
                job);
        session.finishCapture(uuid, "complete");
    } catch (const Cancelled&) {
        mark(session, uuid, "cancelled", {});
        throw;
    } catch (const std::exception& e) {
        mark(session, uuid, "failed", e.what());
        throw;
    }
    return uuid;
}

}  // namespace sparsight::sessions
