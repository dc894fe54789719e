#include <catch2/catch.hpp>
#include <cmath>
#include <nlohmann/json.hpp>

#include "core/plan/search.h"
#include "tests/core/plan_cases.h"
#include "tests/core/random_head.h"

using namespace sparsight;
using namespace plan_cases;
using Catch::Matchers::Contains;

namespace {

/// The schema's own example (rules: two query heads of layer 0, then KV head 1 everywhere).
const std::string kExample = R"({"format":"sparsight-plan","version":"1.0.0",
"uuid":"00000000000000000000000000000000","created_utc":"2026-01-02T03:04:05Z",
"producer":{"name":"sparsight","version":"0.1"},
"model":{"name":"toy","arch":"llama","n_layer":2,"n_q_head":4,"n_kv_head":2,"head_dim":64,
"config_sha256":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"},
"phases":["prefill"],"default":{"kind":"dense"},"rules":[
{"layers":[0],"q_heads":[0,3],"pattern":{"kind":"vertical-slash","vertical":1000,"slash":6096}},
{"layers":"all","kv_heads":[1],"pattern":{"kind":"a-shape","sink":128,"window":256}}]})";

/// The example with the value at a JSON pointer replaced ("-" removes it).
std::string with(const std::string& pointer, const std::string& value) {
    auto json = nlohmann::json::parse(kExample);
    const nlohmann::json::json_pointer at(pointer);
    if (value == "-")
        json.at(at.parent_pointer()).erase(at.back());
    else
        json[at] = nlohmann::json::parse(value);
    return json.dump();
}

CurvePoint point(double density, double recall, MethodSpec spec) {
    return {density, density, recall, std::move(spec)};
}

}  // namespace

TEST_CASE("plan: the schema's example reads as written, later rules win", "[plan]") {
    const AttentionPlan plan = parsePlan(kExample);
    CHECK(toString(plan.at(0, 0, Phase::Prefill, 100)) ==
          "vertical-slash:vertical=1000,slash=6096");
    CHECK(plan.at(0, 1, Phase::Prefill, 100).id == "dense");
    CHECK(toString(plan.at(0, 3, Phase::Prefill, 100)) == "a-shape:sink=128,window=256");
    CHECK(toString(plan.at(1, 2, Phase::Prefill, 100)) == "a-shape:sink=128,window=256");
    CHECK(plan.at(1, 1, Phase::Prefill, 100).id == "dense");
    CHECK(plan.at(0, 3, Phase::Decode, 100).id == "dense");
}

TEST_CASE("plan: canonical form survives reading and writing", "[plan]") {
    AttentionPlan plan = parsePlan(kExample);
    plan.name = "a name with \"quotes\" and é";
    plan.parentUuid = std::string(32, 'b');
    plan.calibratedLengths = {1024, 4096};
    plan.maxPlanLength = 8192;
    plan.rules[0].minLength = 10;
    plan.rules[0].maxLength = 100;
    plan.rules[0].phases = {Phase::Prefill};
    plan.rules[0].score = 0.1;
    plan.rules[0].why = "measured";
    plan.rules.push_back(
        {{1},
         {0},
         {},
         {},
         {},
         {},
         {"antidiagonal", {{{"stride", 8}, {"threshold", 0.9}, {"released", 1}}, {}}},
         {},
         {}});
    plan.rules.push_back({{1},
                          {1},
                          {},
                          {},
                          {},
                          {},
                          {"oracle-blocks", {{{"density", 1}, {"block", 128}}, {}}},
                          {},
                          {}});
    AttentionPlan::Evidence e;
    e.metric = "recall";
    e.value = 0.95;
    e.n = 3;
    e.length = 1500;
    e.layer = 1;
    e.head = 2;
    e.interval = {0.9, 0.99};
    plan.evidence.push_back(e);
    const AttentionPlan again = parsePlan(toJson(plan));
    CHECK(canonicalJson(again) == canonicalJson(plan));
    CHECK(canonicalJson(plan).find(' ') == canonicalJson(plan).find(" name"));  // in the text only
    CHECK(again.rules[2].pattern == plan.rules[2].pattern);
    CHECK_THAT(canonicalJson(plan), Contains("\"released\":true") && Contains("\"window\":256") &&
                                        Contains("\"score\":0.1"));
}

TEST_CASE("plan: rules may depend on the prompt's length", "[plan]") {
    AttentionPlan plan = parsePlan(kExample);
    plan.rules = {{{}, {}, {}, {}, 100, 199, aShape(4, 8), {}, {}}};
    CHECK(plan.at(0, 0, Phase::Prefill, 99).id == "dense");
    CHECK(plan.at(0, 0, Phase::Prefill, 100).id == "a-shape");
    CHECK(plan.at(0, 0, Phase::Prefill, 199).id == "a-shape");
    CHECK(plan.at(0, 0, Phase::Prefill, 200).id == "dense");
}

TEST_CASE("plan: what the schema forbids is refused with the field's name", "[plan]") {
    struct Case {
        const char *pointer, *value, *says;
    };
    const Case c = GENERATE(
        Case{"/colour", "1", "colour is not a key"}, Case{"/ruless", "[]", "did you mean rules"},
        Case{"/uuid", "-", "uuid is missing"}, Case{"/uuid", "\"XY\"", "uuid should be 32"},
        Case{"/version", "\"1.0\"", "version is '1.0'"}, Case{"/version", "1", "version should be"},
        Case{"/phases", "[]", "phases should be a list of 1"},
        Case{"/phases", "[\"prefill\",\"prefill\"]", "phases[1] names a phase twice"},
        Case{"/phases", "[\"train\"]", "phases[0] is 'train'"},
        Case{"/model/n_layer", "0", "model.n_layer should be a whole number from 1"},
        Case{"/model/n_layer", "1.5", "model.n_layer"},
        Case{"/model/n_kv_head", "3", "model.n_kv_head is 3, which does not divide"},
        Case{"/model/config_sha256", "\"aa\"", "model.config_sha256 should be 64"},
        Case{"/model/size", "1", "model.size is not a key"},
        Case{"/default", "{}", "default.kind is missing"},
        Case{"/default", "\"dense\"", "default should be an object"},
        Case{"/default", R"({"kind":"dens"})", "default.kind is 'dens'"},
        Case{"/default", R"({"kind":"dense","sink":1})", "default.sink is not a key"},
        Case{"/default", R"({"kind":"a-shape","sink":4})", "default.window is missing"},
        Case{"/default", R"({"kind":"retrieval-heads"})", "all heads at once"},
        Case{"/default", R"({"kind":"antidiagonal","stride":8,"threshold":0.9,"released":1})",
             "default.released should be true or false"},
        Case{"/rules/0/layers", "-", "rules[0].layers is missing"},
        Case{"/rules/0/layers", "[2]", "rules[0].layers[0] is 2, but the model has layers 0..1"},
        Case{"/rules/0/layers", "[0,0]", "rules[0].layers[1] repeats 0"},
        Case{"/rules/0/layers", "\"some\"", "rules[0].layers should be \"all\""},
        Case{"/rules/0/q_heads", "[4]", "rules[0].q_heads[0] is 4"},
        Case{"/rules/0/kv_heads", "[0]", "rules[0] has q_heads and kv_heads"},
        Case{"/rules/0/phases", "[\"decode\"]", "rules[0].phases names a phase that the plan"},
        Case{"/rules/0/pattern/slash", "-1", "rules[0].pattern"},
        Case{"/rules/0/pattern/slash", "\"x\"", "rules[0].pattern.slash should be a finite number"},
        Case{"/rules/0/pattern/colour", "1", "rules[0].pattern.colour is not a key"},
        Case{"/rules/1/score", "null", "rules[1].score should be a finite number"},
        Case{"/evidence", R"([{"metric":"x","value":1}])", "evidence[0].n is missing"},
        Case{"/lengths", R"({"max":100})", "sink is 128, more than"});
    CAPTURE(c.pointer, c.value);
    const std::string says =
        errorOf(Errc::Format, [&] { parsePlan(with(c.pointer, c.value), "p.json"); });
    CHECK_THAT(says, Contains("p.json: ") && Contains(c.says));
}

TEST_CASE("plan: files of another kind or version", "[plan]") {
    CHECK_THAT(errorOf(Errc::Format, [] { parsePlan("{}", "x"); }),
               Contains("not a Sparsight plan"));
    CHECK_THAT(errorOf(Errc::Format, [] { parsePlan("[1,2]", "x"); }),
               Contains("not a Sparsight plan"));
    CHECK_THAT(errorOf(Errc::Format, [] { parsePlan("{\"format\":", "x"); }), Contains("x"));
    CHECK_THAT(errorOf(Errc::Unsupported, [] { parsePlan(with("/version", "\"2.0.0\""), "x"); }),
               Contains("reads version 1"));
    CHECK_THAT(errorOf(Errc::Unsupported,
                       [] { parsePlan(with("/default", R"({"kind":"flexprefill"})"), "x"); }),
               Contains("flexprefill"));
    Folder folder;
    CHECK_THAT(errorOf(Errc::NotFound, [&] { readPlan(folder.path / "none.json"); }),
               Contains("none.json"));
    CHECK_THAT(
        errorOf(Errc::Io, [&] { writePlan(parsePlan(kExample), folder.path / "no" / "p.json"); }),
        Contains("p.json"));
    writePlan(parsePlan(kExample), folder.path / "p.json");
    CHECK(canonicalJson(readPlan(folder.path / "p.json")) == canonicalJson(parsePlan(kExample)));
    CHECK(std::distance(std::filesystem::directory_iterator(folder.path), {}) == 1);
}

TEST_CASE("plan: one rule for all heads", "[plan]") {
    const PlanModel model = planModel(config(3, 4, 2));
    const AttentionPlan plan = uniformPlan(model, parseMethod("a-shape:sink=4,window=256"));
    CHECK(plan.uuid.size() == 32);
    CHECK(plan.rules.empty());
    for (const std::string& row : tableOf(plan)) CHECK(row == "a-shape:sink=4,window=256");
    // Standard values are written out, so that the plan means the same if they ever change.
    CHECK(uniformPlan(model, parseMethod("a-shape")).base.params.numbers.at("window") == 1024);
    CHECK_NOTHROW(parsePlan(toJson(plan)));
    CHECK(uniformPlan(model, parseMethod("dense")).uuid != plan.uuid);
}

TEST_CASE("plan: retrieval-heads becomes an a-shape default and dense rules", "[plan]") {
    const PlanModel model = planModel(config(3, 4, 2));
    const AttentionPlan plan =
        uniformPlan(model, parseMethod("retrieval-heads:heads=1.2+2.0+2.3,sink=4,window=256"));
    CHECK(toString(plan.base) == "a-shape:sink=4,window=256");
    for (Index l = 0; l < 3; ++l)
        for (Index h = 0; h < 4; ++h) {
            const bool dense = (l == 1 && h == 2) || (l == 2 && (h == 0 || h == 3));
            CAPTURE(l, h);
            for (const Phase phase : {Phase::Prefill, Phase::Decode})
                CHECK((plan.at(l, h, phase, 100).id == "dense") == dense);
        }
    CHECK(canonicalJson(parsePlan(toJson(plan))) == canonicalJson(plan));

    std::vector<double> scores(12, 0.0);
    scores[5] = 0.8;
    const AttentionPlan scored = uniformPlan(model, parseMethod("retrieval-heads"), scores);
    REQUIRE(scored.rules.size() == 1);
    CHECK(scored.rules[0].layers == std::vector<Index>{1});
    CHECK(scored.rules[0].qHeads == std::vector<Index>{1});

    CHECK_THAT(errorOf(Errc::NotFound,
                       [&] { uniformPlan(model, parseMethod("retrieval-heads:heads=3.0")); }),
               Contains("3.0") && Contains("0..2"));
    errorOf(Errc::Usage, [&] { uniformPlan(model, parseMethod("retrieval-heads")); });
}

TEST_CASE("plan: tables become the same tables", "[plan]") {
    const PlanModel model = planModel(config(2, 3, 1));
    const std::vector<MethodSpec> a{aShape(4, 8), {"dense", {}}, aShape(4, 8),
                                    aShape(4, 8), aShape(1, 2),  aShape(4, 8)};
    const std::vector<MethodSpec> b{{"dense", {}}, {"dense", {}}, aShape(4, 8),
                                    aShape(4, 8),  aShape(1, 2),  aShape(1, 2)};
    const AttentionPlan plan = planFromTables(model, "t", a, b, {NAN, 0.5, NAN, NAN, NAN, NAN});
    for (Index at = 0; at < 6; ++at) {
        CAPTURE(at);
        CHECK(plan.at(at / 3, at % 3, Phase::Prefill, 9) == a[std::size_t(at)]);
        CHECK(plan.at(at / 3, at % 3, Phase::Decode, 9) == b[std::size_t(at)]);
    }
    CHECK(plan.rules[0].score.has_value() != plan.rules[1].score.has_value());
    CHECK(planFromTables(model, "t", a, {}).phases == std::vector{Phase::Prefill});
    CHECK(planFromTables(model, "t", {}, b).phases == std::vector{Phase::Decode});
    CHECK(canonicalJson(parsePlan(toJson(plan))) == canonicalJson(plan));
}

TEST_CASE("plan: a plan of another model is refused", "[plan]") {
    const AttentionPlan plan = uniformPlan(planModel(config(2, 4, 2)), {"dense", {}});
    CHECK_NOTHROW(checkFits(plan, config(2, 4, 2)));
    errorOf(Errc::Shape, [&] { checkFits(plan, config(3, 4, 2)); });
    CHECK_THAT(errorOf(Errc::Shape, [&] { checkFits(plan, config(2, 8, 2)); }),
               Contains("4 query heads") && Contains("8 query heads"));
}

// Head 0 reaches 0.9 at 0.2 and, worse, at 0.3; head 1 only at 0.5; head 2 never.
TEST_CASE("plan: least density that reaches the recall", "[plan]") {
    const PlanModel model = planModel(config(1, 4, 4));
    const std::vector<HeadOptions> heads{
        {0,
         0,
         {point(0.3, 0.95, aShape(4, 30)), point(0.2, 0.9, aShape(4, 20)),
          point(0.1, 0.5, aShape(4, 10))}},
        {0, 1, {point(0.1, 0.7, aShape(4, 10)), point(0.5, 0.93, aShape(4, 50))}},
        {0, 2, {point(0.9, 0.89, aShape(4, 90))}},
        {0,
         3,
         {point(1, 1, {"retrieval-heads", {}}),
          point(0.2, 0.95, {"retrieval-heads", {{{"sink", 2}, {"window", 7}}, {}}})}}};
    const AttentionPlan plan = planForRecall(model, heads, 0.9);
    CHECK(toString(plan.at(0, 0, Phase::Prefill, 9)) == "a-shape:sink=4,window=20");
    CHECK(toString(plan.at(0, 1, Phase::Prefill, 9)) == "a-shape:sink=4,window=50");
    CHECK(plan.at(0, 2, Phase::Prefill, 9).id == "dense");
    CHECK(toString(plan.at(0, 3, Phase::Prefill, 9)) == "a-shape:sink=2,window=7");
    CHECK(plan.evidence[0].metric == "density");
    CHECK(plan.evidence[0].value == Approx((0.2 + 0.5 + 1 + 0.2) / 4));
    CHECK(plan.evidence[1].value == Approx((0.9 + 0.93 + 1 + 0.95) / 4));
    CHECK(canonicalJson(parsePlan(toJson(plan))) == canonicalJson(plan));
}

// Two heads, hull slopes by hand. Head 0: 0.1 -> 0.2 gains 0.3 (slope 3), 0.2 -> 0.4 gains 0.1
// (0.5), -> dense 0.1 over 0.6; the point (0.3, 0.81) lies under the chord 0.2 -> 0.4 and is never
// taken. Head 1: 0.1 -> 0.3 gains 0.2 (slope 1), -> dense 0.1 over 0.7.
TEST_CASE("plan: budget spent by slope on the hulls", "[plan]") {
    const PlanModel model = planModel(config(1, 2, 2));
    const std::vector<HeadOptions> heads{
        {0,
         0,
         {point(0.1, 0.5, aShape(4, 10)), point(0.2, 0.8, aShape(4, 20)),
          point(0.3, 0.81, aShape(4, 30)), point(0.4, 0.9, aShape(4, 40))}},
        {0, 1, {point(0.1, 0.7, aShape(4, 11)), point(0.3, 0.9, aShape(4, 31))}}};
    const auto windows = [&](double density) {
        const AttentionPlan plan = planForDensity(model, heads, density);
        std::vector<double> out;
        for (Index h = 0; h < 2; ++h) {
            const MethodSpec spec = plan.at(0, h, Phase::Prefill, 9);
            out.push_back(spec.id == "dense" ? 0 : spec.params.numbers.at("window"));
        }
        return out;
    };
    CHECK(windows(0.10) == std::vector<double>{10, 11});
    CHECK(windows(0.15) == std::vector<double>{20, 11});
    CHECK(windows(0.249) == std::vector<double>{20, 11});
    CHECK(windows(0.25) == std::vector<double>{20, 31});
    CHECK(windows(0.35) == std::vector<double>{40, 31});
    CHECK(windows(1.0) == std::vector<double>{0, 0});
    CHECK(windows(0.01) == std::vector<double>{10, 11});  // nothing cheaper was measured
    const AttentionPlan plan = planForDensity(model, heads, 0.25);
    CHECK(plan.evidence[0].value == Approx(0.25));
    CHECK(plan.evidence[1].value == Approx(0.85));
}

namespace {

/// One call of a planned layer, as the model makes it.
std::vector<float> runPlanned(const AttentionPlan& plan, const RandomLayer& layer, PlanUse* use) {
    const auto backend = kernels::makeReference();
    const auto& p = layer.problem;
    std::vector<float> o(std::size_t(p.Hq * p.Nq * p.dv), NAN);
    LayerCall call;
    call.layer = 1;
    call.problem = p;
    call.q = layer.viewQ();
    call.k = layer.viewK();
    call.v = layer.viewV();
    call.o = {o.data(), kernels::DType::F32, Index(o.size()), p.Nq * p.dv, p.dv};
    plannedAttention(plan, *backend, use)(call);
    return o;
}

/// The same by the definition: softmax over the kept keys in float64.
double maxError(const RandomLayer& layer, const std::vector<float>& o, Index head,
                const kernels::Policy& policy) {
    const auto& p = layer.problem;
    const auto mask = tokenMask(policy, p.oneHead(head));
    const auto a = layer.attention(head);
    double worst = 0;
    for (Index i = 0; i < p.Nq; ++i) {
        double kept = 0;
        for (Index j = 0; j < p.Nk; ++j)
            kept += mask[std::size_t(i * p.Nk + j)] ? a[std::size_t(i * p.Nk + j)] : 0;
        for (Index c = 0; c < p.dv; ++c) {
            double sum = 0;
            for (Index j = 0; j < p.Nk; ++j)
                if (mask[std::size_t(i * p.Nk + j)])
                    sum += a[std::size_t(i * p.Nk + j)] *
                           double(layer.v[std::size_t((p.kvHead(head) * p.Nk + j) * p.dv + c)]);
            const double got = double(o[std::size_t((head * p.Nq + i) * p.dv + c)]);
            worst = std::max(worst, std::abs(got - (kept > 0 ? sum / kept : 0)));
        }
    }
    return worst;
}

AttentionPlan mixedPlan() {
    AttentionPlan plan =
        uniformPlan(planModel(config(2, 4, 2)), parseMethod("a-shape:sink=3,window=9"));
    const auto rule = [&](Index head, const char* method) {
        plan.rules.push_back({{1}, {head}, {}, {}, {}, {}, completed(parseMethod(method)), {}, {}});
    };
    rule(1, "dense");
    rule(2, "vertical-slash:vertical=40,slash=60,keep_sink=2,keep_local=5,last_q=8");
    rule(3, "antidiagonal:stride=8,threshold=0.5,block=64");
    return plan;
}

}  // namespace

TEST_CASE("plan: every head runs its own mask, token-exact", "[plan]") {
    const Index n = GENERATE(1, 70, 200);
    const RandomLayer layer(4, 2, n, n, 16, 7, 2.0f);
    const AttentionPlan plan = mixedPlan();
    PlanUse use;
    const auto o = runPlanned(plan, layer, &use);
    const auto backend = kernels::makeReference();
    for (Index h = 0; h < 4; ++h) {
        CAPTURE(n, h);
        HeadInput input = layer.head(h, *backend);
        input.layer = 1;
        const auto policy = makePolicy(plan.at(1, h, Phase::Prefill, n))->select(input);
        CHECK(maxError(layer, o, h, policy) < 2e-5);
    }
    CHECK(use.heads == 4);
    CHECK(use.density() <= 1.0);
    CHECK(use.density() > 0.0);
    CHECK(use.notes.empty());
}

TEST_CASE("plan: decode rows are masked too, or dense with a note", "[plan]") {
    const RandomLayer layer(4, 2, 1, 150, 16, 9, 2.0f);
    AttentionPlan plan = mixedPlan();
    PlanUse use;
    const auto o = runPlanned(plan, layer, &use);
    CHECK(maxError(layer, o, 0, kernels::Streaming{3, 9}) < 2e-5);
    CHECK(maxError(layer, o, 0, kernels::Dense{}) > 1e-3);
    for (Index h = 1; h < 4; ++h) CHECK(maxError(layer, o, h, kernels::Dense{}) < 2e-5);
    CHECK(use.heads == 0);
    REQUIRE(use.notes.size() == 2);
    CHECK(use.notes[0] == "vertical-slash has no rule for decode rows: dense there");
    CHECK(use.notes[1] == "antidiagonal has no rule for decode rows: dense there");

    plan.phases = {Phase::Prefill};
    const auto dense = runPlanned(plan, layer, nullptr);
    for (Index h = 0; h < 4; ++h) CHECK(maxError(layer, dense, h, kernels::Dense{}) < 2e-5);
}

TEST_CASE("plan: an a-shape that drops most of the triangle costs less", "[plan]") {
    const RandomLayer layer(4, 2, 900, 900, 8, 3);
    PlanUse dense, sparse;
    const PlanModel model = planModel(config(2, 4, 2));
    runPlanned(uniformPlan(model, {"dense", {}}), layer, &dense);
    runPlanned(uniformPlan(model, parseMethod("a-shape:sink=4,window=64")), layer, &sparse);
    CHECK(dense.density() == Approx(1.0));
    CHECK(sparse.density() < 0.6);
}
