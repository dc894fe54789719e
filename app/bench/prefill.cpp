#include <unistd.h>

#include <chrono>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "app/bench/bench.h"
#include "core/model/runner.h"

namespace sparsight::bench {
namespace {

using nlohmann::json;

/// A Llama of two layers with the sizes of Llama-3-8B's and a vocabulary of 256, random bfloat16
/// weights, in a folder that goes away with this object.
class RandomModel {
public:
    RandomModel()
        : m_folder(std::filesystem::temp_directory_path() /
                   ("sparsight-bench-" + std::to_string(getpid()))) {
        constexpr Index hidden = 4096, inner = 14336, kv = 1024, vocab = 256, layers = 2;
        std::filesystem::create_directories(m_folder);
        std::ofstream(m_folder / "config.json")
            << json{{"model_type", "llama"},           {"architectures", {"LlamaForCausalLM"}},
                    {"hidden_size", hidden},           {"intermediate_size", inner},
                    {"num_hidden_layers", layers},     {"num_attention_heads", 32},
                    {"num_key_value_heads", 8},        {"vocab_size", vocab},
                    {"max_position_embeddings", 8192}, {"rms_norm_eps", 1e-5},
                    {"rope_theta", 500000.0},          {"hidden_act", "silu"},
                    {"tie_word_embeddings", false},    {"torch_dtype", "bfloat16"}};
        struct Tensor {
            std::string name;
            Index rows, cols;  ///< cols 0: a vector of ones
        };
        std::vector<Tensor> tensors{{"model.embed_tokens.weight", vocab, hidden},
                                    {"model.norm.weight", hidden, 0},
                                    {"lm_head.weight", vocab, hidden}};
        for (Index l = 0; l < layers; ++l) {
            const std::string at = "model.layers." + std::to_string(l) + ".";
            tensors.insert(tensors.end(), {{at + "input_layernorm.weight", hidden, 0},
                                           {at + "self_attn.q_proj.weight", hidden, hidden},
                                           {at + "self_attn.k_proj.weight", kv, hidden},
                                           {at + "self_attn.v_proj.weight", kv, hidden},
                                           {at + "self_attn.o_proj.weight", hidden, hidden},
                                           {at + "post_attention_layernorm.weight", hidden, 0},
                                           {at + "mlp.gate_proj.weight", inner, hidden},
                                           {at + "mlp.up_proj.weight", inner, hidden},
                                           {at + "mlp.down_proj.weight", hidden, inner}});
        }
        json header;
        std::size_t offset = 0;
        for (const Tensor& t : tensors) {
            const auto bytes = std::size_t(t.rows * std::max<Index>(1, t.cols)) * 2;
            header[t.name] = {{"dtype", "BF16"},
                              {"shape", t.cols ? json{t.rows, t.cols} : json{t.rows}},
                              {"data_offsets", {offset, offset + bytes}}};
            offset += bytes;
        }
        const std::string text = header.dump();
        const auto length = std::uint64_t(text.size());
        std::ofstream file(m_folder / "model.safetensors", std::ios::binary);
        file.write(reinterpret_cast<const char*>(&length), 8);
        file << text;
        std::uint32_t state = 1;
        for (const Tensor& t : tensors) {
            std::vector<std::uint16_t> values(std::size_t(t.rows * std::max<Index>(1, t.cols)));
            const float range = t.cols ? 1.7f / std::sqrt(float(t.cols)) : 0.0f;
            for (std::uint16_t& v : values) {
                state = state * 1664525u + 1013904223u;
                const float x = t.cols ? range * (float(state >> 8) / float(1 << 23) - 1.0f) : 1.0f;
                v = kernels::floatToBfloat(x);
            }
            file.write(reinterpret_cast<const char*>(values.data()),
                       std::streamsize(values.size() * 2));
        }
        if (!file) throw Error(Errc::Io, "bench: cannot write " + m_folder.string());
    }
    ~RandomModel() {
        std::error_code ignored;
        std::filesystem::remove_all(m_folder, ignored);
    }
    RandomModel(const RandomModel&) = delete;
    RandomModel& operator=(const RandomModel&) = delete;
    const std::filesystem::path& folder() const { return m_folder; }

private:
    std::filesystem::path m_folder;
};

/// A loaded model and a prompt of random ids.
struct Loaded {
    std::unique_ptr<RandomModel> random;
    std::unique_ptr<ModelRunner> model;
    std::vector<std::int32_t> ids;
    double flops = 0;

    Loaded(bool bundled, Index tokens, int threads) {
        if (!bundled) random = std::make_unique<RandomModel>();
        const auto folder = bundled ? resolveModel("bookworm") : random->folder();
        model = loadModel(folder, threads);
        const ModelConfig& c = model->config();
        for (Index i = 0; i < tokens; ++i) ids.push_back(std::int32_t((i * 7919 + 13) % c.vocab));
        // Every weight of the layers meets every token once; scores and values, half of the square.
        const Index projections =
            c.hidden * c.headDim * (2 * c.heads + 2 * c.kvHeads) + 3 * c.hidden * c.intermediate;
        flops = double(c.layers) *
                (2.0 * double(projections) * double(tokens) +
                 2.0 * double(c.heads * c.headDim) * double(tokens) * double(tokens));
    }
};

}  // namespace

void addPrefill(std::vector<Operation>& operations, kernels::Backend& backend,
                const std::string& filter) {
    if (filter.find("prefill") == std::string::npos) return;
    for (const bool bundled : {true, false}) {
        const std::string id = bundled ? "prefill-bookworm" : "prefill-8b-layers";
        if (id.find(filter) == std::string::npos) continue;
        const Index tokens = bundled ? 4096 : 1024;
        const auto loaded = std::make_shared<Loaded>(bundled, tokens, backend.threads());
        const ModelConfig& c = loaded->model->config();
        Operation op;
        op.id = id;
        op.title = "model forward pass, " + std::to_string(tokens) + " tokens";
        op.shape = Shape{c.heads, c.kvHeads, tokens, tokens, c.headDim, true, kernels::DType::F32};
        op.flops = loaded->flops;
        op.run = [&backend, loaded] {
            KvCache cache(loaded->model->config(), Index(loaded->ids.size()),
                          KvCache::Keep::LastLayer);
            loaded->model->forward(loaded->ids, cache, denseAttention(backend));
        };
        op.rivals.push_back({Rival::Cost, "as many flops of LibTorch's matrix product",
                             [&backend, flops = loaded->flops] {
                                 return 1e3 * flops / measureGemm(backend.threads());
                             }});
        operations.push_back(std::move(op));
    }
}

}  // namespace sparsight::bench
