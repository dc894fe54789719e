#include <catch2/catch.hpp>
#include <cmath>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

#include "core/metrics/head_metrics.h"
#include "core/model/runner.h"
#include "core/model/safetensors.h"
#include "core/model/weights.h"
#include "core/torch/gpu_decoder.h"

using namespace sparsight;
namespace fs = std::filesystem;

namespace {

/// A directory with this model's weights and one of its two spellings of config.json.
struct ModelFolder {
    fs::path path;
    ModelFolder() {
        std::string name = (fs::temp_directory_path() / "sparsight_parity_XXXXXX").string();
        REQUIRE(mkdtemp(name.data()) != nullptr);
        path = name;
    }
    ModelFolder(const fs::path& from, const std::string& config) : ModelFolder() {
        fs::copy_file(from / config, path / "config.json");
        for (const auto& entry : fs::directory_iterator(from)) {
            const std::string file = entry.path().filename().string();
            if (file.starts_with("model"))
                fs::create_symlink(fs::canonical(entry.path()), path / file);
        }
    }
    ~ModelFolder() { fs::remove_all(path); }
};

/// Tensors to write, with their memory.
struct Tensors {
    std::map<std::string, std::vector<float>> values;
    std::map<std::string, std::vector<Index>> shapes;

    explicit Tensors(const fs::path& file) {
        const SafeTensors source = SafeTensors::openFile(file);
        for (const auto& [name, t] : source.tensors()) {
            values[name] = t.toFloat();
            shapes[name] = t.shape;
        }
    }
    void rename(const std::string& from, const std::string& to) {
        values[to] = std::move(values.at(from));
        shapes[to] = shapes.at(from);
        values.erase(from);
        shapes.erase(from);
    }
    void write(const fs::path& file) const {
        std::vector<StWrite> out;
        for (const auto& [name, x] : values)
            out.push_back({name, StDType::F32, shapes.at(name), x.data()});
        writeSafeTensors(file, out);
    }
};

nlohmann::json jsonOf(const fs::path& file) {
    std::ifstream in(file);
    return nlohmann::json::parse(in);
}

fs::path folderOf(const std::string& model) {
    for (const char* place : {"/models/", "/parity/"}) {
        const fs::path folder = std::string(SPARSIGHT_TEST_DATA) + place + model;
        if (fs::exists(folder / "golden.safetensors")) return folder;
    }
    FAIL("no golden of " << model);
    return {};
}

std::vector<std::int32_t> idsOf(const StTensor& t) {
    std::vector<std::int32_t> out;
    for (const std::int64_t id : t.toInt()) out.push_back(std::int32_t(id));
    return out;
}

/// Largest difference, and that difference as a share of the largest value expected.
struct Difference {
    double absolute = 0, relative = 0;
};

Difference difference(const float* found, const std::vector<float>& expected) {
    double most = 0, largest = 0;
    for (std::size_t i = 0; i < expected.size(); ++i) {
        most = std::max(most, std::abs(double(found[i]) - double(expected[i])));
        largest = std::max(largest, std::abs(double(expected[i])));
    }
    return {most, most / largest};
}

std::vector<float> dense(const kernels::TensorView& x, Index heads, Index tokens, Index d) {
    std::vector<float> out(std::size_t(heads * tokens * d));
    for (Index h = 0; h < heads; ++h)
        for (Index n = 0; n < tokens; ++n)
            std::copy_n(static_cast<const float*>(x.p) + h * x.sh + n * x.sn, d,
                        out.data() + (h * tokens + n) * d);
    return out;
}

/// Which forward pass: the CPU's, or the GPU's code on SPARSIGHT_TEST_DEVICE (cpu when not set).
enum class Code { Cpu, Gpu };

std::string testDevice() {
    const char* name = std::getenv("SPARSIGHT_TEST_DEVICE");
    return name ? name : "cpu";
}

/// What one model's run showed, for the table in docs/models.md.
struct Worst {
    double attention = 0, qkv = 0, lse = 0, logits = 0, rowSum = 0, hidden = 0, squares = 0;
};

/// One golden: prefill of its prompts with everything that transformers recorded, then greedy
/// decoding with the cache, attention by the kernels.
class Parity {
public:
    Parity(const std::string& name, const fs::path& model, Code code)
        : m_golden(SafeTensors::openFile(folderOf(name) / "golden.safetensors")),
          m_backend(kernels::makeBackend("cpu", 1)),
          m_forwardBackend(kernels::makeBackend(code == Code::Gpu ? testDevice() : "cpu", 1)),
          m_forward(denseAttention(*m_forwardBackend)) {
        m_facts = jsonOf(folderOf(name) / "golden.json");
        if (code == Code::Cpu) {
            m_model = loadModel(model, 1);
        } else {
            const ModelConfig config = readConfig(model);
            m_model = makeGpuDecoder(config, openWeights(model, config), 1, testDevice());
        }
    }

    void prefill(const std::string& prompt) {
        const ModelConfig& c = m_model->config();
        const auto ids = idsOf(m_golden.at(prompt + ".input_ids"));
        const Index n = Index(ids.size());
        const std::vector<float> hidden = floats(prompt + ".hidden_l2");
        KvCache cache(c, n);
        m_model->forward(ids, cache, [&](const LayerCall& call) {
            std::vector<std::byte> memory[3];
            layer(prompt + ".L" + std::to_string(call.layer), readable(call, memory));
            for (Index i = 0; i < n && call.hidden; ++i) {
                double square = 0;
                for (Index e = 0; e < c.hidden; ++e)
                    square += std::pow(double(call.hidden[i * c.hidden + e]), 2);
                const double expected = double(hidden[std::size_t(call.layer * n + i)]);
                worst.hidden =
                    std::max(worst.hidden, std::abs(std::sqrt(square) - expected) / expected);
            }
            m_forward(call);
        });
        std::vector<float> logits(std::size_t(n * c.vocab));
        m_model->logits(0, n, logits.data());
        note(worst.logits,
             difference(logits.data() + (n - 4) * c.vocab, floats(prompt + ".logits_last4"))
                 .absolute);
        const auto best = m_golden.at(prompt + ".argmax").toInt();
        double squares = 0;
        for (const float x : logits) squares += double(x) * double(x);
        for (Index i = 0; i < n; ++i) {
            const auto row = logits.begin() + i * c.vocab;
            agree += std::max_element(row, row + c.vocab) - row == best[std::size_t(i)];
        }
        rows += n;
        const std::vector<float> sums = floats(prompt + ".logits_sums");
        note(worst.squares, std::abs(squares / double(sums[1]) - 1));
    }

    void decode() {
        const ModelConfig& c = m_model->config();
        auto ids = idsOf(m_golden.at("p1.input_ids"));
        const auto expected = idsOf(m_golden.at("decode.ids"));
        const std::vector<float> logits = floats("decode.logits");
        const Index steps = Index(expected.size()), start = Index(ids.size());
        KvCache cache(c, start + steps);
        std::vector<float> row(static_cast<std::size_t>(c.vocab));
        m_model->forward(ids, cache, m_forward);
        m_model->logits(start - 1, start, row.data());
        for (Index i = 0; i < steps; ++i) {
            const std::vector<float> wanted(logits.begin() + i * c.vocab,
                                            logits.begin() + (i + 1) * c.vocab);
            note(worst.logits, difference(row.data(), wanted).absolute);
            const auto next = std::int32_t(std::max_element(row.begin(), row.end()) - row.begin());
            CHECK(next == expected[std::size_t(i)]);
            ids.push_back(next);
            m_model->forward(std::span(ids).last(1), cache, m_forward);
            m_model->logits(0, 1, row.data());
        }
        CHECK(cache.length() == start + steps);
    }

    Worst worst;
    Index rows = 0, agree = 0;  ///< rows of logits, and those whose largest one is the golden's

private:
    std::vector<float> floats(const std::string& name) { return m_golden.at(name).toFloat(); }
    static void note(double& most, double x) { most = std::max(most, x); }

    void layer(const std::string& at, const LayerCall& call) {
        const kernels::Problem& p = call.problem;
        const nlohmann::json& facts = m_facts.at("layers").at(std::size_t(call.layer));
        CHECK(double(p.scale) == Approx(facts.at("scaling").get<double>()).epsilon(1e-6));
        CHECK(double(p.softcap) ==
              (facts.at("softcap").is_null() ? 0.0 : facts.at("softcap").get<double>()));
        CHECK(p.window == (facts.at("sliding_window").is_null()
                               ? Index(0)
                               : facts.at("sliding_window").get<Index>()));
        CHECK((p.sinks != nullptr) == facts.at("sinks").get<bool>());

        const auto qkv = [&](const kernels::TensorView& x, Index heads, Index tokens, Index d,
                             const char* tensor) {
            note(worst.qkv,
                 difference(dense(x, heads, tokens, d).data(), floats(at + tensor)).relative);
        };
        qkv(call.q, p.Hq, p.Nq, p.d, ".q");
        qkv(call.k, p.Hkv, p.Nk, p.d, ".k");
        qkv(call.v, p.Hkv, p.Nk, p.dv, ".v");

        std::vector<float> lse(std::size_t(p.Hq * p.Nq));
        kernels::CaptureOut out;
        out.lse = lse.data();
        m_backend->capture(p, call.q, call.k, {}, out);
        note(worst.lse, difference(lse.data(), floats(at + ".lse")).relative);

        const std::vector<float> attention = floats(at + ".attn");
        std::vector<float> row(static_cast<std::size_t>(p.Nk));
        for (Index h = 0; h < p.Hq; ++h)
            for (Index i = 0; i < p.Nq; ++i) {
                rowProbabilities(p.oneHead(h), call.q.head(h), call.k.head(p.kvHead(h)), i,
                                 row.data());
                const float* expected = attention.data() + (h * p.Nq + i) * p.Nk;
                double sum = 0;
                for (Index j = 0; j < p.Nk; ++j) {
                    sum += double(row[std::size_t(j)]);
                    note(worst.attention,
                         std::abs(double(row[std::size_t(j)]) - double(expected[j])));
                }
                if (p.sinks) {  // the sink's share, from the LSE of the keys alone
                    const double keys = double(lse[std::size_t(h * p.Nq + i)]);
                    sum += 1 / (1 + std::exp(keys - double(p.sinks[h])));
                }
                note(worst.rowSum, std::abs(sum - 1));
            }
    }

    SafeTensors m_golden;
    nlohmann::json m_facts;
    std::unique_ptr<kernels::Backend> m_backend, m_forwardBackend;
    AttentionFn m_forward;
    std::unique_ptr<ModelRunner> m_model;
};

/// @param name   of the golden
/// @param model  a directory that must behave like it
void checkAgainstGolden(const std::string& name, const fs::path& model) {
    const Code code = GENERATE(Code::Cpu, Code::Gpu);
    // The goldens are float32; a GPU takes the type of the weights.
    const ModelFolder wide;
    const bool narrow =
        code == Code::Gpu && fs::exists(model / "model.safetensors") &&
        SafeTensors::openModel(model).tensors().begin()->second.dtype == StDType::BF16;
    if (narrow) {
        Tensors(model / "model.safetensors").write(wide.path / "model.safetensors");
        fs::copy_file(model / "config.json", wide.path / "config.json");
    }
    Parity parity(name, narrow ? wide.path : model, code);
    for (const char* prompt : {"p0", "p1", "p2"}) parity.prefill(prompt);
    parity.decode();
    const Worst& w = parity.worst;
    // Shown by `test_parity_decoders -s`; docs/models.md quotes them.
    CAPTURE(code == Code::Gpu, w.attention, w.qkv, w.lse, w.logits, w.rowSum, w.hidden);
    CHECK(w.attention < 2e-5);
    CHECK(w.qkv < 2e-5);
    CHECK(w.lse < 2e-5);
    CHECK(w.logits < 2e-4);
    CHECK(w.rowSum < 1e-6);
    CHECK(w.hidden < 2e-5);
    CHECK(w.squares < 1e-4);
    CHECK(parity.agree == parity.rows);
}

}  // namespace

TEST_CASE("decoders agree with transformers in both spellings of config.json", "[parity]") {
    // The second group was made by tests/data/parity/make_goldens.py.
    const std::string model = GENERATE(
        "llama", "llama_linear", "qwen2", "qwen3", "gpt2", "gemma2", "phi3", "olmo2", "mixtral",
        "gpt_oss", "llama_bias", "llama_dynamic", "llama_yarn", "llama_longrope", "mistral",
        "mistral_nemo", "qwen2_window", "gemma", "gemma3", "phi3_partial", "gpt2_scaled",
        "gpt_neox", "gpt_neox_sequential", "gpt_neox_odd", "opt", "opt_post_norm", "glm4",
        "qwen3_moe", "smollm3", "deepseek_v2", "deepseek_v2_groups", "deepseek_v2_bias",
        "deepseek_v3", "deepseek_v3_halves", "gpt_oss_mxfp4");
    const std::string config = GENERATE("config.json", "config_v4.json");
    CAPTURE(model, config);
    const ModelFolder folder(folderOf(model), config);
    checkAgainstGolden(model, folder.path);
}

TEST_CASE("a GPU's code in bfloat16 stays near the reference", "[parity]") {
    Parity parity("qwen2", folderOf("qwen2"), Code::Gpu);
    for (const char* prompt : {"p0", "p1", "p2"}) parity.prefill(prompt);
    const Worst& w = parity.worst;
    CAPTURE(w.attention, w.qkv, w.lse, w.logits, w.rowSum, parity.agree, parity.rows);
    CHECK(w.qkv > 1e-4);  // it is bfloat16
    CHECK(w.qkv < 0.02);
    CHECK(w.attention < 0.04);
    CHECK(w.lse < 0.01);
    CHECK(w.rowSum < 1e-6);
    CHECK(parity.agree > parity.rows * 9 / 10);
}

TEST_CASE("the text model inside a model with images", "[parity]") {
    const std::string prefix = GENERATE("language_model.model.", "model.language_model.");
    const fs::path from = folderOf("gemma3");
    const ModelFolder folder;
    nlohmann::json text = jsonOf(from / "config_v4.json");
    const auto tied = text.at("tie_word_embeddings");
    text.erase("tie_word_embeddings");
    std::ofstream(folder.path / "config.json")
        << nlohmann::json{{"model_type", "gemma3"},
                          {"text_config", text},
                          {"tie_word_embeddings", tied},
                          {"vision_config", nlohmann::json::object()}};
    Tensors tensors(from / "model.safetensors");
    for (const auto& [name, shape] : std::map(tensors.shapes)) {
        REQUIRE(name.starts_with("model."));
        tensors.rename(name, prefix + name.substr(6));
    }
    tensors.write(folder.path / "model.safetensors");
    checkAgainstGolden("gemma3", folder.path);
}

TEST_CASE("tensors without the model's prefix, and buffers of old files", "[parity]") {
    const fs::path from = folderOf("gpt2");
    const ModelFolder folder;
    fs::copy_file(from / "config_v4.json", folder.path / "config.json");
    Tensors t(from / "model.safetensors");
    for (const auto& [name, shape] : std::map(t.shapes)) t.rename(name, name.substr(12));
    t.values["h.0.attn.bias"] = std::vector<float>(160 * 160, 1);
    t.shapes["h.0.attn.bias"] = {1, 1, 160, 160};
    t.values["what.is.this"] = {1};
    t.shapes["what.is.this"] = {1};
    t.write(folder.path / "model.safetensors");
    checkAgainstGolden("gpt2", folder.path);
    const ModelInfo info = modelInfo(folder.path);
    CHECK(info.unsupported.empty());
    bool noted = false;
    for (const std::string& note : info.config.notes) {
        noted = noted || note == "1 tensor is not used: what.is.this";
        CHECK(note.find("attn.bias") == std::string::npos);
    }
    CHECK(noted);
}

TEST_CASE("experts stacked in one tensor are the same experts", "[parity]") {
    // As transformers 5 holds them in memory and can save them.
    const fs::path from = folderOf("mixtral");
    const ModelFolder folder;
    fs::copy_file(from / "config.json", folder.path / "config.json");
    Tensors t(from / "model.safetensors");
    for (const std::string layer : {"model.layers.0.", "model.layers.1."}) {
        const std::string block = layer + "block_sparse_moe.", to = layer + "mlp.experts.";
        t.rename(block + "gate.weight", layer + "mlp.gate.weight");
        auto &both = t.values[to + "gate_up_proj"], &down = t.values[to + "down_proj"];
        t.shapes[to + "gate_up_proj"] = {4, 96, 64};
        t.shapes[to + "down_proj"] = {4, 64, 48};
        for (const char* expert : {"0", "1", "2", "3"}) {
            for (const char* part : {".w1.weight", ".w3.weight", ".w2.weight"}) {
                const std::string name = block + "experts." + expert + part;
                auto& all = part[2] == '2' ? down : both;
                all.insert(all.end(), t.values.at(name).begin(), t.values.at(name).end());
                t.values.erase(name);
            }
        }
    }
    t.write(folder.path / "model.safetensors");
    checkAgainstGolden("mixtral", folder.path);
}

TEST_CASE("fp8 weights are multiplied by the scale of their tile", "[parity]") {
    const ModelFolder folder;
    constexpr Index rows = 130, cols = 200;
    std::vector<std::uint8_t> codes(std::size_t(rows * cols), 0x38);  // 1.0 in E4M3
    codes[std::size_t(129 * cols + 5)] = 0xc0;                        // -2.0
    const std::vector<float> scales{1, 2, 4, 8};
    writeSafeTensors(folder.path / "model.safetensors",
                     {{"x.weight", StDType::F8_E4M3, {rows, cols}, codes.data()},
                      {"x.weight_scale_inv", StDType::F32, {2, 2}, scales.data()}});
    WeightFile file(folder.path, {""}, "x.weight");
    const Weight w = file.read("x.weight", {rows, cols});
    CHECK(w.data[0] == 1);
    CHECK(w.data[127 * cols + 127] == 1);
    CHECK(w.data[128] == 2);
    CHECK(w.data[128 * cols] == 4);
    CHECK(w.data[129 * cols + 5] == -8);
    CHECK(w.data[129 * cols + 199] == 8);
    CHECK(file.leftovers().empty());
}
