#include "core/torch/weights.h"

#include <ATen/ops/from_blob.h>

#include <algorithm>
#include <cstring>

#include "core/model/safetensors.h"

namespace sparsight {
namespace {

std::string shapeText(const std::vector<Index>& shape) {
    std::string text = "[";
    for (std::size_t i = 0; i < shape.size(); ++i)
        text += (i ? ", " : "") + std::to_string(shape[i]);
    return text + "]";
}

class Reader {
public:
    Reader(const std::filesystem::path& directory, const Job& job)
        : m_where(directory.string()), m_file(SafeTensors::openModel(directory)), m_job(job) {
        // Checkpoints of the bare model, without its head, leave the prefix out.
        if (!m_file.contains("model.embed_tokens.weight") && m_file.contains("embed_tokens.weight"))
            m_prefix.clear();
        m_total = std::max<Index>(m_file.fileBytes(), 1);
    }
    const std::string& prefix() const { return m_prefix; }
    bool contains(const std::string& name) const { return m_file.contains(name); }
    bool same(const std::string& a, const std::string& b) const {
        const auto &x = m_file.at(a), &y = m_file.at(b);
        return x.dtype == y.dtype && x.bytes.size() == y.bytes.size() &&
               std::memcmp(x.bytes.data(), y.bytes.data(), x.bytes.size()) == 0;
    }

    Weight read(const std::string& name, const std::vector<Index>& shape) {
        if (!m_file.contains(name))
            throw Error(Errc::Format, m_where + ": the weights have no tensor '" + name + "' (" +
                                          shapeText(shape) + " expected)");
        const StTensor& t = m_file.at(name);
        if (t.shape != shape)
            throw Error(Errc::Format, m_where + ": tensor '" + name + "' has shape " +
                                          shapeText(t.shape) + ", config.json calls for " +
                                          shapeText(shape));
        Weight w;
        w.values = t.toFloat();
        if (!allFinite(w.values.data(), Index(w.values.size())))
            throw Error(Errc::Format, m_where + ": tensor '" + name +
                                          "' holds NaN or infinite values; the file is damaged");
        w.tensor = at::from_blob(w.values.data(), shape, at::kFloat);
        m_read += Index(t.bytes.size());
        m_job.step(std::min(1.0, double(m_read) / double(m_total)), "reading " + name);
        return w;
    }

private:
    std::string m_where, m_prefix = "model.";
    SafeTensors m_file;
    const Job& m_job;
    Index m_total = 1, m_read = 0;
};

}  // namespace

bool allFinite(const float* x, Index count) {
    // Compared as integers, since a loop over std::isfinite does not become vector code.
    std::uint32_t largest = 0;
    for (Index i = 0; i < count; ++i) {
        std::uint32_t bits;
        std::memcpy(&bits, x + i, 4);
        largest = std::max(largest, bits & 0x7fffffffu);
    }
    return largest < 0x7f800000u;
}

ModelWeights loadWeights(const std::filesystem::path& directory, const ModelConfig& c,
                         const Job& job) {
    Reader r(directory, job);
    ModelWeights w;
    const std::string embedding = r.prefix() + "embed_tokens.weight", head = "lm_head.weight";
    const bool hasEmbedding = r.contains(embedding), hasHead = r.contains(head);
    w.embedding = r.read(hasEmbedding || !hasHead ? embedding : head, {c.vocab, c.hidden});
    // Weights that say "tied" but hold two different matrices are not tied.
    if (hasEmbedding && hasHead && !r.same(embedding, head))
        w.head = r.read(head, {c.vocab, c.hidden});
    w.norm = r.read(r.prefix() + "norm.weight", {c.hidden});

    const Index qWidth = c.heads * c.headDim, kvWidth = c.kvHeads * c.headDim;
    for (Index l = 0; l < c.layers; ++l) {
        const std::string layer = r.prefix() + "layers." + std::to_string(l) + ".";
        const auto read = [&](const char* name, const std::vector<Index>& shape) {
            return r.read(layer + name, shape);
        };
        BlockWeights b;
        b.attentionNorm = read("input_layernorm.weight", {c.hidden});
        b.q = read("self_attn.q_proj.weight", {qWidth, c.hidden});
        b.k = read("self_attn.k_proj.weight", {kvWidth, c.hidden});
        b.v = read("self_attn.v_proj.weight", {kvWidth, c.hidden});
        b.o = read("self_attn.o_proj.weight", {c.hidden, qWidth});
        if (c.attentionBias) {
            b.qBias = read("self_attn.q_proj.bias", {qWidth});
            b.kBias = read("self_attn.k_proj.bias", {kvWidth});
            b.vBias = read("self_attn.v_proj.bias", {kvWidth});
            b.oBias = read("self_attn.o_proj.bias", {c.hidden});
        }
        b.mlpNorm = read("post_attention_layernorm.weight", {c.hidden});
        b.gate = read("mlp.gate_proj.weight", {c.intermediate, c.hidden});
        b.up = read("mlp.up_proj.weight", {c.intermediate, c.hidden});
        b.down = read("mlp.down_proj.weight", {c.hidden, c.intermediate});
        if (c.mlpBias) {
            b.gateBias = read("mlp.gate_proj.bias", {c.intermediate});
            b.upBias = read("mlp.up_proj.bias", {c.intermediate});
            b.downBias = read("mlp.down_proj.bias", {c.hidden});
        }
        w.blocks.push_back(std::move(b));
    }
    return w;
}

}  // namespace sparsight
