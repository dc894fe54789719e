// Plans: made, exported, read back, and put to the model.
#include <catch2/catch.hpp>

#include "tests/cli/cli.h"

using namespace cli_test;

TEST_CASE("curve, plan, export and import go round", "[cli]") {
    const Scratch scratch;
    const Json curves =
        good("curve --json --layer 6 --head 5 --points 4 --methods a-shape:sink=4,oracle-blocks " +
             needleSession())
            .json();
    REQUIRE(curves.size() == 2);
    for (const Json& c : curves) {
        double last = 0;
        for (const Json& p : c["points"]) {
            CHECK(p["density"].get<double>() >= last);
            last = p["density"].get<double>();
        }
        CHECK(c["points"].size() >= 2);
    }

    const std::string plan = scratch / "plan.json", config = scratch / "mi.json",
                      back = scratch / "back.json";
    good("plan --model bookworm --uniform retrieval-heads:heads=6.5+7.6,sink=4,window=256 -o " +
         plan);
    good("export " + plan + " --to minference -o " + config);
    good("import " + config + " --model bookworm -o " + back);
    good("export " + plan + " --to csv -o " + (scratch / "a.csv"));
    good("export " + back + " --to csv -o " + (scratch / "b.csv"));
    CHECK(slurp(scratch / "a.csv") == slurp(scratch / "b.csv"));
    const Json mi = Json::parse(slurp(config));
    REQUIRE(mi.size() == 8);
    CHECK(mi[0]["0"][0] == "stream_llm");
    CHECK(mi[0]["0"][1] == 4);
    CHECK(mi[0]["0"][2] == 256);
    CHECK(mi[6]["5"][0] == "vertical_and_slash");

    const std::string searched = scratch / "searched.json";
    good("plan " + needleSession() +
         " --recall 0.9 --points 5 --methods a-shape:sink=4,oracle-blocks -o " + searched);
    CHECK(Json::parse(slurp(searched))["format"] == "sparsight-plan");
}

TEST_CASE("generate and eval under a plan", "[cli]") {
    const Scratch scratch;
    const std::string plan = scratch / "plan.json";
    good("plan --model bookworm --uniform dense -o " + plan);
    const Json e =
        good("eval bookworm --json --plan " + plan + " --probe niah:tokens=500,seed=2").json();
    CHECK(e["meanKL"].get<double>() == Approx(0).margin(1e-7));
    CHECK(e["top1Agreement"].get<double>() == Approx(1));
    CHECK(e["needleDense"] == true);
    CHECK(e["needlePlan"] == true);
    CHECK(e["nllDense"].get<double>() == Approx(e["nllPlan"].get<double>()));

    spill(scratch / "p.txt", "It was the best of times");
    const Json g =
        good("generate bookworm --json --max-new 4 --text " + (scratch / "p.txt")).json();
    CHECK(g["ids"].size() == 4);
    const Json planned = good("generate bookworm --json --max-new 4 --plan " + plan + " --text " +
                              (scratch / "p.txt"))
                             .json();
    CHECK(planned["ids"] == g["ids"]);
    CHECK(planned["text"] == g["text"]);
}

TEST_CASE("plans: by density, by the capture's scores, through CSV and DuoAttention", "[cli]") {
    const Scratch scratch;
    const std::string dense = scratch / "d.json", scored = scratch / "s.json",
                      back = scratch / "b.json";
    const Json byDensity = good("plan --json " + needleSession() +
                                " --density 0.3 --points 4 --methods a-shape:sink=4 -o " + dense)
                               .json();
    CHECK(byDensity["plan"] == dense);
    Json::number_integer_t heads = 0;
    for (const auto& [id, count] : byDensity["heads"].items())
        heads += count.get<Json::number_integer_t>();
    CHECK(heads == 64);

    good("plan " + needleSession() + " --uniform retrieval-heads:sink=4,window=256 -o " + scored);
    good("export " + scored + " --to csv -o " + (scratch / "s.csv"));
    good("import " + (scratch / "s.csv") + " --model bookworm -o " + back);
    good("export " + back + " --to csv -o " + (scratch / "b.csv"));
    CHECK(slurp(scratch / "s.csv") == slurp(scratch / "b.csv"));
    CHECK_THAT(slurp(scratch / "s.csv"), Catch::Contains("6,5,"));

    // Both query heads of KV head 2 are dense, so the pattern of KV heads says the same.
    const std::string pair = scratch / "pair.json";
    good("plan --model bookworm --uniform retrieval-heads:heads=6.4+6.5,sink=4,window=256 -o " +
         pair);
    const Result duo = sparsight("export --json " + pair + " --to duoattention --allow-loss -o " +
                                 (scratch / "duo"));
    INFO(duo.err);
    REQUIRE(duo.status == 0);
    good("import " + (scratch / "duo") + " --model bookworm -o " + back);
    CHECK(Json::parse(slurp(back))["format"] == "sparsight-plan");
}

TEST_CASE("streaming everywhere loses the answer, one dense head brings it back", "[cli]") {
    const Scratch scratch;
    const std::string streaming = scratch / "streaming.json", one = scratch / "one.json";
    const std::string probe = " --probe niah:tokens=1500,depth=0.35,seed=1";
    good("plan --model bookworm --uniform a-shape:sink=4,window=256 -o " + streaming);
    good("plan --model bookworm --uniform retrieval-heads:heads=6.5,sink=4,window=256 -o " + one);
    const Json lost = good("eval bookworm --json --plan " + streaming + probe).json();
    CHECK(lost["needleDense"] == true);
    CHECK(lost["needlePlan"] == false);
    CHECK(lost["density"].get<double>() < 0.6);
    CHECK(lost["meanKL"].get<double>() > 0);
    const Json found = good("eval bookworm --json --plan " + one + probe).json();
    CHECK(found["needlePlan"] == true);
    CHECK(found["density"].get<double>() > lost["density"].get<double>());

    // On plain text there is no needle to ask for.
    spill(scratch / "t.txt", "It was the best of times, it was the worst of times.");
    const Json text =
        good("eval bookworm --json --plan " + streaming + " --text " + (scratch / "t.txt")).json();
    CHECK(text["needleDense"].is_null());
    CHECK(text["needlePlan"].is_null());
}
