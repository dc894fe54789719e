#include <fmt/format.h>

#include <chrono>
#include <iostream>

#include "app/cli/command.h"
#include "core/probe/needle.h"

namespace sparsight::cli {
namespace {

struct Options {
    std::string model, text, probe, layers, out, store = "f32";
    bool resume = false, noSpecial = false, estimate = false;
};

kernels::DType storeType(const std::string& name) {
    return name == "f16"    ? kernels::DType::F16
           : name == "bf16" ? kernels::DType::BF16
                            : kernels::DType::F32;
}

sessions::CaptureRequest makeRequest(const Options& o, const std::filesystem::path& directory) {
    const auto tokenizer = Tokenizer::load(directory);
    sessions::CaptureRequest request;
    request.config = readConfig(directory);
    request.modelDirectory = directory;
    request.device = "cpu";
    request.options.store = storeType(o.store);
    request.options.layers = parseLayers(o.layers, request.config.layers);
    if (!o.probe.empty()) {
        NeedlePrompt prompt = makeNeedlePrompt(parseProbe(o.probe), *tokenizer);
        request.promptName = request.generator = prompt.truth.generator;
        request.promptText = std::move(prompt.fullText);
        request.tokenIds = std::move(prompt.ids);
        request.offsets = std::move(prompt.encoding.offsets);
        request.truth = prompt.truth;
    } else {
        request.promptText = readText(o.text);
        request.promptName =
            o.text == "-" ? "standard input" : std::filesystem::path(o.text).filename().string();
        Encoding e = tokenizer->encode(request.promptText, !o.noSpecial);
        request.tokenIds = std::move(e.ids);
        request.offsets = std::move(e.offsets);
    }
    if (request.promptText.empty() || request.tokenIds.empty())
        throw Error(Errc::Usage, "the prompt is empty: give a text with at least one token");
    return request;
}

void capture(const Context& context, const Options& o) {
    if (o.text.empty() && o.probe.empty() && !o.resume)
        throw Error(Errc::Usage, "capture needs --text FILE or --probe niah (or --resume)");
    if (o.out.empty() && !o.estimate)
        throw Error(Errc::Usage, "capture needs -o NAME.sparsight, the session to write to");
    const auto directory = resolveModel(o.model);
    const auto backend = context.backend();
    const auto start = std::chrono::steady_clock::now();

    std::error_code ec;
    const bool exists = std::filesystem::exists(o.out, ec);
    sessions::CaptureRequest request;
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
        request.options.layers = partial.layersAsked;
        request.options.store = partial.store;
        if (request.config.sha256 != partial.config.sha256)
            throw Error(Errc::Usage,
                        "the capture was begun with another model: its config.json differs from '" +
                            directory.string() + "'");
    } else {
        request = makeRequest(o, directory);
    }
    const auto tokens = Index(request.tokenIds.size());
    warnBeyondLimit(tokens, request.config);

    const CaptureEstimate estimate =
        estimateCapture(request.config, tokens, request.options, *backend);
    if (o.estimate) {
        if (context.json)
            printJson({{"tokens", tokens},
                       {"seconds", estimate.seconds},
                       {"memoryBytes", estimate.memoryBytes},
                       {"modelBytes", estimate.modelBytes},
                       {"diskBytes", estimate.diskBytes}});
        else
            std::cout << withThousands(tokens) << " tokens: about " << fixed(estimate.seconds, 0)
                      << " s, " << withThousands(estimate.memoryBytes + estimate.modelBytes)
                      << " bytes of memory, " << withThousands(estimate.diskBytes)
                      << " bytes on disk\n";
        return;
    }
    if (!context.json)
        std::cerr << "capturing " << withThousands(tokens) << " tokens, about "
                  << fixed(estimate.seconds, 0) << " s, "
                  << withThousands((estimate.memoryBytes + estimate.modelBytes) >> 20)
                  << " MiB of memory, " << withThousands(estimate.diskBytes >> 20)
                  << " MiB on disk\n";
    const auto model = loadModel(directory, context.threads, context.job());
    if (!session)
        session = exists ? sessions::Session::open(o.out, sessions::OpenMode::ReadWrite)
                         : sessions::Session::create(o.out);
    const std::string uuid =
        sessions::captureToSession(*session, *model, *backend, request, resume, context.job());
    const auto done = session->captureInfo(uuid);
    const double seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    endProgress();
    if (context.json) {
        printJson({{"capture", uuid},
                   {"tokens", tokens},
                   {"layers", done.layersDone.size()},
                   {"seconds", seconds},
                   {"bytes", done.bytes},
                   {"massError", done.massError}});
        return;
    }
    std::cout << "captured " << withThousands(tokens) << " tokens, " << done.layersDone.size()
              << " layers in " << fixed(seconds, 1) << " s ("
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
    text->excludes(probe);
    c->add_option("--layers", o->layers, "Layers, e.g. 0,2-5 (default: all)");
    c->add_option("--store", o->store, "Type of the stored Q, K, V: f32, f16, bf16")
        ->capture_default_str()
        ->check(CLI::IsMember({"f32", "f16", "bf16"}));
    c->add_flag("--resume", o->resume, "Go on with the session's newest, unfinished capture");
    c->add_flag("--no-special", o->noSpecial, "Without the post-processor's special tokens");
    c->add_flag("--estimate", o->estimate, "Only say what it would take");
    c->add_option("-o,--out", o->out, "Session folder, NAME.sparsight (created when missing)");
    addComputeOptions(*c, context);
}

}  // namespace sparsight::cli
