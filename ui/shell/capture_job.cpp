#include "ui/shell/capture_job.h"

#include <chrono>

namespace sparsight::ui {
namespace {

double secondsSince(std::chrono::steady_clock::time_point start) {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

sessions::CaptureRequest makeRequest(const CaptureOrder& order) {
    const auto directory = resolveModel(order.model.toStdString());
    const auto tokenizer = Tokenizer::load(directory);
    sessions::CaptureRequest request;
    request.config = readConfig(directory);
    request.modelDirectory = directory;
    request.device = "cpu";
    request.options.store = order.store;
    request.options.layers = parseLayers(order.layers.toStdString(), request.config.layers);
    if (order.needle) {
        NeedlePrompt prompt = makeNeedlePrompt(*order.needle, *tokenizer);
        request.promptName = request.generator = prompt.truth.generator;
        request.promptText = std::move(prompt.fullText);
        request.tokenIds = std::move(prompt.ids);
        request.offsets = std::move(prompt.encoding.offsets);
        request.truth = prompt.truth;
    } else {
        request.promptText = order.text.toStdString();
        request.promptName = order.promptName.isEmpty() ? "text" : order.promptName.toStdString();
        if (request.promptText.empty())
            throw Error(Errc::Usage,
                        "The prompt is empty: type or load a text with at least one token.");
        Encoding e = tokenizer->encode(request.promptText);
        request.tokenIds = std::move(e.ids);
        request.offsets = std::move(e.offsets);
    }
    return request;
}

PromptFacts promptFacts(const CaptureOrder& order, kernels::Backend& backend) {
    const auto request = makeRequest(order);
    PromptFacts facts;
    facts.tokens = Index(request.tokenIds.size());
    facts.limit = request.config.maxPositions;
    facts.estimate = estimateCapture(request.config, facts.tokens, request.options, backend);
    if (order.needle) facts.text = QString::fromStdString(request.promptText);
    return facts;
}

CaptureResult runCapture(const CaptureOrder& order, kernels::Backend& backend, const Job& job) {
    const auto start = std::chrono::steady_clock::now();
    const auto request = makeRequest(order);
    const auto model = loadModel(request.modelDirectory, 0, job.part(0, 0.05));
    const std::filesystem::path out = order.out.toStdString();
    if (out.has_parent_path()) {
        std::error_code ec;
        std::filesystem::create_directories(out.parent_path(), ec);
        if (ec)
            throw Error(Errc::Io, "The folder '" + out.parent_path().string() +
                                      "' cannot be made: " + ec.message() + ".");
    }
    CaptureResult result;
    result.session = std::filesystem::exists(out)
                         ? sessions::Session::open(out, sessions::OpenMode::ReadWrite)
                         : sessions::Session::create(out);
    result.uuid = sessions::captureToSession(*result.session, *model, backend, request, {},
                                             job.part(0.05, 1));
    result.seconds = secondsSince(start);
    return result;
}

CaptureResult resumeCapture(std::shared_ptr<sessions::Session> session,
                            const sessions::CaptureInfo& partial, kernels::Backend& backend,
                            const Job& job) {
    const auto start = std::chrono::steady_clock::now();
    sessions::CaptureRequest request;
    request.modelDirectory = modelDirectoryOf(partial);
    request.config = readConfig(request.modelDirectory);
    if (request.config.sha256 != partial.config.sha256)
        throw Error(
            Errc::Usage,
            "The capture was begun with another model: its config.json differs from the one in '" +
                request.modelDirectory.string() + "'.");
    request.tokenIds = partial.tokenIds;
    request.options.layers = partial.layersAsked;
    request.options.store = partial.store;
    const auto model = loadModel(request.modelDirectory, 0, job.part(0, 0.05));
    CaptureResult result;
    result.uuid = sessions::captureToSession(*session, *model, backend, request, partial.uuid,
                                             job.part(0.05, 1));
    result.session = std::move(session);
    result.seconds = secondsSince(start);
    return result;
}

std::filesystem::path modelDirectoryOf(const sessions::CaptureInfo& capture) {
    std::error_code ec;
    if (!capture.modelHint.empty() && std::filesystem::is_directory(capture.modelHint, ec))
        return capture.modelHint;
    return resolveModel(capture.modelName);
}

}  // namespace sparsight::ui
