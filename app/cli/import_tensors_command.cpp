#include <chrono>
#include <cmath>
#include <iostream>

#include "app/cli/command.h"
#include "core/capture/capture.h"
#include "sessions/h5_tensors.h"
#include "sessions/import_to_session.h"

namespace sparsight::cli {
namespace {

struct Options {
    std::vector<std::string> files, map;
    std::string axes = "htd", layers, tokenizer, name, out;
    std::optional<double> scale, softcap;
    std::optional<Index> window;
    bool causal = false, bidirectional = false, bf16 = false, list = false, topK = false;
};

/// "q=layer.{layer}.q" into the options' patterns.
void addPattern(const std::string& text, ImportOptions& options) {
    const auto equals = text.find('=');
    for (const Part part : {Part::Q, Part::K, Part::V, Part::Lse, Part::Sinks, Part::InputIds})
        if (equals != std::string::npos && text.substr(0, equals) == partName(part)) {
            options.patterns[std::size_t(part)] = text.substr(equals + 1);
            if (text.size() == equals + 1) break;
            return;
        }
    throw Error(Errc::Usage, "--map '" + text +
                                 "' is not of the form PART=PATTERN with the parts q, k, v, lse, "
                                 "sinks, input_ids and attention, as in 'q=layer.{layer}.q'");
}

ImportOptions makeOptions(const Options& o) {
    ImportOptions options;
    for (const std::string& text : o.map) addPattern(text, options);
    options.axes = o.axes == "thd" ? AxisOrder::TokensHeads : AxisOrder::HeadsTokens;
    options.rawIsBf16 = o.bf16;
    if (!o.layers.empty() && o.layers != "all") options.layers = parseLayers(o.layers, 4096);
    if (o.causal) options.causal = true;
    if (o.bidirectional) options.causal = false;
    options.scale = o.scale;
    options.softcap = o.softcap;
    options.window = o.window;
    return options;
}

std::string place(const PreviewRow& row) {
    if (!row.part || *row.part == Part::InputIds) return {};
    std::string text = row.layer < 0 ? "" : "layer " + std::to_string(row.layer);
    if (row.head >= 0) text += (text.empty() ? "head " : ", head ") + std::to_string(row.head);
    return text.empty() ? "all" : text;
}

void printList(const Context& context, const TensorSet& set, const ImportPlan& plan) {
    if (context.json) {
        Json tensors = Json::array();
        for (const PreviewRow& row : plan.rows) {
            const ForeignTensor& t = set.tensor(row.entry);
            tensors.push_back({{"name", set.entries()[row.entry].name},
                               {"file", set.file(row.entry).path().string()},
                               {"dtype", t.dtype},
                               {"shape", t.shape},
                               {"part", row.part ? Json(partName(*row.part)) : Json(nullptr)},
                               {"layer", row.layer < 0 ? Json(nullptr) : Json(row.layer)},
                               {"head", row.head < 0 ? Json(nullptr) : Json(row.head)},
                               {"problem", row.problem}});
        }
        Json patterns = Json::object();
        for (int p = 0; p < kParts; ++p)
            if (!plan.patterns[p].empty()) patterns[partName(Part(p))] = plan.patterns[p];
        printJson({{"tensors", tensors},
                   {"patterns", patterns},
                   {"problems", plan.problems},
                   {"notes", plan.notes}});
        return;
    }
    std::vector<std::vector<std::string>> rows{{"tensor", "type", "shape", "part", "of"}};
    for (const PreviewRow& row : plan.rows) {
        const ForeignTensor& t = set.tensor(row.entry);
        rows.push_back({set.entries()[row.entry].name, t.dtype, t.shapeText(),
                        row.part ? partName(*row.part) : "-", place(row)});
    }
    printTable(rows);
    for (const std::string& note : plan.notes) std::cout << "note: " << note << "\n";
    for (const std::string& text : plan.problems) std::cout << "problem: " << text << "\n";
}

void importTensors(const Context& context, const Options& o) {
    if (o.out.empty() && !o.list)
        throw Error(Errc::Usage,
                    "import-tensors needs -o NAME.sparsight, the session to write to (or --list)");
    sessions::ImportRequest request;
    request.options = makeOptions(o);
    request.modelName = o.name;
    request.tokenizer = o.tokenizer;
    request.device = context.device;
    request.topKeys = o.topK;
    const TensorSet set = sessions::openTensors({o.files.begin(), o.files.end()});
    const ImportPlan plan = planImport(set, request.options);
    if (o.list) {
        printList(context, set, plan);
        return;
    }
    if (!plan.problems.empty()) {
        const auto more = plan.problems.size() - 1;
        throw Error(Errc::Shape,
                    plan.problems.front() +
                        (more > 0 ? " (and " + std::to_string(more) + " more; see --list)" : ""));
    }
    const auto backend = context.backend();
    const auto start = std::chrono::steady_clock::now();
    const auto result =
        sessions::importToSession(o.out, set, plan, request, *backend, context.job());
    const auto done = result.session->captureInfo(result.capture);
    const double seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    endProgress();
    const kernels::Problem& p = plan.problem();
    if (context.json) {
        printJson({{"capture", result.capture},
                   {"model", done.modelName},
                   {"layers", done.layersDone.size()},
                   {"heads", p.Hq},
                   {"kvHeads", p.Hkv},
                   {"headDim", p.d},
                   {"queries", p.Nq},
                   {"keys", p.Nk},
                   {"causal", p.causal},
                   {"scale", p.scale},
                   {"seconds", seconds},
                   {"bytes", done.bytes},
                   {"massError", done.massError},
                   {"lseDifference", result.lseDifference ? Json(*result.lseDifference) : nullptr},
                   {"notes", plan.notes}});
        return;
    }
    for (const std::string& note : plan.notes) std::cout << "note: " << note << "\n";
    std::cout << "imported " << done.layersDone.size() << " layers x " << p.Hq << " heads ("
              << p.Hkv << " of keys), " << withThousands(p.Nq) << " queries x "
              << withThousands(p.Nk) << " keys, " << (p.causal ? "causal" : "bidirectional")
              << ", in " << fixed(seconds, 1) << " s, " << withThousands(done.bytes) << " bytes\n";
    if (result.lseDifference) {
        char text[32];
        std::snprintf(text, sizeof text, "%.1e", *result.lseDifference);
        std::cout << "largest difference to the file's LSE: " << text;
        // 16-bit scores may differ by about 2^-8 of a score of 10.
        if (!(*result.lseDifference < 0.1))
            std::cout << " - scale, softcap, window, sinks or causality are not the model's";
        std::cout << "\n";
    }
    std::cout << "session " << o.out << ", capture " << result.capture << "\n";
}

}  // namespace

void addImportTensorsCommand(CLI::App& app, Context& context) {
    const auto o = std::make_shared<Options>();
    auto* c = addCommand(app, context, "import-tensors",
                         "Make a session of q, k and v, or of small finished maps, from other "
                         "programs (safetensors, .npz, .npy, HDF5)",
                         [&context, o] { importTensors(context, *o); });
    c->add_option("files", o->files, "Files of tensors")->required();
    c->add_option(
         "--map", o->map,
         "PART=PATTERN for q, k, v, lse, sinks, input_ids, attention, with {layer} and "
         "{head} for numbers, e.g. 'q=layer.{layer}.q' (default: by the names; v=- leaves v out)")
        ->allow_extra_args(false);
    c->add_option("--axes", o->axes, "Order of the axes: htd or thd (heads, tokens, width)")
        ->capture_default_str()
        ->check(CLI::IsMember({"htd", "thd"}));
    c->add_option("--layers", o->layers, "Layers, e.g. 0,2-5 (default: all)");
    auto* causal = c->add_flag("--causal", o->causal, "A query sees the keys up to itself");
    c->add_flag("--bidirectional", o->bidirectional, "Every query sees every key")
        ->excludes(causal);
    c->add_option("--scale", o->scale, "Factor of q.k (default: the file's, else 1/sqrt(width))");
    c->add_option("--softcap", o->softcap, "c of c tanh(s/c) (default: the file's, else none)");
    c->add_option("--window", o->window,
                  "Latest keys that a query sees, itself included (default: the file's, else all)");
    c->add_flag("--bf16", o->bf16, "16-bit integers are bfloat16");
    c->add_option("--tokenizer", o->tokenizer,
                  "tokenizer.json or its directory: turns input_ids into text");
    c->add_option("--name", o->name, "Name of the model in the session");
    c->add_flag("--top-k", o->topK, "Also store the 64 largest probabilities of each row");
    c->add_flag("--list", o->list, "Only show the tensors and what they are taken for");
    c->add_option("-o,--out", o->out, "Session folder, NAME.sparsight (created when missing)");
    addComputeOptions(*c, context);
}

}  // namespace sparsight::cli
