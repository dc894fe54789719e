#include <catch2/catch.hpp>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/model/config.h"
#include "core/model/nearest.h"
#include "core/model/rope.h"
#include "kernels/base/error.h"

using namespace sparsight;
using nlohmann::json;
namespace fs = std::filesystem;

namespace {

const fs::path kModels = fs::path(SPARSIGHT_TEST_DATA) / "models";

json readJson(const fs::path& file) {
    std::ifstream in(file);
    REQUIRE(in);
    return json::parse(in);
}

/// readConfig of a folder with this config.json (as text, so that it may be wrong).
ModelConfig read(const std::string& text, const std::string& generation = "") {
    std::string name = (fs::temp_directory_path() / "sparsight_cfg_XXXXXX").string();
    REQUIRE(mkdtemp(name.data()) != nullptr);
    std::ofstream(fs::path(name) / "config.json") << text;
    if (!generation.empty()) std::ofstream(fs::path(name) / "generation_config.json") << generation;
    struct Remove {
        fs::path path;
        ~Remove() { fs::remove_all(path); }
    } remove{name};
    return readConfig(name);
}
ModelConfig read(const json& j) {
    return read(j.dump());
}

json llama() {
    json j = readJson(kModels / "llama" / "config.json");
    j.erase("rope_parameters");
    return j;
}

std::string message(const json& j, Errc expected) {
    try {
        read(j);
    } catch (const Error& e) {
        CHECK(e.code() == expected);
        return e.what();
    }
    return "no error";
}

bool hasNote(const ModelConfig& c, const std::string& part) {
    for (const std::string& note : c.notes)
        if (note.find(part) != std::string::npos) return true;
    return false;
}

}  // namespace

TEST_CASE("v4 and v5 spellings say the same", "[config]") {
    const std::string model = GENERATE("llama", "llama_linear");
    const ModelConfig a = read(readJson(kModels / model / "config.json"));
    const ModelConfig b = read(readJson(kModels / model / "config_v4.json"));
    CHECK(a.layers == b.layers);
    CHECK(a.heads == 4);
    CHECK(a.kvHeads == b.kvHeads);
    CHECK(a.headDim == 16);
    CHECK(b.headDim == 16);
    CHECK(a.dtype == "float32");
    CHECK(b.dtype == "float32");
    CHECK(a.rope.kind == (model == "llama" ? "llama3" : "linear"));
    CHECK(a.rope.kind == b.rope.kind);
    CHECK(a.rope.theta == b.rope.theta);
    CHECK(a.rope.factor == (model == "llama" ? 8.0 : 4.0));
    CHECK(a.rope.factor == b.rope.factor);
    CHECK(a.rope.originalMaxPositions == b.rope.originalMaxPositions);
    CHECK(a.tiedEmbeddings == (model == "llama_linear"));
    CHECK(ropeTable(a.rope, 16, 130).inverseFrequency ==
          ropeTable(b.rope, 16, 130).inverseFrequency);
}

TEST_CASE("the sample model", "[config]") {
    const ModelInfo m = modelInfo(resolveModel("bookworm"));
    CHECK(m.config.name == "bookworm");
    CHECK(m.config.arch == "llama");
    CHECK(m.config.layers == 8);
    CHECK(m.config.heads == 8);
    CHECK(m.config.kvHeads == 4);
    CHECK(m.config.kvGroup() == 2);
    CHECK(m.config.headDim == 64);
    CHECK(m.config.scale() == 0.125);
    CHECK(m.config.maxPositions == 32768);
    CHECK(m.config.dtype == "bfloat16");
    CHECK(m.config.rope.kind == "default");
    CHECK(m.config.rope.theta == 100000.0);
    CHECK(m.config.tiedEmbeddings);
    CHECK(m.config.eosTokens == std::vector<std::int32_t>{1});
    CHECK(m.config.sha256.size() == 64);
    // Counted by hand: embedding + 8 * (q, o 256x512; k, v 256x256; 3 MLP 256x704; 2 norms) + norm
    CHECK(m.parameters ==
          4096 * 256 + 8 * (2 * 256 * 512 + 2 * 256 * 256 + 3 * 256 * 704 + 512) + 256);
    CHECK(m.bytes == Index(fs::file_size(resolveModel("bookworm") / "model.safetensors")));
    CHECK(m.tokenizer == "byte-level BPE, 4096 tokens");
}

TEST_CASE("missing keys take the class defaults and say so", "[config]") {
    const ModelConfig c = read(json{{"model_type", "llama"}});
    CHECK(c.vocab == 32000);
    CHECK(c.hidden == 4096);
    CHECK(c.heads == 32);
    CHECK(c.kvHeads == 32);
    CHECK(c.headDim == 128);
    CHECK(c.maxPositions == 2048);
    CHECK(c.normEps == 1e-6);
    CHECK(c.rope.theta == 10000.0);
    CHECK(c.activation == "silu");
    CHECK_FALSE(c.tiedEmbeddings);
    CHECK(hasNote(c, "rms_norm_eps"));
    json j = llama();
    j["num_key_value_heads"] = nullptr;  // null means the rule, not the default
    j["head_dim"] = nullptr;
    CHECK(read(j).kvHeads == 4);
    CHECK(read(j).headDim == 16);
}

TEST_CASE("numbers and ids as real files spell them", "[config]") {
    json j = llama();
    j["hidden_size"] = 64.0;
    j["eos_token_id"] = {389, -1, 5000};
    j["my_key"] = 1;
    j["sliding_window"] = 16;
    const ModelConfig c = read(j);
    CHECK(c.hidden == 64);
    CHECK(c.eosTokens == std::vector<std::int32_t>{389});
    CHECK(hasNote(c, "5000"));
    CHECK(hasNote(c, "my_key"));
    CHECK(hasNote(c, "sliding_window"));
    j["eos_token_id"] = nullptr;
    CHECK(read(j).eosTokens.empty());
    CHECK(read(j.dump(), R"({"eos_token_id":[3,4]})").eosTokens == std::vector<std::int32_t>{3, 4});
    j["hidden_act"] = "swish";
    CHECK(read(j).activation == "silu");
    j["torch_dtype"] = "float16";
    j["dtype"] = "bfloat16";
    CHECK(read(j).dtype == "bfloat16");
    std::string loose = j.dump();
    loose.insert(1, R"("x":Infinity,"y":[-Infinity,NaN],"z":"Infinity \" NaN",)");
    CHECK(read(loose).hidden == 64);
}

TEST_CASE("a non-null rope_scaling replaces rope_parameters", "[config]") {
    json j = llama();
    j["rope_parameters"] = {{"rope_type", "default"}, {"rope_theta", 5.0}};
    j["rope_theta"] = 7.0;
    CHECK(read(j).rope.theta == 5.0);
    j["rope_scaling"] = {{"type", "dynamic"}, {"factor", 2}};
    CHECK(read(j).rope.kind == "dynamic");
    CHECK(read(j).rope.theta == 7.0);
    j["rope_scaling"] = {{"type", "su"},
                         {"short_factor", std::vector<int>(8, 1)},
                         {"long_factor", std::vector<int>(8, 2)},
                         {"original_max_position_embeddings", 64}};
    CHECK(read(j).rope.kind == "longrope");
}

TEST_CASE("what cannot be run is refused by name", "[config]") {
    using Catch::Contains;
    CHECK_THAT(
        message({{"model_type", "lama"}}, Errc::Unsupported),
        Contains("\"lama\"") && Contains("supported: llama") && Contains("did you mean llama?"));
    CHECK_THAT(message({{"a", 1}}, Errc::Unsupported),
               Contains("no model_type") && Contains("llama"));
    const auto with = [](const char* key, const json& value, Errc code) {
        json j = llama();
        j[key] = value;
        return message(j, code);
    };
    CHECK_THAT(with("quantization_config", {{"quant_method", "gptq"}}, Errc::Unsupported),
               Contains("gptq"));
    CHECK_THAT(with("hidden_act", "sulu", Errc::Unsupported),
               Contains("sulu") && Contains("did you mean silu"));
    CHECK_THAT(with("rope_scaling", {{"rope_type", "yarrn"}, {"factor", 2}}, Errc::Unsupported),
               Contains("yarrn") && Contains("did you mean yarn"));
    CHECK_THAT(
        with("rope_parameters", {{"full_attention", {{"rope_theta", 1.0}}}}, Errc::Unsupported),
        Contains("full_attention"));
    CHECK_THAT(with("layer_types", {"full_attention", "linear_attention"}, Errc::Unsupported),
               Contains("layer 1") && Contains("linear_attention"));
    CHECK_THAT(with("per_layer_config", {{"0", {{"x", 1}}}}, Errc::Unsupported),
               Contains("per_layer_config"));
}

TEST_CASE("impossible values are errors that name the key", "[config]") {
    using Catch::Contains;
    const auto with = [](const char* key, const json& value) {
        json j = llama();
        j[key] = value;
        return message(j, Errc::Format);
    };
    const char* counts[] = {"vocab_size",
                            "hidden_size",
                            "intermediate_size",
                            "num_hidden_layers",
                            "num_attention_heads",
                            "num_key_value_heads",
                            "head_dim",
                            "max_position_embeddings"};
    for (const char* key : counts)
        for (const json& value :
             {json(0), json(-1), json(1.5), json("4"), json(1e300), json::array()})
            CHECK_THAT(with(key, value), Contains(key));
    CHECK_THAT(with("num_key_value_heads", 3), Contains("must divide"));
    CHECK_THAT(with("num_hidden_layers", 100000), Contains("num_hidden_layers"));
    CHECK_THAT(with("head_dim", 15), Contains("head_dim"));
    CHECK_THAT(with("rms_norm_eps", 0), Contains("rms_norm_eps"));
    CHECK_THAT(with("attention_bias", "yes"), Contains("attention_bias"));
    CHECK_THAT(with("eos_token_id", "x"), Contains("eos_token_id"));
    CHECK_THAT(with("layer_types", {"full_attention"}), Contains("2 layers"));
    CHECK_THAT(with("rope_scaling", 3), Contains("rope_scaling"));
    CHECK_THAT(with("rope_scaling", {{"rope_type", "linear"}}), Contains("factor"));
    CHECK_THAT(with("rope_scaling", {{"rope_type", "linear"}, {"factor", 0}}), Contains("factor"));
    CHECK_THAT(
        with("rope_scaling", {{"rope_type", "longrope"}, {"factor", 2}, {"short_factor", {1, 2}}}),
        Contains("8"));
    CHECK_THAT(message({{"model_type", 3}}, Errc::Format), Contains("model_type"));
    CHECK_THROWS_WITH(read(std::string("{\"model_type\":\"llama\",\"model_type\":\"llama\"}")),
                      Contains("twice"));
    CHECK_THROWS_WITH(read(std::string("{")), Contains("config.json") && Contains("not JSON"));
    CHECK_THROWS_WITH(read(std::string("[1]")), Contains("object"));
    CHECK_THROWS_WITH(read(std::string(100000, '[')), Contains("deep"));
    CHECK_THROWS_WITH(readConfig("/nonexistent"), Contains("/nonexistent"));
}

TEST_CASE("rope tables, against the formulas in double", "[config]") {
    RopeConfig r;
    r.theta = 10000;
    r.maxPositions = 512;
    const auto near = [](const std::vector<float>& got, const std::vector<double>& want) {
        REQUIRE(got.size() == want.size());
        for (std::size_t k = 0; k < got.size(); ++k) {
            CAPTURE(k);
            CHECK(std::abs(double(got[k]) / want[k] - 1) < 5e-7);
        }
    };
    std::vector<double> plain(8);
    for (std::size_t k = 0; k < 8; ++k) plain[k] = std::pow(10000.0, -2.0 * double(k) / 16);
    near(ropeTable(r, 16, 1).inverseFrequency, plain);
    r.partial = 0.5;
    CHECK(ropeTable(r, 16, 1).inverseFrequency.size() == 4);
    r.partial = 1;

    r.kind = "linear";
    r.factor = 4;
    std::vector<double> want = plain;
    for (double& x : want) x /= 4;
    near(ropeTable(r, 16, 1).inverseFrequency, want);
    CHECK_FALSE(ropeDependsOnLength(r));

    r.kind = "dynamic";
    near(ropeTable(r, 16, 512).inverseFrequency, plain);  // up to P nothing changes
    const double base = 10000 * std::pow(4.0 * 1024 / 512 - 3, 16.0 / 14);
    for (std::size_t k = 0; k < 8; ++k) want[k] = std::pow(base, -2.0 * double(k) / 16);
    near(ropeTable(r, 16, 1024).inverseFrequency, want);
    CHECK(ropeDependsOnLength(r));

    r.kind = "llama3";
    r.factor = 8;
    r.originalMaxPositions = 64;
    want = plain;
    for (double& x : want) {
        const double wave = 2 * M_PI / x;
        if (wave > 64)
            x /= 8;
        else if (wave >= 16) {
            const double s = (64 / wave - 1) / 3;
            x = (1 - s) * x / 8 + s * x;
        }
    }
    near(ropeTable(r, 16, 1).inverseFrequency, want);

    r.kind = "yarn";
    r.factor = 4;
    // c(32) < 0 -> 0; c(1) = 16 ln(64 / 2 pi) / (2 ln 10^4) = 2.015 -> 3: ramp 0, 1/3, 2/3, 1, ...
    want = plain;
    for (std::size_t k = 0; k < 8; ++k) {
        const double ramp = std::min(1.0, double(k) / 3);
        want[k] = plain[k] / 4 * ramp + plain[k] * (1 - ramp);
    }
    near(ropeTable(r, 16, 1).inverseFrequency, want);
    CHECK(ropeTable(r, 16, 1).attentionFactor == Approx(0.1 * std::log(4.0) + 1));
    r.mscale = 1;
    r.mscaleAllDim = 0.5;
    CHECK(ropeTable(r, 16, 1).attentionFactor ==
          Approx((0.1 * std::log(4.0) + 1) / (0.05 * std::log(4.0) + 1)));
    r.attentionFactor = 1.25;
    CHECK(ropeTable(r, 16, 1).attentionFactor == 1.25f);
    r.attentionFactor = 0;

    r.kind = "longrope";
    r.factor = 0;  // P / P0 = 8
    r.shortFactor.assign(8, 1.0);
    r.longFactor = {1, 2, 3, 4, 5, 6, 7, 8};
    near(ropeTable(r, 16, 64).inverseFrequency, plain);
    for (std::size_t k = 0; k < 8; ++k) want[k] = plain[k] / double(k + 1);
    near(ropeTable(r, 16, 65).inverseFrequency, want);
    CHECK(ropeTable(r, 16, 1).attentionFactor ==
          Approx(std::sqrt(1 + std::log(8.0) / std::log(64.0))));
    r.kind = "spiral";
    CHECK_THROWS_WITH(ropeTable(r, 16, 1), Catch::Contains("spiral"));
}

TEST_CASE("models are found by path and by name", "[config]") {
    CHECK(resolveModel(kModels.string()) == kModels);
    CHECK(fs::exists(resolveModel("bookworm") / "config.json"));
    CHECK_THROWS_WITH(resolveModel("bookwurm"), Catch::Contains("bundled: bookworm") &&
                                                    Catch::Contains("did you mean bookworm"));
    CHECK_THROWS_AS(resolveModel(""), Error);
    setenv("SPARSIGHT_RESOURCES", "/nonexistent", 1);
    CHECK_THROWS_WITH(resourcesDirectory(), Catch::Contains("/nonexistent"));
    setenv("SPARSIGHT_RESOURCES", (std::string(SPARSIGHT_SOURCE_DIR) + "/resources").c_str(), 1);
    CHECK(resourcesDirectory() == fs::path(SPARSIGHT_SOURCE_DIR) / "resources");
    unsetenv("SPARSIGHT_RESOURCES");
}

TEST_CASE("the nearest name", "[config]") {
    CHECK(nearestName("a-shap", {"dense", "a-shape"}) == "a-shape");
    CHECK(nearestName("zzzzzz", {"dense", "a-shape"}).empty());
    CHECK(nearestName("", {"dense"}).empty());
}
