#include <cmath>
#include <fstream>
#include <iostream>

#include "app/cli/command.h"
#include "core/export/figure.h"
#include "core/metrics/mask_estimate.h"
#include "sessions/analysis.h"

namespace sparsight::cli {
namespace {

using sessions::OpenMode;
using sessions::Session;

struct Options {
    std::string session, capture, method, methods, dump, out;
    std::string layer, rows = "all";
    std::optional<Index> head;
    int repeats = 5, points = 12;
    bool exact = false, estimate = false, allHeads = false;
};

/// Writable when nobody else writes, so that results are kept; else read-only.
std::shared_ptr<Session> openSession(const std::string& folder) {
    try {
        return Session::open(folder, OpenMode::ReadWrite);
    } catch (const Error& e) {
        if (e.code() != Errc::Resources && e.code() != Errc::Io) throw;
        return Session::open(folder, OpenMode::ReadOnly);
    }
}

Json orNull(const std::optional<double>& value) {
    return value ? Json(*value) : Json(nullptr);
}
/// --layer is a number or a name.
sessions::HeadChoice choiceOf(const Options& o, const sessions::CaptureInfo& capture) {
    sessions::HeadChoice choice{{}, o.head};
    if (!o.layer.empty()) choice.layer = parseLayer(o.layer, capture.config);
    choice.rows = parseRows(o.rows);
    return choice;
}

/// {"1": 0.98, "16": 0.9, "64": 0.8} or null.
Json overlapJson(const std::optional<std::array<double, 3>>& overlap) {
    if (!overlap) return nullptr;
    Json j = Json::object();
    for (std::size_t i = 0; i < kOverlaps.size(); ++i)
        j[std::to_string(kOverlaps[i])] = (*overlap)[i];
    return j;
}

std::string orDash(const std::optional<double>& value, int digits) {
    return value && !std::isnan(*value) ? fixed(*value, digits) : "-";
}

void heads(const Context& context, const Options& o) {
    const auto session = openSession(o.session);
    const auto capture = findCapture(*session, o.capture);
    const auto backend = context.backend();
    auto facts =
        sessions::sessionHeadFacts(*session, capture, *backend, context.job(), parseRows(o.rows));
    endProgress();
    if (context.json) {
        Json list = Json::array();
        for (const HeadFacts& f : facts)
            list.push_back({{"layer", f.layer},
                            {"name", layerName(capture.config, f.layer)},
                            {"head", f.head},
                            {"kvHead", f.kvHead},
                            {"sinkMass", f.sinkMass},
                            {"localMass", f.localMass},
                            {"entropy", f.entropy},
                            {"distance", f.distance},
                            {"retrieval", orNull(f.retrieval)},
                            {"label", f.label}});
        printJson(list);
        return;
    }
    // The best retrieval head last: where the eye rests.
    std::stable_sort(facts.begin(), facts.end(), [](const HeadFacts& a, const HeadFacts& b) {
        return a.retrieval.value_or(0) < b.retrieval.value_or(0);
    });
    std::vector<std::vector<std::string>> rows{{"head", "kv", "sink mass", "local mass",
                                                "entropy, nats", "distance, tokens", "retrieval",
                                                "label"}};
    for (const HeadFacts& f : facts)
        rows.push_back({headName(capture.config, f.layer, f.head), std::to_string(f.kvHead),
                        fixed(f.sinkMass, 3), fixed(f.localMass, 3), fixed(f.entropy, 2),
                        fixed(f.distance, 1), orDash(f.retrieval, 2), f.label});
    printTable(rows);
}

std::vector<std::vector<std::string>> metricsTable(const ModelConfig& config,
                                                   const std::vector<MaskMetrics>& metrics) {
    std::vector<std::vector<std::string>> rows{{"layer", "head", "coverage", "density", "recall",
                                                "recallMin", "recallP1", "recallP5", "tileRecall",
                                                "needleRecall", "outputError", "tiles"}};
    // Columns only where the capture stores what they need.
    const bool overlaps = std::any_of(metrics.begin(), metrics.end(), [](const MaskMetrics& m) {
        return m.topOverlap.has_value();
    });
    if (overlaps)
        for (const Index k : kOverlaps) rows[0].push_back("top" + std::to_string(k));
    for (const MaskMetrics& m : metrics) {
        rows.push_back({layerName(config, m.layer), std::to_string(m.head), fixed(m.coverage, 5),
                        fixed(m.density, 5), fixed(m.recall, 5), fixed(m.recallMin, 5),
                        fixed(m.recallP1, 5), fixed(m.recallP5, 5), fixed(m.tileRecall, 5),
                        orDash(m.needleRecall, 5), orDash(m.outputError, 5),
                        std::to_string(m.tiles)});
        if (!overlaps) continue;
        for (std::size_t i = 0; i < kOverlaps.size(); ++i)
            rows.back().push_back(m.topOverlap ? fixed((*m.topOverlap)[i], 5) : "-");
    }
    return rows;
}

void dumpMask(const Session& session, const sessions::CaptureInfo& capture, const MethodSpec& spec,
              const sessions::HeadChoice& choice, const std::vector<HeadFacts>& facts,
              kernels::Backend& backend, const std::string& file) {
    const auto chosen = chosenHeads(capture, choice);
    if (chosen.size() != 1)
        throw Error(Errc::Usage, "--dump writes one head's mask: give --layer and --head");
    const auto data = sessions::readLayer(session, capture, chosen[0].first, choice.rows, backend);
    const HeadInput input = sessions::sessionHeadInput(data, facts, chosen[0].second, backend);
    const kernels::Policy policy = makePolicy(spec)->select(input);
    const kernels::Problem& p = input.problem;
    const auto* list = std::get_if<kernels::BlockList>(&policy);
    if (method(spec.id).block > 0 && list) {
        writeNpy(file, blockMask(policy, p, list->block),
                 {(p.Nq + list->block - 1) / list->block, (p.Nk + list->block - 1) / list->block});
    } else {
        writeNpy(file, tokenMask(policy, p), {p.Nq, p.Nk});
    }
}

/// `mask --estimate`: recall and density from the stored statistics, nothing is measured.
void maskEstimate(const Context& context, const Options& o, const MethodSpec& spec) {
    if (!o.dump.empty() || !o.out.empty() || o.rows != "all")
        throw Error(Errc::Usage, "--estimate goes without --dump, -o and --rows.");
    const auto session = openSession(o.session);
    const auto capture = findCapture(*session, o.capture);
    const auto backend = context.backend();
    const auto facts = sessions::sessionHeadFacts(*session, capture, *backend, context.job());
    const auto policy = makePolicy(spec);
    Json list = Json::array();
    std::vector<std::vector<std::string>> rows{{"layer", "head", "density", "recall", ""}};
    sessions::CapturedLayer data;
    for (const auto& [layer, head] : sessions::chosenHeads(capture, choiceOf(o, capture))) {
        if (!data.layer || data.layer->layer != layer)
            data = sessions::readLayer(*session, capture, layer);
        const HeadInput input = sessions::sessionHeadInput(data, facts, head, *backend);
        const MaskEstimate e =
            estimateMask(input.problem, *data.stats, head, policy->select(input, context.job()));
        list.push_back({{"layer", layer},
                        {"name", layerName(capture.config, layer)},
                        {"head", head},
                        {"density", e.density},
                        {"recall", e.recall},
                        {"exact", e.exact}});
        rows.push_back({layerName(capture.config, layer), std::to_string(head), fixed(e.density, 5),
                        fixed(e.recall, 5), e.exact ? "exact" : "estimated"});
    }
    endProgress();
    if (context.json)
        printJson(list);
    else
        printTable(rows);
}

void mask(const Context& context, const Options& o) {
    const MethodSpec spec = parseMethod(o.method);
    if (o.estimate) {
        maskEstimate(context, o, spec);
        return;
    }
    if (!o.dump.empty()) requireEnding(o.dump, {".npy"});
    if (!o.out.empty()) requireEnding(o.out, {".csv"});
    const auto session = openSession(o.session);
    const auto capture = findCapture(*session, o.capture);
    const auto backend = context.backend();
    const sessions::HeadChoice choice = choiceOf(o, capture);
    if (!o.dump.empty())
        dumpMask(*session, capture, spec, choice,
                 sessions::sessionHeadFacts(*session, capture, *backend, context.job()), *backend,
                 o.dump);
    const auto rows =
        sessions::sessionMaskMetrics(*session, capture, spec, choice, *backend, context.job());
    endProgress();
    if (!o.out.empty()) {
        std::string csv;
        for (const auto& row : metricsTable(capture.config, rows)) {
            std::string line;
            for (std::size_t c = 0; c < row.size(); ++c)
                line += (c > 0 ? "," : "") + (row[c] == "-" ? std::string() : row[c]);
            csv += line + "\n";
        }
        writeText(o.out, csv);
    }
    if (context.json) {
        Json list = Json::array();
        for (const MaskMetrics& m : rows)
            list.push_back({{"layer", m.layer},
                            {"name", layerName(capture.config, m.layer)},
                            {"head", m.head},
                            {"coverage", m.coverage},
                            {"density", m.density},
                            {"recall", m.recall},
                            {"recallMin", m.recallMin},
                            {"recallP1", m.recallP1},
                            {"recallP5", m.recallP5},
                            {"tileRecall", m.tileRecall},
                            {"needleRecall", orNull(m.needleRecall)},
                            {"outputError", m.outputError},
                            {"tiles", m.tiles},
                            {"topOverlap", overlapJson(m.topOverlap)}});
        printJson(list);
    } else if (!o.out.empty()) {
        std::cout << "wrote " << o.out << "\n";
    } else {
        printTable(metricsTable(capture.config, rows));
    }
}

void run(const Context& context, const Options& o) {
    const MethodSpec spec = parseMethod(o.method);
    const auto session = openSession(o.session);
    const auto capture = findCapture(*session, o.capture);
    const auto backend = context.backend();
    const auto facts = sessions::sessionHeadFacts(*session, capture, *backend, context.job());
    const auto layers = sessions::sessionRunLayers(*session, capture, facts, choiceOf(o, capture));
    const KernelRun r = runKernels(*backend, layers, spec, o.repeats, o.exact, context.job());
    endProgress();
    if (context.json) {
        printJson({{"denseMs", r.denseMs},
                   {"sparseMs", r.sparseMs},
                   {"selectMs", r.selectMs},
                   {"speedup", r.speedup},
                   {"density", r.density},
                   {"outputError", r.outputError},
                   {"kernel", r.kernel},
                   {"threads", r.threads},
                   {"device", r.device},
                   {"repeats", r.repeats},
                   {"denseSpread", r.denseSpread},
                   {"sparseSpread", r.sparseSpread}});
        return;
    }
    printTable({{"", "ms"},
                {"dense", fixed(r.denseMs, 2)},
                {"sparse", fixed(r.sparseMs, 2)},
                {"selection", fixed(r.selectMs, 2)},
                {"promised by density", fixed(r.denseMs * r.density, 2)}});
    std::cout << "speed-up " << fixed(r.speedup, 2) << "x with the selection, "
              << fixed(r.denseMs / r.sparseMs, 2) << "x without; density "
              << fixed(100 * r.density, 2) << " % promised " << fixed(1 / r.density, 2)
              << "x; output error " << fixed(r.outputError, 4) << "\nmedian of " << r.repeats
              << ", interleaved; kernel " << r.kernel << ", " << r.device << ", " << r.threads
              << " threads\n";
}

/// A curve as text: to `out` where its ending asks for one, and to standard output as JSON or, with
/// no file, as CSV.
void giveCurve(const Context& context, const std::string& out, const std::string& csv,
               const Json& list) {
    if (out.ends_with(".csv"))
        writeText(out, csv);
    else if (out.ends_with(".json"))
        writeText(out, list.dump(2) + "\n");
    if (context.json)
        printJson(list);
    else if (out.empty())
        std::cout << csv;
    else
        std::cout << "wrote " << out << "\n";
}

/// `curve --all-heads`: the heaviest blocks of every head, mean over the heads.
void curveOfModel(const Context& context, const Options& o) {
    if (!o.out.empty()) requireEnding(o.out, {".csv", ".json"});
    const auto session = openSession(o.session);
    const auto capture = findCapture(*session, o.capture);
    std::vector<sessions::CapturedLayer> read;
    std::vector<BlockMasses> layers;
    for (const Index layer : capture.layersDone) {
        read.push_back(sessions::readLayer(*session, capture, layer));
        layers.push_back({read.back().layer->problem, read.back().stats.get()});
    }
    std::vector<double> densities;
    for (int i = 1; i <= o.points; ++i) densities.push_back(0.6 * double(i) / double(o.points));
    const BlockCurve curve = blockCurve(layers, densities, context.threads, context.job());
    endProgress();
    std::string csv = "method,density,recall,leastRecall\n";
    Json points = Json::array();
    for (std::size_t i = 0; i < densities.size(); ++i) {
        float least = 1;
        for (const auto& head : curve.heads) least = std::min(least, head[i]);
        csv += "oracle-blocks," + fixed(densities[i], 6) + "," + fixed(curve.recall[i], 6) + "," +
               fixed(double(least), 6) + "\n";
        points.push_back(
            {{"density", densities[i]}, {"recall", curve.recall[i]}, {"leastRecall", least}});
    }
    const Json list = Json::array(
        {{{"method", "oracle-blocks"}, {"heads", curve.heads.size()}, {"points", points}}});
    giveCurve(context, o.out, csv, list);
}

void curve(const Context& context, const Options& o) {
    if (o.allHeads) {
        curveOfModel(context, o);
        return;
    }
    if (o.layer.empty() || !o.head || o.methods.empty())
        throw Error(Errc::Usage,
                    "curve needs --layer, --head and --methods, or --all-heads for the block masks "
                    "of the whole model.");
    const auto specs = parseMethodList(o.methods);
    if (!o.out.empty()) requireEnding(o.out, {".csv", ".json", ".png", ".svg", ".pdf"});
    const auto session = openSession(o.session);
    const auto capture = findCapture(*session, o.capture);
    const auto backend = context.backend();
    const auto chosen = sessions::chosenHeads(capture, choiceOf(o, capture));
    const auto facts = sessions::sessionHeadFacts(*session, capture, *backend, context.job());
    const auto data = sessions::readLayer(*session, capture, chosen.at(0).first);
    const HeadInput input = sessions::sessionHeadInput(data, facts, chosen[0].second, *backend);
    std::vector<std::vector<CurvePoint>> curves;
    for (std::size_t i = 0; i < specs.size(); ++i)
        curves.push_back(recallCurve(*backend, input, headV(*data.layer, chosen[0].second),
                                     specs[i], o.points,
                                     context.job().part(double(i) / double(specs.size()),
                                                        double(i + 1) / double(specs.size()))));
    endProgress();
    const std::string ending = std::filesystem::path(o.out).extension().string();
    if (ending == ".png" || ending == ".svg" || ending == ".pdf") {
        ChartFigure figure;
        figure.title = "Recall against density, " +
                       headName(capture.config, chosen[0].first, chosen[0].second);
        figure.xLabel = "density (executed tile area / valid tile area)";
        figure.yLabel = "exact recall, mean over rows";
        figure.percentX = true;
        for (std::size_t i = 0; i < specs.size(); ++i) {
            const Method& m = method(specs[i].id);
            ChartFigure::Series series{toString(specs[i]), parseColour(m.colour), {}, {}};
            for (const CurvePoint& p : curves[i]) {
                series.x.push_back(p.density);
                series.y.push_back(p.recall);
            }
            figure.series.push_back(std::move(series));
        }
        writeFigure(figure, o.out);
    }
    std::string csv = "method,density,coverage,recall,spec\n";
    Json list = Json::array();
    for (std::size_t i = 0; i < specs.size(); ++i) {
        Json points = Json::array();
        for (const CurvePoint& p : curves[i]) {
            points.push_back({{"density", p.density},
                              {"coverage", p.coverage},
                              {"recall", p.recall},
                              {"spec", toString(p.spec)}});
            csv += specs[i].id + "," + fixed(p.density, 6) + "," + fixed(p.coverage, 6) + "," +
                   fixed(p.recall, 6) + "," + csvCell(toString(p.spec)) + "\n";
        }
        list.push_back({{"method", toString(specs[i])}, {"points", points}});
    }
    giveCurve(context, o.out, csv, list);
}

void listMethods(const Context& context) {
    Json list = Json::array();
    for (const Method& m : methods()) {
        Json params = Json::array();
        for (const Param& p : m.params)
            params.push_back({{"name", p.name},
                              {"standard", p.kind == Param::Text ? Json("") : Json(p.standard)},
                              {"least", p.least},
                              {"most", p.most},
                              {"unit", p.unit},
                              {"help", p.help}});
        list.push_back({{"id", std::string(m.id)},
                        {"title", std::string(m.title)},
                        {"source", std::string(m.source)},
                        {"decodes", m.decodes},
                        {"params", params}});
        if (context.json) continue;
        std::cout << m.id << "  (" << m.source << ")\n  " << m.summary
                  << (m.decodes ? "" : " Decode steps run dense.") << "\n";
        for (const Param& p : m.params) {
            std::cout << "    " << p.name;
            if (p.kind != Param::Text) std::cout << "=" << Json(p.standard).dump();
            std::cout << "  " << p.help << (*p.unit ? std::string(" [") + p.unit + "]" : "")
                      << "\n";
        }
    }
    if (context.json) printJson(list);
}

}  // namespace

void addAnalysisCommands(CLI::App& app, Context& context) {
    const auto o = std::make_shared<Options>();
    const auto common = [&](CLI::App* c) {
        c->add_option("session", o->session, "Session folder")->required();
        c->add_option("--capture", o->capture,
                      "Capture uuid or its beginning (default: the newest)");
        addComputeOptions(*c, context);
    };
    const auto heads_ = [&](CLI::App* c) {
        c->add_option("--layer", o->layer, "One layer, 3 or cross.0 (default: all captured)");
        c->add_option("--head", o->head, "One query head (default: all)");
    };
    const auto rows_ = [&](CLI::App* c) {
        c->add_option("--rows", o->rows,
                      "Rows: prefill (the prompt's), decode (the generated tokens') or all")
            ->capture_default_str()
            ->check(CLI::IsMember({"prefill", "decode", "all"}));
    };
    const char* methodHelp =
        "Mask method, e.g. a-shape:sink=4,window=256 (`sparsight methods` lists them)";

    auto* c = addCommand(app, context, "heads",
                         "Sink, local mass, entropy, retrieval score of every head",
                         [&context, o] { heads(context, *o); });
    common(c);
    rows_(c);

    c = addCommand(app, context, "mask", "Recall, coverage, density and output error of a mask",
                   [&context, o] { mask(context, *o); });
    common(c);
    heads_(c);
    rows_(c);
    c->add_option("--method", o->method, methodHelp)->required();
    c->add_flag("--estimate", o->estimate,
                "Recall and density from the stored statistics, in milliseconds a head");
    c->add_option("--dump", o->dump, "Write one head's mask as uint8 .npy");
    c->add_option("-o,--out", o->out, "Write the table as CSV");

    c = addCommand(app, context, "run", "Time dense and masked kernels on this machine",
                   [&context, o] { run(context, *o); });
    common(c);
    heads_(c);
    c->add_option("--method", o->method, methodHelp)->required();
    c->add_option("--repeat", o->repeats, "Repeats, interleaved; the median counts")
        ->capture_default_str()
        ->check(CLI::Range(5, 1000));
    c->add_flag("--exact", o->exact,
                "Token-exact masks inside the tiles (default: whole tiles, as in production)");

    c = addCommand(app, context, "curve", "Recall against density for several methods on one head",
                   [&context, o] { curve(context, *o); });
    common(c);
    c->add_option("--layer", o->layer, "Layer, 3 or cross.0");
    c->add_option("--head", o->head, "Query head");
    c->add_option("--methods", o->methods, "Comma-separated methods");
    c->add_flag("--all-heads", o->allHeads,
                "Instead: the heaviest blocks of every head (the bound of block methods), mean");
    c->add_option("--points", o->points, "Points per method")
        ->capture_default_str()
        ->check(CLI::Range(2, 200));
    c->add_option("-o,--out", o->out, "Write .csv, .json, .png, .svg or .pdf");
}

void addMethodsCommand(CLI::App& app, Context& context) {
    addCommand(app, context, "methods", "The mask methods and their parameters",
               [&context] { listMethods(context); });
}

}  // namespace sparsight::cli
