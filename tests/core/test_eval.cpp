// The sample's story, by what the model says: dense answers, streaming on all heads does not, one
// dense head gives the answer back.
#include <catch2/catch.hpp>
#include <cmath>

#include "core/export/plan_export.h"
#include "core/plan/generate.h"
#include "core/probe/needle.h"
#include "tests/core/plan_cases.h"

using namespace sparsight;
using namespace plan_cases;

namespace {

struct World {
    std::filesystem::path directory =
        std::string(SPARSIGHT_SOURCE_DIR) + "/resources/models/bookworm";
    std::unique_ptr<ModelRunner> model = loadModel(directory);
    std::shared_ptr<const Tokenizer> tokenizer = Tokenizer::load(directory);
    std::unique_ptr<kernels::Backend> backend = kernels::makeBackend();
    PlanModel planFor = planModel(model->config());
    NeedlePrompt prompt =
        makeNeedlePrompt(parseProbe("niah:tokens=1500,depth=0.5,seed=1"), *tokenizer);

    AttentionPlan plan(const char* method) const {
        return uniformPlan(planFor, parseMethod(method));
    }
    EvalResult judge(const AttentionPlan& p) {
        return evaluatePlan(*model, *backend, prompt.ids, prompt.truth, p);
    }
};

World& world() {
    static World w;
    return w;
}

constexpr const char* kStreaming = "a-shape:sink=4,window=256";
constexpr const char* kOneDense = "retrieval-heads:heads=6.5,sink=4,window=256";

}  // namespace

TEST_CASE("eval: a dense plan changes nothing", "[eval]") {
    const EvalResult r = world().judge(world().plan("dense"));
    CHECK(r.meanKL == 0);
    CHECK(r.maxKL == 0);
    CHECK(r.top1Agreement == 1);
    CHECK(r.nllPlan == r.nllDense);
    CHECK(r.density == 1);
    CHECK(r.needleDense == true);
    CHECK(r.needlePlan == true);
    CHECK(r.tokens == Index(world().prompt.ids.size()));
}

TEST_CASE("eval: streaming heads lose the needle, one dense head keeps it", "[eval]") {
    const EvalResult lost = world().judge(world().plan(kStreaming));
    CHECK(lost.needleDense == true);
    CHECK(lost.needlePlan == false);
    CHECK(lost.nllPlan - lost.nllDense < 0.2);
    CHECK(lost.meanKL > 0);
    CHECK(lost.density < 0.6);

    const EvalResult kept = world().judge(world().plan(kOneDense));
    CHECK(kept.needlePlan == true);
    CHECK(kept.meanKL < lost.meanKL);
}

TEST_CASE("eval: the exported and re-imported plan says the same", "[eval]") {
    Folder folder;
    const AttentionPlan plan = world().plan(kOneDense);
    exportPlan(plan, "minference", folder.path / "m.json");
    const AttentionPlan back = importPlan(folder.path / "m.json", world().model->config());
    CHECK(tableOf(back) == tableOf(plan));
    const EvalResult a = world().judge(plan), b = world().judge(back);
    CHECK(a.meanKL == b.meanKL);
    CHECK(a.nllPlan == b.nllPlan);
    CHECK(b.needlePlan == true);
}

TEST_CASE("eval: nothing of the comparison depends on its chunks", "[eval]") {
    // The definition, row by row from whole passes; no needle, so that all rows are prefilled.
    World& w = world();
    const std::vector<std::int32_t> ids(w.prompt.ids.begin(), w.prompt.ids.begin() + 200);
    const AttentionPlan plan = w.plan("a-shape:sink=4,window=32");
    const EvalResult r = evaluatePlan(*w.model, *w.backend, ids, {}, plan);
    CHECK_FALSE(r.needlePlan.has_value());
    const Index rows = Index(ids.size()), vocab = w.model->config().vocab;
    std::vector<float> p(std::size_t(rows * vocab)), q(p.size());
    const auto pass = [&](const AttentionFn& attention, std::vector<float>& out) {
        KvCache cache(w.model->config(), rows);
        w.model->forward(ids, cache, attention);
        w.model->logits(0, rows, out.data());
    };
    pass(denseAttention(*w.backend), p);
    pass(plannedAttention(plan, *w.backend), q);
    double kl = 0, nll = 0;
    for (Index t = 0; t + 1 < rows; ++t) {
        double sumP = 0, sumQ = 0;
        for (Index v = 0; v < vocab; ++v) {
            sumP += std::exp(double(p[std::size_t(t * vocab + v)]));
            sumQ += std::exp(double(q[std::size_t(t * vocab + v)]));
        }
        for (Index v = 0; v < vocab; ++v) {
            const double a = double(p[std::size_t(t * vocab + v)]) - std::log(sumP);
            const double b = double(q[std::size_t(t * vocab + v)]) - std::log(sumQ);
            kl += std::exp(a) * (a - b);
            if (v == ids[std::size_t(t) + 1]) nll -= b;
        }
    }
    CHECK(r.meanKL == Approx(kl / double(rows - 1)).epsilon(1e-4));
    CHECK(r.nllPlan == Approx(nll / double(rows - 1)).epsilon(1e-5));
    errorOf(Errc::Usage,
            [&] { evaluatePlan(*w.model, *w.backend, std::span(ids).first(1), {}, plan); });
}

TEST_CASE("generate: the answer, dense and with one dense head; streaming says another", "[eval]") {
    World& w = world();
    const auto say = [&](const AttentionPlan* plan) {
        std::string streamed;
        const GenerateResult r = generate(*w.model, *w.backend, *w.tokenizer, w.prompt.promptIds, 8,
                                          plan, [&](const std::string& s) { streamed += s; });
        CHECK(streamed == r.text);
        CHECK(r.ids.size() <= 8);
        return r.text;
    };
    CHECK(say(nullptr).starts_with(w.prompt.answer));
    const AttentionPlan one = w.plan(kOneDense), all = w.plan(kStreaming);
    CHECK(say(&one).starts_with(w.prompt.answer));
    CHECK_FALSE(say(&all).starts_with(w.prompt.answer));
    errorOf(Errc::Usage, [&] { generate(*w.model, *w.backend, *w.tokenizer, {}, 8, nullptr); });

    const AttentionPlan slash = w.plan("vertical-slash:vertical=100,slash=200");
    const GenerateResult r =
        generate(*w.model, *w.backend, *w.tokenizer, w.prompt.promptIds, 2, &slash);
    REQUIRE(r.notes.size() == 1);
    CHECK(r.notes[0] == "vertical-slash has no rule for decode rows: dense there");
}

TEST_CASE("generate: a stop ends it", "[eval]") {
    World& w = world();
    CHECK_THROWS_AS(generate(*w.model, *w.backend, *w.tokenizer, w.prompt.promptIds, 8, nullptr, {},
                             Job({}, [] { return true; })),
                    Cancelled);
}
