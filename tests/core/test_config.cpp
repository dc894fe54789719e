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

namespace {

/// Windows of all layers, "8 8 0".
std::string windows(const ModelConfig& c) {
    std::string text;
    for (const LayerConfig& l : c.layerConfigs)
        text += (text.empty() ? "" : " ") + std::to_string(l.window);
    return text;
}

json of(const char* type, json more = json::object()) {
    json j = {{"model_type", type}, {"num_hidden_layers", 4}};
    j.update(more);
    return j;
}

}  // namespace

TEST_CASE("which layers see a window only", "[config]") {
    // A key that is missing is the class default, null is none.
    CHECK(windows(read(of("mistral"))) == "4096 4096 4096 4096");
    CHECK(windows(read(of("mistral", {{"sliding_window", nullptr}}))) == "0 0 0 0");
    CHECK(windows(read(of("mixtral"))) == "0 0 0 0");
    CHECK(windows(read(of("phi3", {{"sliding_window", 7}}))) == "7 7 7 7");

    const json qwen = {{"sliding_window", 9}, {"max_window_layers", 2}};
    CHECK(windows(read(of("qwen2", qwen))) == "0 0 0 0");
    json used = qwen;
    used["use_sliding_window"] = true;
    CHECK(windows(read(of("qwen2", used))) == "0 0 9 9");
    CHECK(windows(read(of("qwen3", used))) == "0 0 9 9");
    CHECK(windows(read(of("qwen3_moe", used))) == "9 9 9 9");
    used["layer_types"] = {"full_attention", "sliding_attention", "full_attention",
                           "full_attention"};
    CHECK(windows(read(of("qwen2", used))) == "0 9 0 0");

    CHECK(windows(read(of("gemma2"))) == "4096 0 4096 0");
    CHECK(windows(read(of("gpt_oss"))) == "128 0 128 0");
    CHECK(windows(read(of("gemma3_text", {{"num_hidden_layers", 7}, {"sliding_window", 5}}))) ==
          "5 5 5 5 5 0 5");
    CHECK(windows(read(of("gemma3_text",
                          {{"sliding_window_pattern", 2}, {"sliding_window", 5}}))) == "5 0 5 0");

    // no_rope_layers: 1 = rotate, in spite of its name; only layers without RoPE have a window.
    const ModelConfig smol =
        read(of("smollm3", {{"use_sliding_window", true}, {"sliding_window", 6}}));
    CHECK(windows(smol) == "0 0 0 6");
    CHECK(smol.layer(2).rotates);
    CHECK_FALSE(smol.layer(3).rotates);
    const ModelConfig own = read(of("smollm3", {{"no_rope_layers", {0, 1, 1, 0}}}));
    CHECK_FALSE(own.layer(0).rotates);
    CHECK(own.layer(1).rotates);
}

TEST_CASE("class defaults of single architectures", "[config]") {
    CHECK(read(of("qwen3")).headDim == 128);
    CHECK(read(of("qwen3", {{"head_dim", nullptr}, {"hidden_size", 64}})).headDim == 2);
    CHECK(read(of("qwen2")).headDim == 4096 / 32);
    CHECK(read(of("mistral")).kvHeads == 8);
    CHECK(read(of("mistral", {{"num_key_value_heads", nullptr}})).kvHeads == 32);
    // Classes without grouped queries do not know the key.
    CHECK(read(of("gpt2", {{"num_key_value_heads", 2}})).kvHeads == 12);

    const ModelConfig gemma2 = read(of("gemma2"));
    CHECK(gemma2.softcap == 50);
    CHECK(gemma2.logitSoftcap == 30);
    CHECK(gemma2.scale() == Approx(1.0 / 16));
    CHECK(gemma2.embeddingScale == Approx(48));
    CHECK(read(of("gemma2", {{"attn_logit_softcapping", nullptr}})).softcap == 0);
    CHECK(read(of("gemma3_text", {{"attn_logit_softcapping", 50}})).softcap == 0);
    CHECK(read(of("gemma", {{"hidden_act", "gelu"}})).activation == "gelu_pytorch_tanh");

    const ModelConfig oss = read(of("gpt_oss"));
    CHECK(oss.rope.kind == "yarn");
    CHECK(oss.rope.factor == 32);
    CHECK_FALSE(oss.rope.truncate);
    CHECK(oss.rope.originalMaxPositions == 4096);
    CHECK(oss.rope.theta == 150000);
    CHECK(read(of("gpt_oss", {{"rope_scaling", nullptr}})).rope.kind == "yarn");

    const ModelConfig gpt2 = read(of("gpt2", {{"n_embd", 32}, {"n_head", 4}, {"n_layer", 3}}));
    CHECK(gpt2.layers == 3);
    CHECK(gpt2.headDim == 8);
    CHECK(gpt2.intermediate == 128);
    CHECK(gpt2.positionRows == 1024);
    CHECK(gpt2.rope.kind == "none");
    CHECK(read(of("opt")).positionRows == 2050);
    CHECK(read(of("opt")).positionOffset == 2);

    const json scaling = {{"type", "yarn"},
                          {"factor", 40},
                          {"mscale", 1.0},
                          {"mscale_all_dim", 1.0},
                          {"original_max_position_embeddings", 4096}};
    const ModelConfig v3 = read(of("deepseek_v3", {{"rope_scaling", scaling}}));
    CHECK(v3.headDim == 192);
    CHECK(v3.valueWidth() == 128);
    CHECK(v3.kvHeads == 128);
    const double m = 0.1 * std::log(40.0) + 1;
    CHECK(v3.scale() == Approx(m * m / std::sqrt(192.0)));
    CHECK_FALSE(v3.layer(2).experts);
    CHECK(v3.layer(3).experts);
    CHECK(v3.rope.writesHalves);

    // phi3: the oldest names, and a length at the top level that wins.
    const json longrope = {{"type", "su"},
                           {"original_max_position_embeddings", 9},
                           {"short_factor", std::vector<double>(48, 1)},
                           {"long_factor", std::vector<double>(48, 2)}};
    const ModelConfig phi = read(of("phi3", {{"rope_scaling", longrope},
                                             {"original_max_position_embeddings", 1024},
                                             {"max_position_embeddings", 4096}}));
    CHECK(phi.rope.kind == "longrope");
    CHECK(phi.rope.originalMaxPositions == 1024);
    CHECK(phi.recomputesAtSwitch);
    const ModelConfig silent = read(of("phi3", {{"rope_scaling", longrope}}));
    CHECK(silent.rope.originalMaxPositions == 4096);  // the class's, not the nested one
}

TEST_CASE("a rotated share turns pairs, and only where the class knows it", "[config]") {
    // 0.3 of 16 dimensions are 4.8: four turn. Of 0.35, five: three pairs, powers of 2k / 5.
    const auto neox = [](double share) {
        return read(of("gpt_neox",
                       {{"hidden_size", 64}, {"num_attention_heads", 4}, {"rotary_pct", share}}));
    };
    CHECK(ropeTable(neox(0.3).rope, 16, 1).inverseFrequency.size() == 2);
    const std::vector<float> odd = ropeTable(neox(0.35).rope, 16, 1).inverseFrequency;
    REQUIRE(odd.size() == 3);
    for (std::size_t k = 0; k < 3; ++k)
        CHECK(double(odd[k]) == Approx(std::pow(10000.0, -2.0 * double(k) / 5)));

    const ModelConfig llama = read(of("llama", {{"partial_rotary_factor", 0.5}}));
    CHECK(llama.rope.partial == 1);
    CHECK(std::any_of(llama.notes.begin(), llama.notes.end(), [](const std::string& n) {
        return n.starts_with("partial_rotary_factor ignored");
    }));
}

TEST_CASE("Gemma 3 has two RoPEs in either spelling", "[config]") {
    const json linear = {{"rope_type", "linear"}, {"factor", 8.0}};
    const ModelConfig v4 =
        read(of("gemma3_text",
                {{"rope_scaling", linear}, {"rope_theta", 2e6}, {"rope_local_base_freq", 3e4}}));
    json full = linear;
    full["rope_theta"] = 2e6;
    const ModelConfig v5 =
        read(of("gemma3_text",
                {{"rope_parameters",
                  {{"full_attention", full},
                   {"sliding_attention", {{"rope_type", "default"}, {"rope_theta", 3e4}}}}}}));
    for (const ModelConfig& c : {v4, v5}) {
        CHECK(c.rope.kind == "linear");
        CHECK(c.rope.factor == 8);
        CHECK(c.rope.theta == 2e6);
        CHECK(c.localRope.kind == "default");
        CHECK(c.localRope.theta == 3e4);
        CHECK(c.layer(0).localRope);
        CHECK_FALSE(c.layerConfigs.empty());
    }
}

TEST_CASE("the text model of a file with images", "[config]") {
    const ModelConfig c = read(json{{"model_type", "gemma3"},
                                    {"dtype", "bfloat16"},
                                    {"eos_token_id", {1, 106}},
                                    {"text_config", {{"hidden_size", 2560}}}});
    CHECK(c.arch == "gemma3_text");
    CHECK(c.hidden == 2560);
    CHECK(c.heads == 8);
    CHECK(c.dtype == "bfloat16");
    CHECK(c.tiedEmbeddings);
    CHECK(c.eosTokens == std::vector<std::int32_t>{1, 106});
    CHECK(hasNote(c, "text model of \"gemma3\""));
    const ModelConfig llava =
        read(json{{"model_type", "llava"}, {"text_config", {{"model_type", "llama"}}}});
    CHECK(llava.arch == "llama");
}

TEST_CASE("what no forward pass here can do is refused by name", "[config]") {
    const std::string unknown = message(of("qwen4"), Errc::Unsupported);
    CHECK(unknown.find("qwen4") != std::string::npos);
    CHECK(unknown.find("did you mean qwen") != std::string::npos);
    CHECK(unknown.find("sparsight import-tensors") != std::string::npos);
    const auto refused = [](const char* type, json more) {
        return message(of(type, std::move(more)), Errc::Unsupported);
    };
    const json linear = {"full_attention", "linear_attention", "full_attention", "full_attention"};
    CHECK(refused("qwen2", {{"layer_types", linear}}).find("layer 1") != std::string::npos);
    CHECK(refused("gemma3_text", {{"use_bidirectional_attention", true}})
              .find("use_bidirectional_attention") != std::string::npos);
    CHECK(refused("llama", {{"per_layer_config", {{"0", {{"hidden_size", 1}}}}}})
              .find("per_layer_config") != std::string::npos);
    CHECK(refused("mixtral", {{"quantization_config", {{"quant_method", "gptq"}}}}).find("gptq") !=
          std::string::npos);
    CHECK(refused("llama", {{"quantization_config", {{"quant_method", "mxfp4"}}}}).find("mxfp4") !=
          std::string::npos);
    CHECK(refused("deepseek_v2", {{"num_experts_per_tok", 2}, {"topk_method", "best"}})
              .find("best") != std::string::npos);
    CHECK(refused("gpt2", {{"add_cross_attention", true}}).find("add_cross_attention") !=
          std::string::npos);
    CHECK(message(of("llama", {{"head_dim", 2147483646}}), Errc::Format).find("65536") !=
          std::string::npos);
    CHECK(message(of("gpt_oss", {{"intermediate_size", 48},
                                 {"quantization_config", {{"quant_method", "mxfp4"}}}}),
                  Errc::Format)
              .find("multiples of 32") != std::string::npos);
    CHECK(message(of("qwen3_moe", {{"num_experts", 4}, {"num_experts_per_tok", 5}}), Errc::Format)
              .find("num_experts_per_tok") != std::string::npos);
}
