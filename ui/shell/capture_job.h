#pragma once

#include <QString>
#include <filesystem>
#include <memory>
#include <optional>

#include "core/probe/needle.h"
#include "sessions/capture_input.h"

namespace sparsight::ui {

/// What the capture dialog, the sample and scripts ask for.
struct CaptureOrder {
    QString model;                     ///< directory or the name of a bundled model
    QString text;                      ///< the prompt; unused with a needle
    /// The model's chat template writes the prompt: `text` is a conversation as JSON, or else one
    /// message of the user.
    bool chat = false;
    QString promptName;                ///< for lists; "" = "text"
    std::optional<NeedleSpec> needle;  ///< makes the prompt
    QString ids;                       ///< token ids in place of the text, "1,52,7"
    QString image, imageSize;          ///< a file in place of the text; "" = the model's own size
    QString decoderText;               ///< encoder-decoders; "" = generated
    int decode = 0;                    ///< tokens to generate after the prompt
    QString decodeSteps;               ///< steps of interest, "0,3,5-9"; "" = all
    QString layers;                    ///< "0,2-5", "enc,cross.0"; "" = all
    kernels::DType store = kernels::DType::F32;
    bool topKeys = false;  ///< as CaptureOptions::topKeys
    QString device = QStringLiteral("cpu");  ///< the engine's
    QString out;                             ///< session folder, made or added to
};

/// The prompt as tokens and what its capture would take.
struct PromptFacts {
    Index tokens = 0, limit = 0;
    CaptureEstimate estimate;
    QString text;  ///< of a needle prompt: what the model will read
};

/// Reads the model's headers and the tokenizer. Worker threads only.
/// @throws Error as readConfig, Tokenizer::load, makeNeedlePrompt; Usage for an empty prompt
sessions::CaptureRequest makeRequest(const CaptureOrder& order, const Job& job = {});
PromptFacts promptFacts(const CaptureOrder& order, kernels::Backend& backend, const Job& job = {});

struct CaptureResult {
    std::shared_ptr<sessions::Session> session;
    std::string uuid;
    sessions::CaptureInfo capture;  ///< as the session has it: read in the job, it may be large
    double seconds = 0;
    QString notes;  ///< what became of the choice of device, sentences; "" = nothing
};
/// Runs it into a session. After Cancelled or an error the finished layers stay in the folder.
CaptureResult runCapture(const CaptureOrder& order, kernels::Backend& backend, const Job& job);
/// Goes on with a partial capture of an open session. @throws Error(Usage) when the model is
/// another
CaptureResult resumeCapture(std::shared_ptr<sessions::Session> session,
                            const sessions::CaptureInfo& partial, kernels::Backend& backend,
                            const QString& device, const Job& job);

/// A session from its folder, with one of its captures; for reading only where it is locked by
/// another process or lies on a read-only medium: `notes` says so. Takes its time: worker threads.
/// @param uuid  of the capture, "" = the newest
/// @throws Error as Session::open; NotFound when it holds no capture
CaptureResult openCapture(const QString& folder, const std::string& uuid);

/// The model's directory of a capture: where it was, else the bundled model of that name.
/// @throws Error(NotFound)
std::filesystem::path modelDirectoryOf(const sessions::CaptureInfo& capture);

}  // namespace sparsight::ui
