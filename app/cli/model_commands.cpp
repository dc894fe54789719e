#include <iostream>

#include "app/cli/command.h"
#include "core/plan/generate.h"
#include "core/probe/needle.h"

namespace sparsight::cli {
namespace {

struct Options {
    std::string model, text, plan, probe;
    bool noSpecial = false;
    Index maxNew = 32;
};

void info(const Context& context, const Options& o) {
    const ModelInfo m = modelInfo(resolveModel(o.model));
    const ModelConfig& c = m.config;
    if (context.json) {
        printJson({{"name", c.name},
                   {"arch", c.arch},
                   {"layers", c.layers},
                   {"heads", c.heads},
                   {"kvHeads", c.kvHeads},
                   {"headDim", c.headDim},
                   {"vocab", c.vocab},
                   {"maxPositions", c.maxPositions},
                   {"dtype", c.dtype},
                   {"parameters", m.parameters},
                   {"bytes", m.bytes},
                   {"tokenizer", m.tokenizer}});
        return;
    }
    printTable(
        {{"model", c.name},
         {"architecture", c.arch},
         {"layers", std::to_string(c.layers)},
         {"heads", std::to_string(c.heads) + " query, " + std::to_string(c.kvHeads) + " key/value"},
         {"head width", std::to_string(c.headDim)},
         {"vocabulary", withThousands(c.vocab)},
         {"positions", withThousands(c.maxPositions)},
         {"weights", c.dtype + ", " + withThousands(m.parameters) + " parameters, " +
                         withThousands(m.bytes) + " bytes"},
         {"tokenizer", m.tokenizer}});
    for (const std::string& note : c.notes) std::cout << "note: " << note << "\n";
}

/// MODEL of `tokenize` may be a tokenizer.json itself.
std::shared_ptr<const Tokenizer> tokenizerOf(const std::string& model) {
    std::error_code ec;
    if (std::filesystem::is_regular_file(model, ec)) return Tokenizer::load(model);
    return Tokenizer::load(resolveModel(model));
}

void tokenize(const Context& context, const Options& o) {
    const auto tokenizer = tokenizerOf(o.model);
    const Encoding e = tokenizer->encode(readText(o.text.empty() ? "-" : o.text), !o.noSpecial);
    if (context.json) {
        Json offsets = Json::array(), bytes = Json::array();
        for (const TokenOffset& t : e.offsets) {
            offsets.push_back({t.begin, t.end});
            bytes.push_back({t.byteBegin, t.byteEnd});
        }
        printJson(
            {{"ids", e.ids}, {"tokens", e.tokens}, {"offsets", offsets}, {"byteOffsets", bytes}});
        return;
    }
    std::vector<std::vector<std::string>> rows{{"#", "id", "token", "from", "to"}};
    for (std::size_t i = 0; i < e.ids.size(); ++i)
        rows.push_back({std::to_string(i), std::to_string(e.ids[i]), e.tokens[i],
                        std::to_string(e.offsets[i].begin), std::to_string(e.offsets[i].end)});
    printTable(rows);
}

struct Loaded {
    std::shared_ptr<const Tokenizer> tokenizer;
    std::unique_ptr<ModelRunner> model;
};

Loaded load(const Context& context, const std::string& name) {
    const auto directory = resolveModel(name);
    return {Tokenizer::load(directory), loadModel(directory, context.threads, context.job())};
}

void requirePrompt(const std::vector<std::int32_t>& ids) {
    if (ids.empty())
        throw Error(Errc::Usage, "the prompt is empty: give a text with at least one token");
}

void printNotes(const std::vector<std::string>& notes) {
    for (const std::string& note : notes) std::cerr << "note: " << note << "\n";
}

void runGenerate(const Context& context, const Options& o) {
    std::optional<AttentionPlan> plan;
    if (!o.plan.empty()) plan = readPlan(o.plan);
    const std::string text = readText(o.text);
    const Loaded loaded = load(context, o.model);
    if (plan) checkFits(*plan, loaded.model->config());
    const auto backend = context.backend();
    const Encoding prompt = loaded.tokenizer->encode(text, !o.noSpecial);
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
                   {"decodeSeconds", r.decodeSeconds}});
    else
        std::cout << "\n";
}

void eval(const Context& context, const Options& o) {
    if (o.text.empty() == o.probe.empty())
        throw Error(Errc::Usage, "eval needs either --text FILE or --probe niah:...");
    const AttentionPlan plan = readPlan(o.plan);
    const Loaded loaded = load(context, o.model);
    checkFits(plan, loaded.model->config());
    const auto backend = context.backend();
    std::vector<std::int32_t> ids;
    std::optional<NeedleTruth> needle;
    if (!o.probe.empty()) {
        const NeedlePrompt prompt = makeNeedlePrompt(parseProbe(o.probe), *loaded.tokenizer);
        ids = prompt.ids;
        needle = prompt.truth;
    } else {
        ids = loaded.tokenizer->encode(readText(o.text), !o.noSpecial).ids;
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
                   {"tokens", r.tokens}});
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

    c = addCommand(app, context, "tokenize", "Token ids, tokens and offsets of a text",
                   [&context, o] { tokenize(context, *o); });
    c->add_option("model", o->model, std::string(modelHelp) + ", or a tokenizer.json")->required();
    c->add_option("--text", o->text, "Text file, - for standard input (default)");
    c->add_flag("--no-special", o->noSpecial, "Without the post-processor's special tokens");

    c = addCommand(app, context, "generate", "Continue a text greedily, dense or under a plan",
                   [&context, o] { runGenerate(context, *o); });
    c->add_option("model", o->model, modelHelp)->required();
    c->add_option("--text", o->text, "Text file, - for standard input")->required();
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
    c->add_flag("--no-special", o->noSpecial, "Without the post-processor's special tokens");
    addComputeOptions(*c, context);
}

}  // namespace sparsight::cli
