#include <fmt/format.h>

#include <chrono>
#include <iostream>

#include "app/cli/command.h"
#include "core/model/device.h"
#include "core/probe/needle.h"
#include "sessions/capture_input.h"
#include "sessions/decode_to_session.h"

namespace sparsight::cli {
namespace {

struct Options {
    std::string model, text, chat, ids, probe, image, imageSize, layers, out, store = "f32";
    std::string decoderText, decoderIds;
    Index decoderNew = 32, decode = 0;
    std::string decodeSteps;
    bool resume = false, noSpecial = false, estimate = false, topK = false;
};

kernels::DType storeType(const std::string& name) {
    return name == "f16"    ? kernels::DType::F16
           : name == "bf16" ? kernels::DType::BF16
                            : kernels::DType::F32;
}

std::string nameOf(const std::string& file) {
    return file == "-" ? "standard input" : std::filesystem::path(file).filename().string();
}

sessions::CaptureInput inputOf(const Options& o) {
    sessions::CaptureInput input;
    input.special = !o.noSpecial;
    input.ids = parseIds(o.ids);
    input.image = o.image;
    if (!o.imageSize.empty()) input.imageSize = parseImageSize(o.imageSize);
    if (!o.text.empty() || !o.chat.empty()) {
        PromptText prompt = readPrompt(o.model, o.text, o.chat, o.noSpecial);
        input.text = std::move(prompt.text);
        input.special = prompt.special;
        input.name = nameOf(o.chat.empty() ? o.text : o.chat);
    }
    if (!o.decoderText.empty()) input.decoderText = readText(o.decoderText);
    input.decoderIds = parseIds(o.decoderIds);
    input.decoderNew = o.decoderNew;
    return input;
}

sessions::CaptureRequest makeRequest(const Options& o, const sessions::CaptureInput& input,
                                     const std::filesystem::path& directory,
                                     const Tokenizer* tokenizer, const Job& job) {
    const ModelConfig config = readConfig(directory);
    sessions::CaptureRequest request;
    if (!o.probe.empty()) {
        requireDecoderOnly(config, "a needle probe");
        if (!tokenizer)
            throw Error(Errc::NotFound, "a needle probe needs the model's tokenizer.json");
        NeedlePrompt prompt = makeNeedlePrompt(parseProbe(o.probe), *tokenizer, job);
        request.config = config;
        request.modelDirectory = directory;
        request.promptName = request.generator = prompt.truth.generator;
        request.promptText = std::move(prompt.fullText);
        request.tokenIds = std::move(prompt.ids);
        request.offsets = std::move(prompt.encoding.offsets);
        request.truth = prompt.truth;
    } else {
        request = sessions::makeRequest(directory, config, tokenizer, input);
    }
    request.options.store = storeType(o.store);
    request.options.topKeys = o.topK;
    // All layers that the prompt reaches, unless some are named.
    if (!o.layers.empty() && o.layers != "all")
        request.options.layers = parseLayers(o.layers, config);
    return request;
}

void capture(const Context& context, const Options& o) {
    if (o.text.empty() && o.chat.empty() && o.ids.empty() && o.image.empty() && o.probe.empty() &&
        !o.resume)
        throw Error(
            Errc::Usage,
            "capture needs --text FILE, --chat FILE, --ids LIST, --image FILE or --probe niah (or "
            "--resume)");
    if (o.out.empty() && !o.estimate)
        throw Error(Errc::Usage, "capture needs -o NAME.sparsight, the session to write to");
    const std::vector<Index> decodeSteps =
        o.decodeSteps.empty() ? std::vector<Index>() : parseSteps(o.decodeSteps);
    Index decode = o.decode;
    if (!decodeSteps.empty() && decode == 0) decode = decodeSteps.back() + 1;
    if (!decodeSteps.empty() && decodeSteps.back() >= decode)
        throw Error(Errc::Usage, "--decode-steps names step " + std::to_string(decodeSteps.back()) +
                                     ", but --decode " + std::to_string(decode) +
                                     " has the steps 0 to " + std::to_string(decode - 1));
    if (decode > 0 && o.resume)
        throw Error(Errc::Usage,
                    "--resume goes on with the tokens that were captured; leave --decode out");
    const auto directory = resolveModel(o.model);
    const auto backend = context.backend();
    const auto start = std::chrono::steady_clock::now();

    std::error_code ec;
    const bool exists = std::filesystem::exists(o.out, ec);
    sessions::CaptureRequest request;
    sessions::CaptureInput input;
    std::shared_ptr<const Tokenizer> tokenizer;
    std::string resume;
    std::shared_ptr<sessions::Session> session;
    if (o.resume) {
        session = sessions::Session::open(o.out, sessions::OpenMode::ReadWrite);
        const auto partial = session->captureInfo();
        if (partial.complete())
            throw Error(Errc::Usage, "session '" + o.out +
                                         "': its newest capture is complete, nothing to resume");
        resume = partial.uuid;
        request.config = readConfig(directory);
        request.modelDirectory = directory;
        request.tokenIds = partial.tokenIds;
        request.decoderIds = partial.decoderIds;
        request.options.layers = partial.layersAsked;
        request.options.store = partial.store;
        request.options.topKeys = partial.topKeys;
        if (request.config.sha256 != partial.config.sha256)
            throw Error(Errc::Usage,
                        "the capture was begun with another model: its config.json differs from '" +
                            directory.string() + "'");
    } else {
        input = inputOf(o);
        tokenizer = sessions::tokenizerIfAny(directory);
        request = makeRequest(o, input, directory, tokenizer.get(), context.job());
        request.decodeSteps = decodeSteps;
        if (decode > 0) requireDecoderOnly(request.config, "a decode capture");
    }
    request.options.device = context.device;
    Index tokens = Index(request.tokenIds.size());
    if (request.image.values.empty()) warnBeyondLimit(tokens + decode, request.config);
    const bool generates = !o.resume && sessions::wantsDecoderText(request, input);

    InputSize size = sizeOf(request);
    if (generates) size.decoder = input.decoderNew + 1;
    const CaptureEstimate estimate =
        decode > 0 ? estimateDecode(request.config, tokens, decode, request.options, *backend)
                   : estimateCapture(request.config, size, request.options, *backend);
    if (o.estimate) {
        if (context.json)
            printJson({{"tokens", tokens},
                       {"seconds", estimate.seconds},
                       {"memoryBytes", estimate.memoryBytes},
                       {"modelBytes", estimate.modelBytes},
                       {"gpuBytes", estimate.gpuBytes},
                       {"gpuFree", estimate.gpuFree},
                       {"note", estimate.note},
                       {"diskBytes", estimate.diskBytes},
                       {"topKeyBytes", estimate.topKeyBytes}});
        else
            std::cout << withThousands(tokens) << " tokens: about " << fixed(estimate.seconds, 0)
                      << " s, " << withThousands(estimate.memoryBytes + estimate.modelBytes)
                      << " bytes of memory, "
                      << (estimate.gpuBytes > 0
                              ? withThousands(estimate.gpuBytes) + " bytes on the GPU (" +
                                    withThousands(estimate.gpuFree) + " free), "
                              : std::string())
                      << withThousands(estimate.diskBytes) << " bytes on disk\n"
                      << (estimate.note.empty() ? "" : estimate.note + "\n");
        return;
    }
    if (!context.json)
        std::cerr << "capturing " << withThousands(tokens) << " tokens, about "
                  << fixed(estimate.seconds, 0) << " s, " << memoryText(estimate) << ", "
                  << withThousands(estimate.diskBytes >> 20) << " MiB on disk\n"
                  << (estimate.note.empty() ? "" : estimate.note + "\n");
    const auto model = context.model(directory);
    request.device = model->device() == "CPU" ? "cpu" : parseDevice(context.device).id();
    if (generates)
        sessions::generateDecoder(request, *model, *backend, tokenizer.get(), input.decoderNew,
                                  context.job());
    if (!session)
        session = exists ? sessions::Session::open(o.out, sessions::OpenMode::ReadWrite)
                         : sessions::Session::create(o.out);
    const std::string uuid = decode > 0
                                 ? sessions::decodeToSession(*session, *model, *backend, request,
                                                             tokenizer.get(), decode, context.job())
                                 : sessions::captureToSession(*session, *model, *backend, request,
                                                              resume, context.job());
    const auto done = session->captureInfo(uuid);
    tokens = Index(done.tokenIds.size());
    const double seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    endProgress();
    printNotes(model->notes());
    if (context.json) {
        printJson({{"capture", uuid},
                   {"tokens", tokens},
                   {"generated", done.generated()},
                   {"layers", done.layersDone.size()},
                   {"seconds", seconds},
                   {"bytes", done.bytes},
                   {"massError", done.massError},
                   {"model", model->device()},
                   {"kernels", backend->device()}});
        return;
    }
    std::cout << "captured " << withThousands(tokens) << " tokens"
              << (done.generated() > 0
                      ? " (" + withThousands(done.generated()) + " of them generated)"
                      : std::string())
              << ", " << done.layersDone.size() << " layers in " << fixed(seconds, 1) << " s ("
              << withThousands(Index(double(tokens) / seconds)) << " tokens/s), "
              << withThousands(done.bytes) << " bytes, self-check "
              << fmt::format("{:.1e}", done.massError) << "\n"
              << "session " << o.out << ", capture " << uuid << "\n";
}

}  // namespace

void addCaptureCommand(CLI::App& app, Context& context) {
    const auto o = std::make_shared<Options>();
    auto* c =
        addCommand(app, context, "capture", "Capture the attention of a prompt into a session",
                   [&context, o] { capture(context, *o); });
    c->add_option("model", o->model, "Model directory, or the name of a bundled model")->required();
    auto* text = c->add_option("--text", o->text, "Text file, - for standard input");
    auto* probe = c->add_option("--probe", o->probe,
                                "Needle prompt: niah[:tokens=..,depth=..,seed=..,haystack=FILE]");
    auto* ids = c->add_option("--ids", o->ids, "Token ids in place of a text, e.g. 1,52,7");
    auto* image = c->add_option("--image", o->image,
                                "Image in place of a text: PNG, JPEG, or finished pixel values "
                                "[3, H, W] as .npy");
    text->excludes(probe)->excludes(ids)->excludes(image);
    addChatOption(*c, o->chat, text)->excludes(probe)->excludes(ids)->excludes(image);
    probe->excludes(ids)->excludes(image);
    ids->excludes(image);
    c->add_option("--image-size", o->imageSize,
                  "Fit the image to SIZE or HEIGHTxWIDTH instead of the model's own size")
        ->needs(image);
    auto* decoder = c->add_option("--decoder-text", o->decoderText,
                                  "Encoder-decoders: the decoder's text (file)");
    c->add_option("--decoder-ids", o->decoderIds,
                  "Encoder-decoders: the decoder's ids, the start token first")
        ->excludes(decoder);
    c->add_option("--decoder-new", o->decoderNew,
                  "Encoder-decoders: without a decoder's text so many tokens are generated; 0 = "
                  "capture the encoder alone")
        ->capture_default_str()
        ->check(CLI::Range(0, 1 << 20));
    c->add_option("--layers", o->layers,
                  "Layers, e.g. 0,2-5, or by name enc.0,cross.0-2,dec (default: all)");
    c->add_option("--store", o->store, "Type of the stored Q, K, V: f32, f16, bf16")
        ->capture_default_str()
        ->check(CLI::IsMember({"f32", "f16", "bf16"}));
    c->add_flag("--top-k", o->topK,
                "Also store the 64 largest probabilities of each row, exactly: 512 bytes a row and "
                "head");
    c->add_option("--decode", o->decode,
                  "Generate so many tokens after the prompt (greedy, until an end-of-text token) "
                  "and capture the row of each decode step")
        ->check(CLI::Range(1, 1 << 20));
    c->add_option("--decode-steps", o->decodeSteps,
                  "Steps of interest, e.g. 0,3,5-9: decodes up to the last of them");
    c->add_flag("--resume", o->resume, "Go on with the session's newest, unfinished capture");
    c->add_flag("--no-special", o->noSpecial, "Without the post-processor's special tokens");
    c->add_flag("--estimate", o->estimate, "Only say what it would take");
    c->add_option("-o,--out", o->out, "Session folder, NAME.sparsight (created when missing)");
    addComputeOptions(*c, context);
}

}  // namespace sparsight::cli
