#include <iostream>

#include "app/cli/command.h"
#include "core/export/plan_export.h"
#include "sessions/analysis.h"

namespace sparsight::cli {
namespace {

struct Options {
    std::string session, capture, model, uniform, methods, out, plan, to, file;
    std::optional<double> recall, density;
    int points = 16;
    bool allowLoss = false;
};

constexpr const char* kStandardMethods = "a-shape,vertical-slash,antidiagonal,oracle-blocks";

void printSummary(const Context& context, const AttentionPlan& plan, const std::string& file) {
    std::map<std::string, Index> counts;
    for (Index l = 0; l < plan.model.layers; ++l)
        for (Index h = 0; h < plan.model.heads; ++h) ++counts[plan.at(l, h, Phase::Prefill, 0).id];
    if (context.json) {
        Json perMethod = Json::object();
        for (const auto& [id, n] : counts) perMethod[id] = n;
        Json evidence = Json::object();
        for (const auto& e : plan.evidence)
            if (!e.layer && !e.head) evidence[e.metric] = e.value;
        printJson(
            {{"plan", file}, {"uuid", plan.uuid}, {"heads", perMethod}, {"evidence", evidence}});
        return;
    }
    std::cout << "wrote " << file << ":";
    for (const auto& [id, n] : counts) std::cout << " " << n << " " << id;
    std::cout << "\n";
    for (const auto& e : plan.evidence)
        if (!e.layer && !e.head) std::cout << "  " << e.metric << " " << fixed(e.value, 4) << "\n";
}

void plan(const Context& context, const Options& o) {
    AttentionPlan result;
    if (!o.uniform.empty()) {
        const MethodSpec spec = parseMethod(o.uniform);
        PlanModel model;
        std::vector<double> scores;
        if (!o.session.empty()) {
            const auto session = sessions::Session::open(o.session, sessions::OpenMode::ReadOnly);
            const auto capture = findCapture(*session, o.capture);
            const auto backend = context.backend();
            model = planModel(capture.config);
            scores = sessions::retrievalScores(
                capture, sessions::sessionHeadFacts(*session, capture, *backend, context.job()));
        } else if (!o.model.empty()) {
            model = planModel(readConfig(resolveModel(o.model)));
        } else {
            throw Error(Errc::Usage, "plan --uniform needs --model MODEL (or a session)");
        }
        result = uniformPlan(model, spec, scores);
    } else {
        if (o.session.empty())
            throw Error(Errc::Usage,
                        "plan needs a session with --recall R or --density D, or --uniform METHOD");
        if (o.recall.has_value() == o.density.has_value())
            throw Error(Errc::Usage, "plan needs either --recall R or --density D");
        const auto methods = parseMethodList(o.methods);
        const auto session = sessions::Session::open(o.session, sessions::OpenMode::ReadOnly);
        const auto capture = findCapture(*session, o.capture);
        const PlanModel model = planModel(capture.config);
        const auto backend = context.backend();
        const auto options = sessions::sessionHeadOptions(*session, capture, methods, o.points,
                                                          *backend, context.job());
        result = o.recall ? planForRecall(model, options, *o.recall)
                          : planForDensity(model, options, *o.density);
    }
    writePlan(result, o.out);
    endProgress();
    printSummary(context, result, o.out);
}

void exportTo(const Context& context, const Options& o) {
    const ExportResult r = exportPlan(readPlan(o.plan), o.to, o.out, o.allowLoss);
    if (context.json) {
        Json files = Json::array();
        for (const auto& f : r.files) files.push_back(f.string());
        printJson({{"target", o.to}, {"files", files}, {"losses", r.losses}});
        return;
    }
    for (const auto& f : r.files) std::cout << "wrote " << f.string() << "\n";
    for (const std::string& loss : r.losses) std::cout << "lost: " << loss << "\n";
}

void import(const Context& context, const Options& o) {
    const AttentionPlan result = importPlan(o.file, readConfig(resolveModel(o.model)));
    writePlan(result, o.out);
    printSummary(context, result, o.out);
}

}  // namespace

void addPlanCommands(CLI::App& app, Context& context) {
    const auto o = std::make_shared<Options>();
    auto* c = addCommand(app, context, "plan", "Choose a method for every head",
                         [&context, o] { plan(context, *o); });
    c->add_option("session", o->session, "Session folder");
    c->add_option("--capture", o->capture, "Capture uuid or its beginning (default: the newest)");
    auto* recall = c->add_option("--recall", o->recall,
                                 "Least density per head that reaches this exact mean recall")
                       ->check(CLI::Range(0.0, 1.0));
    auto* density = c->add_option("--density", o->density, "Best recall at this mean density")
                        ->check(CLI::Range(0.0, 1.0));
    recall->excludes(density);
    c->add_option("--methods", o->methods, "Candidate methods, comma-separated")
        ->default_val(kStandardMethods);
    c->add_option("--points", o->points, "Budgets tried per method")
        ->capture_default_str()
        ->check(CLI::Range(2, 200));
    c->add_option("--model", o->model, "Model directory or bundled name (with --uniform)");
    c->add_option("--uniform", o->uniform, "One method for all heads, both phases")
        ->excludes(recall)
        ->excludes(density);
    c->add_option("-o,--out", o->out, "Plan JSON to write")->required();
    addComputeOptions(*c, context);

    c = addCommand(app, context, "export", "Write a plan in the form that an engine loads",
                   [&context, o] { exportTo(context, *o); });
    c->add_option("plan", o->plan, "Plan JSON")->required();
    c->add_option("--to", o->to, "minference, duoattention or csv")->required();
    c->add_flag("--allow-loss", o->allowLoss,
                "Write what can be expressed, and LOSS.md for the rest");
    c->add_option("-o,--out", o->out, "File or directory to write")->required();

    c = addCommand(app, context, "import",
                   "Read a MInference JSON, DuoAttention directory or CSV as a plan",
                   [&context, o] { import(context, *o); });
    c->add_option("file", o->file, "File or directory to read")->required();
    c->add_option("--model", o->model, "Model directory or bundled name")->required();
    c->add_option("-o,--out", o->out, "Plan JSON to write")->required();
}

}  // namespace sparsight::cli
