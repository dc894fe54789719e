#include <iostream>

#include "app/cli/command.h"
#include "core/capture/capture.h"
#include "core/export/figure.h"
#include "core/model/device.h"
#include "core/model/next_tokens.h"
#include "core/plan/generate.h"
#include "core/probe/needle.h"
#include "sessions/capture_input.h"

namespace sparsight::cli {
namespace {

struct Options {
    std::string model, text, chat, pair, plan, probe, ids, image, imageSize, decoderText,
        decoderIds, out;
    bool noSpecial = false;
    Index maxNew = 32, top = 3, tokens = 0;
};

/// Empty for a causal decoder.
Json stacksJson(const ModelConfig& config) {
    Json list = Json::array();
    for (const AttentionStack& s : config.stacks)
        list.push_back({{"name", s.name},
                        {"firstLayer", s.first},
                        {"layers", s.layers},
                        {"heads", s.heads},
                        {"headDim", s.headDim},
                        {"causal", s.causal}});
    return list;
}

/// What a capture of all layers takes, for the table and for --json.
std::optional<CaptureEstimate> estimateOf(const Context& context, const ModelInfo& m,
                                          Index tokens) {
    if (tokens == 0 || !m.unsupported.empty()) return std::nullopt;
    const auto backend = context.backend();
    CaptureOptions options;
    options.device = context.device;
    return estimateCapture(m.config, tokens, options, *backend);
}

void info(const Context& context, const Options& o) {
    const ModelInfo m = modelInfo(resolveModel(o.model));
    const ModelConfig& c = m.config;
    const auto estimate = estimateOf(context, m, o.tokens);
    if (context.json) {
        Json facts = Json::array();
        for (const auto& [what, text] : modelFacts(m))
            facts.push_back({{"fact", what}, {"text", text}});
        Json windows = Json::array();
        for (Index l = 0; l < c.layers && c.stacks.empty(); ++l)
            windows.push_back(c.layer(l).window);
        Json j = {{"name", c.name},
                  {"arch", c.arch},
                  {"layers", c.layers},
                  {"stacks", stacksJson(c)},
                  {"heads", c.heads},
                  {"kvHeads", c.kvHeads},
                  {"headDim", c.headDim},
                  {"valueDim", c.valueWidth()},
                  {"windows", windows},
                  {"rope", c.rope.kind},
                  {"vocab", c.vocab},
                  {"maxPositions", c.maxPositions},
                  {"dtype", c.dtype},
                  {"storedAs", m.storedAs},
                  {"parameters", m.parameters},
                  {"bytes", m.bytes},
                  {"files", m.files},
                  {"tokenizer", m.tokenizer},
                  {"unsupported", m.unsupported},
                  {"facts", facts},
                  {"notes", c.notes}};
        if (estimate)
            j["estimate"] = {{"tokens", o.tokens},
                             {"seconds", estimate->seconds},
                             {"memoryBytes", estimate->memoryBytes + estimate->modelBytes},
                             {"gpuBytes", estimate->gpuBytes},
                             {"gpuFree", estimate->gpuFree},
                             {"note", estimate->note},
                             {"diskBytes", estimate->diskBytes}};
        printJson(j);
    } else {
        std::vector<std::vector<std::string>> rows;
        for (const auto& [what, text] : modelFacts(m)) rows.push_back({what, text});
        if (estimate)
            rows.push_back({"a capture of " + withThousands(o.tokens) + " tokens",
                            fixed(estimate->seconds, 1) + " s, " + memoryText(*estimate) + ", " +
                                bytesText(estimate->diskBytes) + " on disk"});
        if (estimate && !estimate->note.empty())
            rows.push_back({"on " + context.device, estimate->note});
        printTable(rows);
        for (const std::string& note : c.notes) std::cout << "note: " << note << "\n";
    }
    if (!m.unsupported.empty()) throw Error(Errc::Unsupported, m.unsupported);
}

/// MODEL of `tokenize` may be a tokenizer.json itself.
std::shared_ptr<const Tokenizer> tokenizerOf(const std::string& model) {
    std::error_code ec;
    if (std::filesystem::is_regular_file(model, ec)) return Tokenizer::load(model);
    return Tokenizer::load(resolveModel(model));
}

void detokenize(const Context& context, const Tokenizer& tokenizer, const std::string& list) {
    const auto ids = parseIds(list);
    const std::string text = tokenizer.decode(ids), all = tokenizer.decode(ids, false);
    if (context.json)
        printJson({{"text", text}, {"textWithSpecial", all}});
    else
        std::cout << text << "\n";
}

void tokenize(const Context& context, const Options& o) {
    const auto tokenizer = tokenizerOf(o.model);
    for (const std::string& note : tokenizer->notes()) std::cerr << "note: " << note << "\n";
    if (!o.ids.empty()) return detokenize(context, *tokenizer, o.ids);
    const PromptText prompt =
        readPrompt(o.model, o.text.empty() ? "-" : o.text, o.chat, o.noSpecial);
    const Encoding e = o.pair.empty()
                           ? tokenizer->encode(prompt.text, prompt.special)
                           : tokenizer->encodePair(prompt.text, readText(o.pair), prompt.special);
    if (context.json) {
        Json offsets = Json::array(), bytes = Json::array(), words = Json::array();
        for (const TokenOffset& t : e.offsets) {
            offsets.push_back({t.begin, t.end});
            bytes.push_back({t.byteBegin, t.byteEnd});
        }
        for (const std::int32_t w : e.words) words.push_back(w < 0 ? Json() : Json(w));
        printJson({{"ids", e.ids},
                   {"tokens", e.tokens},
                   {"offsets", offsets},
                   {"byteOffsets", bytes},
                   {"typeIds", e.typeIds},
                   {"special", e.special},
                   {"words", words}});
        return;
    }
    std::vector<std::vector<std::string>> rows{{"#", "id", "token", "from", "to", "added"}};
    for (std::size_t i = 0; i < e.ids.size(); ++i)
        rows.push_back({std::to_string(i), std::to_string(e.ids[i]), e.tokens[i],
                        std::to_string(e.offsets[i].begin), std::to_string(e.offsets[i].end),
                        e.special[i] != 0 ? "yes" : ""});
    printTable(rows);
}

struct Loaded {
    std::shared_ptr<const Tokenizer> tokenizer;
    std::unique_ptr<ModelRunner> model;
};

Loaded load(const Context& context, const std::string& name) {
    const auto directory = resolveModel(name);
    return {Tokenizer::load(directory), context.model(directory)};
}

/// What the model says about each token (or the whole image): its largest logits.
void logits(const Context& context, const Options& o) {
    if (!o.out.empty()) requireEnding(o.out, {".npy"});
    if (o.text.empty() && o.ids.empty() && o.image.empty())
        throw Error(Errc::Usage, "logits needs --text FILE, --ids LIST or --image FILE");
    const auto directory = resolveModel(o.model);
    const auto tokenizer = sessions::tokenizerIfAny(directory);
    sessions::CaptureInput input;
    input.special = !o.noSpecial;
    input.ids = parseIds(o.ids);
    input.image = o.image;
    if (!o.imageSize.empty()) input.imageSize = parseImageSize(o.imageSize);
    if (!o.text.empty()) input.text = readText(o.text);
    if (!o.decoderText.empty()) input.decoderText = readText(o.decoderText);
    input.decoderIds = parseIds(o.decoderIds);
    const auto backend = context.backend();
    const auto model = context.model(directory);
    const ModelConfig& config = model->config();
    auto request = sessions::makeRequest(directory, config, tokenizer.get(), input);
    if (sessions::wantsDecoderText(request, input))
        throw Error(Errc::Usage,
                    "logits of an encoder-decoder need --decoder-text or "
                    "--decoder-ids");
    const ModelInput in = sessions::modelInput(request);
    model->pass(in, denseAttention(*backend, context.job()), withoutReport(context.job()));
    const OutputShape shape = outputShape(config, inputSize(config, in));
    std::vector<float> values(std::size_t(shape.rows * shape.width));
    model->logits(0, shape.rows, values.data());
    endProgress();
    printNotes(model->notes());
    if (!o.out.empty()) {
        writeNpy(o.out, values, {shape.rows, shape.width});
        std::cout << "wrote " << o.out << "\n";
        return;
    }
    Json rows = Json::array();
    // Outputs over the vocabulary are tokens with a probability; others are classes or features.
    const bool tokens = shape.width == config.vocab;
    std::vector<std::vector<std::string>> table{{"row", "id", "logit"}};
    if (tokens) table.front().insert(table.front().end(), {"probability", "token"});
    for (Index r = 0; r < shape.rows; ++r) {
        const float* row = values.data() + r * shape.width;
        Json best = Json::array();
        for (const TokenGuess& g :
             largestProbabilities({row, std::size_t(shape.width)}, std::max<Index>(o.top, 0))) {
            const std::string text = tokens && tokenizer ? tokenizer->tokenText(g.id) : "";
            best.push_back({{"id", g.id}, {"logit", row[g.id]}, {"token", text}});
            table.push_back({best.size() == 1 ? std::to_string(r) : "", std::to_string(g.id),
                             fixed(double(row[g.id]), 4)});
            if (!tokens) continue;
            best.back()["probability"] = g.probability;
            table.back().insert(table.back().end(), {fixed(g.probability, 4), text});
        }
        rows.push_back({{"row", r}, {"top", best}});
    }
    if (context.json)
        printJson(rows);
    else
        printTable(table);
}

void requirePrompt(const std::vector<std::int32_t>& ids) {
    if (ids.empty())
        throw Error(Errc::Usage, "the prompt is empty: give a text with at least one token");
}

void runGenerate(const Context& context, const Options& o) {
    std::optional<AttentionPlan> plan;
    if (!o.plan.empty()) plan = readPlan(o.plan);
    if (o.text.empty() && o.chat.empty())
        throw Error(Errc::Usage, "generate needs --text FILE or --chat FILE");
    const PromptText text = readPrompt(o.model, o.text, o.chat, o.noSpecial);
    const auto backend = context.backend();
    const Loaded loaded = load(context, o.model);
    if (plan) checkFits(*plan, loaded.model->config());
    const Encoding prompt = loaded.tokenizer->encode(text.text, text.special);
    requirePrompt(prompt.ids);
    const GenerateResult r = generate(
        *loaded.model, *backend, *loaded.tokenizer, prompt.ids, o.maxNew, plan ? &*plan : nullptr,
        [&](const std::string& piece) {
            if (context.json) return;
            endProgress();
            std::cout << piece << std::flush;
        },
        context.job());
    endProgress();
    printNotes(r.notes);
    if (context.json)
        printJson({{"text", r.text},
                   {"ids", r.ids},
                   {"promptTokens", prompt.ids.size()},
                   {"prefillSeconds", r.prefillSeconds},
                   {"decodeSeconds", r.decodeSeconds},
                   {"model", loaded.model->device()},
                   {"kernels", backend->device()}});
    else
        std::cout << "\n";
}

void eval(const Context& context, const Options& o) {
    if ((o.text.empty() && o.chat.empty()) == o.probe.empty())
        throw Error(Errc::Usage, "eval needs one of --text FILE, --chat FILE and --probe niah:...");
    const AttentionPlan plan = readPlan(o.plan);
    const auto backend = context.backend();
    const Loaded loaded = load(context, o.model);
    checkFits(plan, loaded.model->config());
    std::vector<std::int32_t> ids;
    std::optional<NeedleTruth> needle;
    if (!o.probe.empty()) {
        const NeedlePrompt prompt =
            makeNeedlePrompt(parseProbe(o.probe), *loaded.tokenizer, context.job());
        ids = prompt.ids;
        needle = prompt.truth;
    } else {
        const PromptText prompt = readPrompt(o.model, o.text, o.chat, o.noSpecial);
        ids = loaded.tokenizer->encode(prompt.text, prompt.special).ids;
    }
    requirePrompt(ids);
    const EvalResult r = evaluatePlan(*loaded.model, *backend, ids, needle, plan, context.job());
    endProgress();
    printNotes(r.notes);
    const auto flag = [](const std::optional<bool>& b) { return b ? Json(*b) : Json(nullptr); };
    if (context.json) {
        printJson({{"meanKL", r.meanKL},
                   {"p99KL", r.p99KL},
                   {"maxKL", r.maxKL},
                   {"top1Agreement", r.top1Agreement},
                   {"nllDense", r.nllDense},
                   {"nllPlan", r.nllPlan},
                   {"needleDense", flag(r.needleDense)},
                   {"needlePlan", flag(r.needlePlan)},
                   {"density", r.density},
                   {"secondsDense", r.secondsDense},
                   {"secondsPlan", r.secondsPlan},
                   {"tokens", r.tokens},
                   {"model", loaded.model->device()},
                   {"kernels", backend->device()}});
        return;
    }
    const auto answer = [](const std::optional<bool>& b) {
        return std::string(!b ? "-" : *b ? "answered" : "lost");
    };
    printTable({{"", "dense", "plan"},
                {"mean NLL, nats", fixed(r.nllDense, 4), fixed(r.nllPlan, 4)},
                {"needle", answer(r.needleDense), answer(r.needlePlan)},
                {"density", "1.0000", fixed(r.density, 4)},
                {"seconds", fixed(r.secondsDense, 2), fixed(r.secondsPlan, 2)}});
    std::cout << "mean KL " << fixed(r.meanKL, 5) << " nats, top-1 agreement "
              << fixed(100 * r.top1Agreement, 2) << " % over " << withThousands(r.tokens)
              << " tokens\n";
}

}  // namespace

void addModelCommands(CLI::App& app, Context& context) {
    const auto o = std::make_shared<Options>();
    const char* modelHelp = "Model directory, or the name of a bundled model (bookworm)";

    auto* c = addCommand(app, context, "info", "Facts about a model, from its headers",
                         [&context, o] { info(context, *o); });
    c->add_option("model", o->model, modelHelp)->required();
    c->add_option("--tokens", o->tokens, "Also what a capture of this many tokens takes here")
        ->check(CLI::Range(Index(1), Index(1) << 24));
    addComputeOptions(*c, context);

    c = addCommand(app, context, "tokenize", "Token ids, tokens and offsets of a text",
                   [&context, o] { tokenize(context, *o); });
    c->add_option("model", o->model, std::string(modelHelp) + ", or a tokenizer.json")->required();
    addChatOption(*c, o->chat,
                  c->add_option("--text", o->text, "Text file, - for standard input (default)"));
    c->add_option("--pair", o->pair, "Second text (file) of a pair");
    c->add_option("--decode", o->ids, "The other way: the text of token ids, e.g. 1,52,7");
    c->add_flag("--no-special", o->noSpecial, "Without the post-processor's special tokens");

    c = addCommand(app, context, "logits",
                   "What a model of any kind says: its largest logits, token by token",
                   [&context, o] { logits(context, *o); });
    c->add_option("model", o->model, modelHelp)->required();
    c->add_option("--text", o->text, "Text file, - for standard input");
    c->add_option("--ids", o->ids, "Token ids in place of a text, e.g. 1,52,7");
    c->add_option("--image", o->image, "Image: PNG, JPEG, or pixel values [3, H, W] as .npy");
    c->add_option("--image-size", o->imageSize, "Fit the image to SIZE or HEIGHTxWIDTH");
    c->add_option("--decoder-text", o->decoderText, "Encoder-decoders: the decoder's text (file)");
    c->add_option("--decoder-ids", o->decoderIds, "Encoder-decoders: ids, the start token first");
    c->add_option("--top", o->top, "Logits shown of each row")
        ->capture_default_str()
        ->check(CLI::Range(1, 1000));
    c->add_option("-o,--out", o->out, "Write all logits as .npy [rows, outputs]");
    c->add_flag("--no-special", o->noSpecial, "Without the post-processor's special tokens");
    addComputeOptions(*c, context);

    c = addCommand(app, context, "generate", "Continue a text greedily, dense or under a plan",
                   [&context, o] { runGenerate(context, *o); });
    c->add_option("model", o->model, modelHelp)->required();
    addChatOption(*c, o->chat, c->add_option("--text", o->text, "Text file, - for standard input"));
    c->add_option("--max-new", o->maxNew, "Most new tokens")
        ->capture_default_str()
        ->check(CLI::Range(1, 1 << 20));
    c->add_option("--plan", o->plan, "Plan JSON: every head runs its own mask");
    c->add_flag("--no-special", o->noSpecial, "Without the post-processor's special tokens");
    addComputeOptions(*c, context);

    c = addCommand(app, context, "eval", "Dense against a plan on the same tokens",
                   [&context, o] { eval(context, *o); });
    c->add_option("model", o->model, modelHelp)->required();
    c->add_option("--plan", o->plan, "Plan JSON")->required();
    auto* text = c->add_option("--text", o->text, "Text file, - for standard input");
    auto* probe =
        c->add_option("--probe", o->probe, "niah[:tokens=..,depth=..,seed=..,haystack=FILE]");
    text->excludes(probe);
    addChatOption(*c, o->chat, text)->excludes(probe);
    c->add_flag("--no-special", o->noSpecial, "Without the post-processor's special tokens");
    addComputeOptions(*c, context);
}

}  // namespace sparsight::cli
