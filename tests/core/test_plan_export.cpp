#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include "core/export/plan_export.h"
#include "tests/core/plan_cases.h"

using namespace sparsight;
using namespace plan_cases;
using Catch::Matchers::Contains;
using nlohmann::json;

namespace {

/// The plan of the sample's story: every head streams, L6H5 alone is dense.
AttentionPlan story() {
    return uniformPlan(planModel(config(8, 8, 2)),
                       parseMethod("retrieval-heads:heads=6.5,sink=4,window=256"));
}

AttentionPlan prefillOnly(AttentionPlan plan) {
    plan.phases = {Phase::Prefill};
    return plan;
}

}  // namespace

TEST_CASE("export: the targets and their names", "[export]") {
    REQUIRE(exportTargets().size() == 3);
    Folder folder;
    CHECK_THAT(
        errorOf(Errc::NotFound, [&] { exportPlan(story(), "minferense", folder.path / "x"); }),
        Contains("did you mean minference"));
    CHECK_THAT(errorOf(Errc::Io, [&] { exportPlan(story(), "csv", folder.path / "no" / "x.csv"); }),
               Contains("x.csv"));
}

// What the loader reads (minference_forward.py): a list, per layer an object of head numbers as
// texts, per head [type, size, size, score].
TEST_CASE("export: MInference's form, entry by entry", "[export]") {
    Folder folder;
    AttentionPlan plan = story();
    plan.maxPlanLength = 32768;
    plan.rules.push_back({{0},
                          {1},
                          {},
                          {},
                          {},
                          {},
                          completed(parseMethod("vertical-slash:vertical=100,slash=800")),
                          0.93,
                          {}});
    const ExportResult result = exportPlan(plan, "minference", folder.path / "m.json");
    const json file = json::parse(folder.read("m.json"));
    REQUIRE(file.size() == 8);
    for (const json& layer : file) {
        REQUIRE(layer.size() == 8);
        for (int h = 0; h < 8; ++h) {
            const json& entry = layer.at(std::to_string(h));
            REQUIRE(entry.size() == 4);
            CHECK(entry[1].is_number_integer());
            CHECK(entry[2].is_number_integer());
        }
    }
    CHECK(file[0]["0"] == json::parse(R"(["stream_llm", 4, 256, 1.0])"));
    CHECK(file[0]["1"] == json::parse(R"(["vertical_and_slash", 100, 800, 0.93])"));
    CHECK(file[6]["5"] == json::parse(R"(["vertical_and_slash", 32768, 32768, 1.0])"));
    REQUIRE(result.files.size() == 3);
    CHECK(std::filesystem::exists(folder.path / "m.plan.json"));
    CHECK_THAT(folder.read("m.LOSS.md"), Contains("in decode rows MInference is dense"));
    REQUIRE(result.losses.size() == 1);
    CHECK_THAT(result.losses[0], Contains("a-shape:sink=4,window=256") && Contains("L0H0"));
}

TEST_CASE("export: the story's plan comes back from MInference's form, head by head", "[export]") {
    Folder folder;
    const AttentionPlan plan = story();
    const ModelConfig model = config(8, 8, 2);
    exportPlan(plan, "minference", folder.path / "m.json");
    const AttentionPlan back = importPlan(folder.path / "m.json", model);
    CHECK(tableOf(back) == tableOf(plan));
    CHECK(back.at(6, 5, Phase::Prefill, 2048).id == "dense");
    CHECK(back.at(6, 5, Phase::Decode, 2048).id == "dense");
    CHECK(back.parentUuid == plan.uuid);
    CHECK(toString(back.base) == "a-shape:sink=4,window=256");
    CHECK(canonicalJson(parsePlan(toJson(back))) == canonicalJson(back));

    SECTION("the file alone speaks of the prefill only: MInference is dense in decode rows") {
        std::filesystem::remove(folder.path / "m.plan.json");
        const AttentionPlan alone = importPlan(folder.path / "m.json", model);
        CHECK(alone.phases == std::vector{Phase::Prefill});
        CHECK(tableOf(alone, {Phase::Prefill}) == tableOf(plan, {Phase::Prefill}));
        CHECK(alone.at(0, 0, Phase::Decode, 2048).id == "dense");
    }
    SECTION("an edited file wins over the plan that stands beside it") {
        std::string text = folder.read("m.json");
        text.replace(text.find("256"), 3, "128");
        folder.write("m.json", text);
        const AttentionPlan edited = importPlan(folder.path / "m.json", model);
        CHECK(toString(edited.at(0, 0, Phase::Prefill, 2048)) == "a-shape:sink=4,window=128");
        CHECK(edited.phases == std::vector{Phase::Prefill});
    }
    SECTION("a damaged plan beside it changes nothing") {
        folder.write("m.plan.json", "{");
        CHECK(importPlan(folder.path / "m.json", model).phases == std::vector{Phase::Prefill});
    }
}

TEST_CASE("export: MInference cannot say blocks or other selections", "[export]") {
    Folder folder;
    const auto method = GENERATE(as<std::string>{}, "antidiagonal", "oracle-blocks",
                                 "vertical-slash:vertical=50,slash=60,last_q=32");
    const AttentionPlan plan = uniformPlan(planModel(config(2, 4, 2)), parseMethod(method));
    const std::string says =
        errorOf(Errc::Unsupported, [&] { exportPlan(plan, "minference", folder.path / "m.json"); });
    CHECK_THAT(says, Contains("all heads") && Contains(method.substr(0, 8)));
    CHECK(std::filesystem::is_empty(folder.path));  // a refusal writes nothing

    const ExportResult result = exportPlan(plan, "minference", folder.path / "m.json", true);
    CHECK_FALSE(result.losses.empty());
    CHECK_THAT(folder.read("m.LOSS.md"), Contains("Other mask"));
    const AttentionPlan back = importPlan(folder.path / "m.json", config(2, 4, 2));
    CHECK(back.base.id == (method.starts_with("vertical") ? "vertical-slash" : "dense"));
}

TEST_CASE("export: rules by length are named as lost", "[export]") {
    Folder folder;
    AttentionPlan plan = story();
    plan.rules[0].minLength = 1000;
    for (const char* target : {"minference", "csv"})
        CHECK_THAT(errorOf(Errc::Unsupported, [&] { exportPlan(plan, target, folder.path / "x"); }),
                   Contains("length"));
}

TEST_CASE("import: MInference files by the loader's rules", "[export]") {
    Folder folder;
    const ModelConfig model = config(2, 2, 1);
    const auto import = [&](const std::string& text) {
        return importPlan(folder.write("m.json", text), model);
    };
    // Head 1 of layer 1 is left out: the loader's default pair.
    const AttentionPlan plan = import(
        R"([{"0":["vertical_and_slash",1000,6096,0.93],"1":["stream_llm",128,1024,0.99]},
            {"0":["vertical_and_slash",4096,5000,1]}])");
    CHECK(plan.phases == std::vector{Phase::Prefill});
    CHECK(toString(plan.at(0, 1, Phase::Prefill, 9)) == "a-shape:sink=128,window=1024");
    CHECK(plan.at(1, 0, Phase::Prefill, 9).id == "dense");
    const MethodSpec standard = completed(parseMethod("vertical-slash:vertical=1000,slash=6096"));
    CHECK(plan.at(0, 0, Phase::Prefill, 9) == standard);
    CHECK(plan.at(1, 1, Phase::Prefill, 9) == standard);
    bool scored = false;
    for (const auto& rule : plan.rules) scored = scored || rule.score == 0.93;
    CHECK(scored);

    struct Case {
        const char *text, *says;
    };
    const Case c = GENERATE(
        Case{"[]", "0 layers"}, Case{"[{},{},{}]", "3 layers"}, Case{"[{},1]", "layer 1 should be"},
        Case{R"([{},{"2":["stream_llm",1,1,1]}])", "names head '2'"},
        Case{R"([{},{"x":["stream_llm",1,1,1]}])", "names head 'x'"},
        Case{R"([{},{"01":["stream_llm",1,1,1]}])", "names head '01'"},
        Case{R"([{},{"0":["stream_llm",1,1]}])", "layer 1, head 0 should be a list of four"},
        Case{R"([{},{"0":["stream_lm",1,1,1]}])", "did you mean stream_llm"},
        Case{R"([{},{"0":["stream_llm",-1,1,1]}])", "first size"},
        Case{R"([{},{"0":["stream_llm",1,1.5,1]}])", "second size"},
        Case{R"([{},{"0":["stream_llm",1,0,1]}])", "window"},
        Case{R"([{},{"0":["stream_llm",1,1,"x"]}])", "score"},
        Case{R"([{},{"0":["stream_llm",1,1,1],"0":["stream_llm",1,1,1]}])", "m.json"},
        Case{"[{},", "m.json"});
    CAPTURE(c.text);
    CHECK_THAT(errorOf(Errc::Format, [&] { import(c.text); }), Contains(c.says));
}

TEST_CASE("import: block_sparse is not offered", "[export]") {
    Folder folder;
    folder.write("m.json", R"([{"0":["block_sparse",1000,1000,0.5]}])");
    CHECK_THAT(
        errorOf(Errc::Unsupported, [&] { importPlan(folder.path / "m.json", config(1, 1, 1)); }),
        Contains("block_sparse") && Contains("layer 0, head 0"));
}

// KV heads of two query heads each. The gates are 0 or 1 and the sparsity is the share of zeros,
// so that the loader's cut selects exactly the ones.
TEST_CASE("export: DuoAttention's folder", "[export]") {
    Folder folder;
    AttentionPlan plan =
        uniformPlan(planModel(config(2, 4, 2)),
                    parseMethod("retrieval-heads:heads=0.0+0.1+1.2+1.3,sink=64,window=257"));
    const ExportResult result = exportPlan(plan, "duoattention", folder.path / "duo");
    CHECK(folder.read("duo/full_attention_heads.tsv") == "1.0\t0.0\n0.0\t1.0\n");
    const json file = json::parse(folder.read("duo/config.json"));
    CHECK(file["sink_size"] == 64);
    CHECK(file["recent_size"] == 256);  // a cache length: the query itself is not in it
    CHECK(file["sparsity"] == 0.5);
    CHECK_THAT(folder.read("duo/USE.md"), Contains("sparsity=0.5"));
    CHECK_THAT(result.losses.at(0), Contains("prefilled dense"));
    const ModelConfig model = config(2, 4, 2);
    CHECK(tableOf(importPlan(folder.path / "duo", model)) == tableOf(plan));

    std::filesystem::remove(folder.path / "duo" / "plan.json");
    const AttentionPlan alone = importPlan(folder.path / "duo", model);
    CHECK(alone.phases == std::vector{Phase::Decode});
    CHECK(tableOf(alone, {Phase::Decode}) == tableOf(plan, {Phase::Decode}));
    CHECK(tableOf(importPlan(folder.path / "duo" / "full_attention_heads.tsv", model)) ==
          tableOf(alone));
}

TEST_CASE("export: DuoAttention knows no query heads, no second size, no other method",
          "[export]") {
    Folder folder;
    const auto refuse = [&](const AttentionPlan& plan) {
        return errorOf(Errc::Unsupported,
                       [&] { exportPlan(plan, "duoattention", folder.path / "duo"); });
    };
    CHECK_THAT(refuse(story()), Contains("L6H4, L6H6, L6H7") && Contains("dense"));
    CHECK_THAT(refuse(uniformPlan(planModel(config(2, 4, 2)), parseMethod("vertical-slash"))),
               Contains("all heads") && Contains("vertical-slash"));
    AttentionPlan sizes =
        uniformPlan(planModel(config(2, 4, 2)), parseMethod("a-shape:sink=4,window=256"));
    sizes.rules.push_back({{1}, {}, {1}, {}, {}, {}, aShape(4, 128), {}, {}});
    CHECK_THAT(refuse(sizes), Contains("L1H2, L1H3") && Contains("window=128"));
    CHECK_THAT(refuse(uniformPlan(planModel(config(1, 4, 2)), parseMethod("a-shape"))),
               Contains("one-dimensional"));
    CHECK(std::filesystem::is_empty(folder.path));

    exportPlan(story(), "duoattention", folder.path / "duo", true);
    const AttentionPlan back = importPlan(folder.path / "duo", config(8, 8, 2));
    for (Index h = 0; h < 8; ++h)
        CHECK((back.at(6, h, Phase::Decode, 9).id == "dense") == (h >= 4));
    CHECK(back.at(5, 5, Phase::Decode, 9).id == "a-shape");
}

TEST_CASE("import: DuoAttention folders that do not fit", "[export]") {
    Folder folder;
    const ModelConfig model = config(2, 4, 2);
    std::filesystem::create_directories(folder.path / "d");
    CHECK_THAT(errorOf(Errc::Format, [&] { importPlan(folder.path / "d", model); }),
               Contains("without full_attention_heads.tsv"));
    folder.write("d/full_attention_heads.tsv", "9.5e-01\t0.0e+00\n1.0e+00\t3.1e-01\n");
    errorOf(Errc::NotFound, [&] { importPlan(folder.path / "d", model); });
    folder.write("d/config.json", R"({"sink_size": 128})");
    CHECK_THAT(errorOf(Errc::Format, [&] { importPlan(folder.path / "d", model); }),
               Contains("recent_size is missing"));
    folder.write("d/config.json", R"({"sink_size": 128, "recent_size": 256})");
    const AttentionPlan plan = importPlan(folder.path / "d", model);
    CHECK(plan.at(0, 1, Phase::Decode, 9).id == "dense");
    CHECK(toString(plan.at(0, 2, Phase::Decode, 9)) == "a-shape:sink=128,window=257");
    CHECK(toString(plan.at(1, 3, Phase::Decode, 9)) == "a-shape:sink=128,window=257");
    CHECK_THAT(errorOf(Errc::Format, [&] { importPlan(folder.path / "d", config(3, 4, 2)); }),
               Contains("2 layers") && Contains("3 of 2"));
}

TEST_CASE("export: the CSV says everything but lengths", "[export]") {
    Folder folder;
    AttentionPlan plan =
        uniformPlan(planModel(config(2, 2, 1)), parseMethod("a-shape:sink=4,window=256"));
    plan.rules.push_back(
        {{1}, {0}, {}, {}, {}, {}, completed(parseMethod("antidiagonal:threshold=0.85")), {}, {}});
    plan.rules.push_back({{0}, {1}, {}, {}, {}, {}, {"dense", {}}, {}, {}});
    exportPlan(plan, "csv", folder.path / "t.csv");
    CHECK(folder.read("t.csv") ==
          "layer,head,method,params\n"
          "0,0,a-shape,\"sink=4,window=256\"\n"
          "0,1,dense,\n"
          "1,0,antidiagonal,\"stride=8,threshold=0.85,block=128,released=0\"\n"
          "1,1,a-shape,\"sink=4,window=256\"\n");
    CHECK_FALSE(std::filesystem::exists(folder.path / "t.LOSS.md"));
    CHECK(tableOf(importPlan(folder.path / "t.csv", config(2, 2, 1))) == tableOf(plan));

    exportPlan(prefillOnly(plan), "csv", folder.path / "p.csv");
    CHECK_THAT(folder.read("p.csv"),
               Contains("decode_method") && Contains("0,0,a-shape,\"sink=4,window=256\",dense,\n"));
    CHECK(tableOf(importPlan(folder.path / "p.csv", config(2, 2, 1))) ==
          tableOf(prefillOnly(plan)));
}

TEST_CASE("import: CSV errors name the line", "[export]") {
    Folder folder;
    struct Case {
        const char *rows, *says;
    };
    const Case c = GENERATE(
        Case{"0,0,dense,\n", "layer 0, head 1 has no line"},
        Case{"0,0,dense,\n0,0,dense,\n", "line 3: layer 0, head 0 comes twice"},
        Case{"0,2,dense,\n", "line 2: head is '2', expected 0..1"},
        Case{"0,0,dense\n", "line 2: 3 fields, expected 4"},
        Case{"0,0,a-shape,sink=4,window=8\n", "put params with commas in quotes"},
        Case{"0,0,ashape,\n", "did you mean 'a-shape'"}, Case{"0,0,a-shape,windw=3\n", "line 2: "},
        Case{"0,0,retrieval-heads,\n", "line 2: "});
    CAPTURE(c.rows);
    folder.write("t.csv", std::string("layer,head,method,params\n") + c.rows);
    CHECK_THAT(errorOf(Errc::Format, [&] { importPlan(folder.path / "t.csv", config(1, 2, 1)); }),
               Contains("t.csv") && Contains(c.says));
}

TEST_CASE("import: a Sparsight plan is read as it is, other files are refused", "[export]") {
    Folder folder;
    writePlan(story(), folder.path / "p.json");
    CHECK(tableOf(importPlan(folder.path / "p.json", config(8, 8, 2))) == tableOf(story()));
    errorOf(Errc::Shape, [&] { importPlan(folder.path / "p.json", config(4, 8, 2)); });
    folder.write("x.bin", "GIF89a");
    CHECK_THAT(errorOf(Errc::Format, [&] { importPlan(folder.path / "x.bin", config(1, 1, 1)); }),
               Contains("none of the forms"));
    folder.write("empty", "");
    errorOf(Errc::Format, [&] { importPlan(folder.path / "empty", config(1, 1, 1)); });
    errorOf(Errc::NotFound, [&] { importPlan(folder.path / "gone", config(1, 1, 1)); });
}
