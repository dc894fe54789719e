#include <fstream>
#include <iostream>

#include "app/cli/command.h"
#include "core/export/figure.h"
#include "sessions/analysis.h"

namespace sparsight::cli {
namespace {

using sessions::OpenMode;
using sessions::Session;

struct Options {
    std::string session, capture, method, methods, dump, out;
    std::optional<Index> layer, head;
    int repeats = 5, points = 12;
    bool exact = false;
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
std::string orDash(const std::optional<double>& value, int digits) {
    return value ? fixed(*value, digits) : "-";
}

void heads(const Context& context, const Options& o) {
    const auto session = openSession(o.session);
    const auto capture = findCapture(*session, o.capture);
    const auto backend = context.backend();
    auto facts = sessions::sessionHeadFacts(*session, capture, *backend, context.job());
    endProgress();
    if (context.json) {
        Json list = Json::array();
        for (const HeadFacts& f : facts)
            list.push_back({{"layer", f.layer},
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
        rows.push_back({"L" + std::to_string(f.layer) + "H" + std::to_string(f.head),
                        std::to_string(f.kvHead), fixed(f.sinkMass, 3), fixed(f.localMass, 3),
                        fixed(f.entropy, 2), fixed(f.distance, 1), orDash(f.retrieval, 2),
                        f.label});
    printTable(rows);
}

std::vector<std::vector<std::string>> metricsTable(const std::vector<MaskMetrics>& metrics) {
    std::vector<std::vector<std::string>> rows{{"layer", "head", "coverage", "density", "recall",
                                                "recallMin", "recallP1", "recallP5", "tileRecall",
                                                "needleRecall", "outputError", "tiles"}};
    for (const MaskMetrics& m : metrics)
        rows.push_back({std::to_string(m.layer), std::to_string(m.head), fixed(m.coverage, 5),
                        fixed(m.density, 5), fixed(m.recall, 5), fixed(m.recallMin, 5),
                        fixed(m.recallP1, 5), fixed(m.recallP5, 5), fixed(m.tileRecall, 5),
                        orDash(m.needleRecall, 5), fixed(m.outputError, 5),
                        std::to_string(m.tiles)});
    return rows;
}

void dumpMask(const Session& session, const sessions::CaptureInfo& capture, const MethodSpec& spec,
              const sessions::HeadChoice& choice, const std::vector<HeadFacts>& facts,
              kernels::Backend& backend, const std::string& file) {
    const auto chosen = chosenHeads(capture, choice);
    if (chosen.size() != 1)
        throw Error(Errc::Usage, "--dump writes one head's mask: give --layer and --head");
    const auto data = sessions::readLayer(session, capture, chosen[0].first);
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

void mask(const Context& context, const Options& o) {
    const MethodSpec spec = parseMethod(o.method);
    if (!o.dump.empty()) requireEnding(o.dump, {".npy"});
    if (!o.out.empty()) requireEnding(o.out, {".csv"});
    const auto session = openSession(o.session);
    const auto capture = findCapture(*session, o.capture);
    const auto backend = context.backend();
    const sessions::HeadChoice choice{o.layer, o.head};
    if (!o.dump.empty())
        dumpMask(*session, capture, spec, choice,
                 sessions::sessionHeadFacts(*session, capture, *backend, context.job()), *backend,
                 o.dump);
    const auto rows =
        sessions::sessionMaskMetrics(*session, capture, spec, choice, *backend, context.job());
    endProgress();
    if (!o.out.empty()) {
        std::string csv;
        for (const auto& row : metricsTable(rows)) {
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
                            {"tiles", m.tiles}});
        printJson(list);
    } else if (!o.out.empty()) {
        std::cout << "wrote " << o.out << "\n";
    } else {
        printTable(metricsTable(rows));
    }
}

void run(const Context& context, const Options& o) {
    const MethodSpec spec = parseMethod(o.method);
    const auto session = openSession(o.session);
    const auto capture = findCapture(*session, o.capture);
    const auto backend = context.backend();
    const auto facts = sessions::sessionHeadFacts(*session, capture, *backend, context.job());
    const auto layers = sessions::sessionRunLayers(*session, capture, facts, {o.layer, o.head});
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

void curve(const Context& context, const Options& o) {
    const auto specs = parseMethodList(o.methods);
    if (!o.out.empty()) requireEnding(o.out, {".csv", ".json", ".png", ".svg", ".pdf"});
    const auto session = openSession(o.session);
    const auto capture = findCapture(*session, o.capture);
    const auto backend = context.backend();
    const auto chosen = sessions::chosenHeads(capture, {o.layer, o.head});
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
        figure.title = "Recall against density, L" + std::to_string(chosen[0].first) + "H" +
                       std::to_string(chosen[0].second);
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
    if (ending == ".csv")
        writeText(o.out, csv);
    else if (ending == ".json")
        writeText(o.out, list.dump(2) + "\n");
    if (context.json)
        printJson(list);
    else if (o.out.empty())
        std::cout << csv;
    else
        std::cout << "wrote " << o.out << "\n";
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
        c->add_option("--layer", o->layer, "One layer (default: all captured)");
        c->add_option("--head", o->head, "One query head (default: all)");
    };
    const char* methodHelp =
        "Mask method, e.g. a-shape:sink=4,window=256 (`sparsight methods` lists them)";

    auto* c = addCommand(app, context, "heads",
                         "Sink, local mass, entropy, retrieval score of every head",
                         [&context, o] { heads(context, *o); });
    common(c);

    c = addCommand(app, context, "mask", "Recall, coverage, density and output error of a mask",
                   [&context, o] { mask(context, *o); });
    common(c);
    heads_(c);
    c->add_option("--method", o->method, methodHelp)->required();
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
    c->add_option("--layer", o->layer, "Layer")->required();
    c->add_option("--head", o->head, "Query head")->required();
    c->add_option("--methods", o->methods, "Comma-separated methods")->required();
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
