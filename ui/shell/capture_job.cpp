#include "ui/shell/capture_job.h"

#include <QRegularExpression>
#include <chrono>
#include <nlohmann/json.hpp>

#include "core/import/imported_model.h"
#include "core/model/chat_template.h"
#include "sessions/decode_to_session.h"
#include "ui/shell/banner.h"

namespace sparsight::ui {
namespace {

double secondsSince(std::chrono::steady_clock::time_point start) {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

namespace {

std::vector<std::int32_t> idsOf(const QString& text) {
    std::vector<std::int32_t> ids;
    static const QRegularExpression kGap(QStringLiteral("[,\\s]+"));
    for (const QString& piece : text.split(kGap, Qt::SkipEmptyParts)) {
        bool good = false;
        const int id = piece.toInt(&good);
        if (!good || id < 0)
            throw Error(Errc::Usage,
                        "Token ids are whole numbers separated by commas, as in "
                        "1,52,7; found '" +
                            piece.toStdString() + "'.");
        ids.push_back(id);
    }
    return ids;
}

sessions::CaptureInput inputOf(const CaptureOrder& order) {
    sessions::CaptureInput input;
    input.text = order.text.toStdString();
    input.name = order.promptName.toStdString();
    input.ids = idsOf(order.ids);
    input.image = order.image.toStdString();
    if (!order.image.isEmpty() && !order.imageSize.isEmpty())
        input.imageSize = parseImageSize(order.imageSize.toStdString());
    if (!order.decoderText.isEmpty()) input.decoderText = order.decoderText.toStdString();
    return input;
}

QString notesOf(const ModelRunner& model) {
    QStringList notes;
    for (const std::string& note : model.notes()) notes << QString::fromStdString(note);
    return notes.join(QLatin1Char(' '));
}

/// A conversation as JSON, or one message, written by the model's chat template.
std::string chatText(const std::filesystem::path& directory, const std::string& text) {
    const std::size_t first = text.find_first_not_of(" \t\r\n");
    if (first != std::string::npos && (text[first] == '[' || text[first] == '{'))
        return chatPrompt(directory, text, "The conversation");
    nlohmann::ordered_json message = {{"role", "user"}, {"content", text}};
    return ChatTemplate::load(directory).render(nlohmann::ordered_json::array({message}));
}

}  // namespace

sessions::CaptureRequest makeRequest(const CaptureOrder& order, const Job& job) {
    const auto directory = resolveModel(order.model.toStdString());
    const ModelConfig config = readConfig(directory);
    const auto tokenizer = sessions::tokenizerIfAny(directory);
    sessions::CaptureRequest request;
    if (order.needle) {
        requireDecoderOnly(config, "A needle probe");
        if (!tokenizer)
            throw Error(Errc::NotFound, "A needle probe needs the model's tokenizer.json.");
        request.config = config;
        request.modelDirectory = directory;
        NeedlePrompt prompt = makeNeedlePrompt(*order.needle, *tokenizer, job);
        request.promptName = request.generator = prompt.truth.generator;
        request.promptText = std::move(prompt.fullText);
        request.tokenIds = std::move(prompt.ids);
        request.offsets = std::move(prompt.encoding.offsets);
        request.truth = prompt.truth;
    } else {
        sessions::CaptureInput input = inputOf(order);
        if (order.chat) {  // the template writes the special tokens itself
            input.text = chatText(directory, input.text);
            input.special = false;
        }
        request = sessions::makeRequest(directory, config, tokenizer.get(), input);
        if (request.promptName.empty()) request.promptName = "text";
    }
    if (order.decode > 0) {
        requireDecoderOnly(config, "A capture of generated tokens");
        if (!order.decodeSteps.isEmpty())
            request.decodeSteps = parseSteps(order.decodeSteps.toStdString());
    }
    request.options.store = order.store;
    request.options.device = order.device.toStdString();
    request.options.topKeys = order.topKeys;
    if (!order.layers.isEmpty() && order.layers != QLatin1String("all"))
        request.options.layers = parseLayers(order.layers.toStdString(), config);
    return request;
}

PromptFacts promptFacts(const CaptureOrder& order, kernels::Backend& backend, const Job& job) {
    const auto request = makeRequest(order, job);
    PromptFacts facts;
    facts.tokens = Index(request.tokenIds.size());
    // An image's positions are fitted to its size.
    facts.limit = request.image.values.empty() ? request.config.maxPositions : 0;
    const sessions::CaptureInput input = inputOf(order);
    InputSize size = sizeOf(request);
    if (sessions::wantsDecoderText(request, input)) size.decoder = input.decoderNew + 1;
    facts.estimate =
        order.decode > 0
            ? estimateDecode(request.config, facts.tokens, order.decode, request.options, backend)
            : estimateCapture(request.config, size, request.options, backend);
    if (order.needle) facts.text = QString::fromStdString(request.promptText);
    return facts;
}

CaptureResult runCapture(const CaptureOrder& order, kernels::Backend& backend, const Job& job) {
    const auto start = std::chrono::steady_clock::now();
    auto request = makeRequest(order, job);
    const auto model = loadModel(request.modelDirectory, 0, job.part(0, 0.05),
                                 order.device.toStdString());
    request.device = model->device() == "CPU" ? "cpu" : order.device.toStdString();
    const sessions::CaptureInput input = inputOf(order);
    if (sessions::wantsDecoderText(request, input))
        sessions::generateDecoder(request, *model, backend,
                                  sessions::tokenizerIfAny(request.modelDirectory).get(),
                                  input.decoderNew, withoutReport(job));
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
    result.uuid = order.decode > 0 ? sessions::decodeToSession(
                                         *result.session, *model, backend, request,
                                         sessions::tokenizerIfAny(request.modelDirectory).get(),
                                         order.decode, job.part(0.05, 1))
                                   : sessions::captureToSession(*result.session, *model, backend,
                                                                request, {}, job.part(0.05, 1));
    result.capture = result.session->captureInfo(result.uuid);
    result.seconds = secondsSince(start);
    result.notes = notesOf(*model);
    return result;
}

CaptureResult resumeCapture(std::shared_ptr<sessions::Session> session,
                            const sessions::CaptureInfo& partial, kernels::Backend& backend,
                            const QString& device, const Job& job) {
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
    request.decoderIds = partial.decoderIds;
    request.options.layers = partial.layersAsked;
    request.options.store = partial.store;
    request.options.topKeys = partial.topKeys;
    const auto model = loadModel(request.modelDirectory, 0, job.part(0, 0.05),
                                 device.toStdString());
    CaptureResult result;
    result.uuid = sessions::captureToSession(*session, *model, backend, request, partial.uuid,
                                             job.part(0.05, 1));
    result.session = std::move(session);
    result.capture = result.session->captureInfo(result.uuid);
    result.seconds = secondsSince(start);
    result.notes = notesOf(*model);
    return result;
}

CaptureResult openCapture(const QString& folder, const std::string& uuid) {
    const auto start = std::chrono::steady_clock::now();
    const std::filesystem::path path = folder.toStdString();
    CaptureResult result;
    try {
        result.session = sessions::Session::open(path, sessions::OpenMode::ReadWrite);
    } catch (const Error& e) {
        if (e.code() != Errc::Resources && e.code() != Errc::Io) throw;
        result.session = sessions::Session::open(path, sessions::OpenMode::ReadOnly);
        result.notes =
            QObject::tr("Opened for reading only, nothing new is saved: %1.").arg(reasonOf(e));
    }
    const auto info = result.session->info();
    if (info.captures.empty())
        throw Error(
            Errc::NotFound,
            QObject::tr("The session '%1' holds no capture yet: Capture > New capture makes one.")
                .arg(folder)
                .toStdString());
    if (result.notes.isEmpty() && !info.warnings.empty())
        result.notes = QString::fromStdString(info.warnings.front());
    result.capture = result.session->captureInfo(uuid);
    result.uuid = result.capture.uuid;
    result.seconds = secondsSince(start);
    return result;
}

std::filesystem::path modelDirectoryOf(const sessions::CaptureInfo& capture) {
    if (isImportedModel(capture.config))
        throw Error(Errc::NotFound, "The tensors of '" + capture.modelName +
                                        "' were imported: there is no model that could be run.");
    std::error_code ec;
    if (!capture.modelHint.empty() && std::filesystem::is_directory(capture.modelHint, ec))
        return capture.modelHint;
    return resolveModel(capture.modelName);
}

}  // namespace sparsight::ui
