#include "core/torch/encoder_weights.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/isfinite.h>

#include <algorithm>
#include <cstring>
#include <map>

#include "core/model/safetensors.h"

namespace sparsight {
namespace {

using Shape = std::vector<Index>;

std::string shapeText(const Shape& shape) {
    std::string text = "[";
    for (std::size_t i = 0; i < shape.size(); ++i)
        text += (i ? ", " : "") + std::to_string(shape[i]);
    return text + "]";
}

class Reader {
public:
    Reader(const std::filesystem::path& directory, const EncoderConfig& config, const Job& job)
        : m_where(directory.string()),
          m_file(SafeTensors::openModel(directory)),
          m_prefixes(config.prefixes),
          m_job(job) {}

    /// The file's name of a tensor: below one of the model's prefixes, with or without its tower's;
    /// "" when there is none.
    std::string find(const std::string& tower, const std::string& name) const {
        for (const std::string& prefix : m_prefixes)
            for (const std::string& full : {prefix + tower + name, prefix + name})
                if (m_file.contains(full)) return full;
        return {};
    }
    std::string findOne(const std::string& tower, const std::vector<std::string>& names) const {
        for (const std::string& name : names)
            if (std::string full = find(tower, name); !full.empty()) return full;
        return {};
    }
    /// @param wanted  for the message when `full` is ""
    at::Tensor read(const std::string& full, const Shape& shape, const std::string& wanted) {
        if (full.empty())
            throw Error(Errc::Format, m_where + ": the weights have no tensor '" + wanted + "' (" +
                                          shapeText(shape) + " expected)");
        const StTensor& t = m_file.at(full);
        if (t.shape != shape)
            throw Error(Errc::Format, m_where + ": tensor '" + full + "' has shape " +
                                          shapeText(t.shape) + ", config.json calls for " +
                                          shapeText(shape));
        if (const auto done = m_done.find(full); done != m_done.end()) return done->second;
        const std::vector<float> values = t.toFloat();
        at::Tensor out = at::empty(shape, at::kFloat);
        std::memcpy(out.data_ptr<float>(), values.data(), values.size() * sizeof(float));
        if (!at::isfinite(out).all().item<bool>())
            throw Error(Errc::Format, m_where + ": tensor '" + full +
                                          "' holds NaN or infinite values; the file is damaged");
        m_done[full] = out;
        m_read += Index(t.bytes.size());
        m_job.step(std::min(1.0, double(m_read) / double(std::max<Index>(m_file.fileBytes(), 1))),
                   "reading " + full);
        return out;
    }
    at::Tensor tensor(const std::string& tower, const std::string& name, const Shape& shape) {
        return read(find(tower, name), shape, tower + name);
    }
    /// `name`.weight and, when `bias`, `name`.bias; nothing for the name "".
    Affine affine(const std::string& tower, const std::string& name, const Shape& shape,
                  bool bias) {
        Affine a;
        if (name.empty()) return a;
        a.weight = read(findOne(tower, {name + ".weight", name + ".gamma"}), shape,
                        tower + name + ".weight");
        if (bias)
            a.bias = read(findOne(tower, {name + ".bias", name + ".beta"}), {shape.front()},
                          tower + name + ".bias");
        return a;
    }
    bool contains(const std::string& name) const { return !find({}, name).empty(); }
    std::vector<std::string> unused() const {
        std::vector<std::string> list;
        for (const auto& [name, tensor] : m_file.tensors())
            if (!m_done.contains(name)) list.push_back(name);
        return list;
    }

private:
    std::string m_where;
    SafeTensors m_file;
    const std::vector<std::string>& m_prefixes;
    const Job& m_job;
    std::map<std::string, at::Tensor> m_done;
    Index m_read = 0;
};

std::string numbered(const std::string& layer, Index number) {
    const auto at = layer.find('#');
    return layer.substr(0, at) + std::to_string(number) + layer.substr(at + 1);
}

TowerWeights readTower(Reader& r, const Tower& t, Index buckets) {
    TowerWeights w;
    if (t.layers == 0) return w;
    const BlockNames* names = &t.names.front();
    for (const BlockNames& n : t.names)
        if (!r.find(t.prefix, numbered(n.layer, 0) + n.q + ".weight").empty()) {
            names = &n;
            break;
        }
    const Index width = t.heads * t.headDim;
    for (Index l = 0; l < t.layers; ++l) {
        const auto read = [&](const std::string& name, const Shape& shape, bool bias) {
            return name.empty() ? Affine{}
                                : r.affine(t.prefix, numbered(names->layer, l) + name, shape, bias);
        };
        const auto norm = [&](const std::string& name) {
            return read(name, {t.hidden}, !t.rmsNorm);
        };
        EncoderBlockWeights b;
        b.q = read(names->q, {width, t.hidden}, t.bias && t.qkvBias);
        b.k = read(names->k, {width, t.hidden}, t.bias && t.qkvBias);
        b.v = read(names->v, {width, t.hidden}, t.bias && t.qkvBias);
        b.o = read(names->o, {t.hidden, width}, t.bias);
        b.attentionNorm = norm(names->attentionNorm);
        b.crossQ = read(names->crossQ, {width, t.hidden}, t.bias);
        b.crossK = read(names->crossK, {width, t.hidden}, t.bias);
        b.crossV = read(names->crossV, {width, t.hidden}, t.bias);
        b.crossO = read(names->crossO, {t.hidden, width}, t.bias);
        b.crossNorm = norm(names->crossNorm);
        b.up = read(names->up, {t.intermediate, t.hidden}, t.bias);
        b.gate = read(names->gate, {t.intermediate, t.hidden}, t.bias);
        b.down = read(names->down, {t.hidden, t.intermediate}, t.bias);
        b.mlpNorm = norm(names->mlpNorm);
        if (t.relativeBias && l == 0)
            w.relativeBias = r.tensor(
                t.prefix,
                numbered(names->layer, 0) + "layer.0.SelfAttention.relative_attention_bias.weight",
                {buckets, t.heads});
        w.blocks.push_back(std::move(b));
    }
    w.finalNorm = r.affine(t.prefix, t.finalNorm, {t.hidden}, !t.rmsNorm);
    return w;
}

TextEmbeddingWeights readWords(Reader& r, const TextEmbedding& e, const Tower& t, Index vocab) {
    TextEmbeddingWeights w;
    if (t.layers == 0) return w;
    std::vector<std::string> names;
    for (const std::string& name : e.words) names.push_back(name + ".weight");
    w.words = r.read(r.findOne(t.prefix, names), {vocab, t.hidden}, names.front());
    if (!e.positions.empty())
        w.positions = r.tensor(t.prefix, e.positions + ".weight", {e.positionRows, t.hidden});
    if (!e.types.empty()) w.types = r.tensor(t.prefix, e.types + ".weight", {e.typeRows, t.hidden});
    w.norm = r.affine(t.prefix, e.norm, {t.hidden}, true);
    return w;
}

void readImage(Reader& r, const ImageEmbedding& e, const Tower& t, EncoderWeights& w) {
    if (t.layers == 0) return;
    w.patches =
        r.affine(t.prefix, e.patches, {t.hidden, e.channels, e.patch, e.patch}, e.patchBias);
    // ViT keeps [1, 1, H] and [1, N, H], CLIP [H] and an embedding's weight.
    const bool plain = !r.find(t.prefix, e.positions + ".weight").empty();
    const Index tokens = e.grid().tokens();
    w.classToken = plain ? r.tensor(t.prefix, e.classToken, {t.hidden})
                         : r.tensor(t.prefix, e.classToken, {1, 1, t.hidden});
    w.positions = plain ? r.tensor(t.prefix, e.positions + ".weight", {tokens, t.hidden})
                        : r.tensor(t.prefix, e.positions, {1, tokens, t.hidden});
    w.classToken = w.classToken.view({1, t.hidden});
    w.positions = w.positions.view({tokens, t.hidden});
    w.imageNorm = r.affine(t.prefix, e.norm, {t.hidden}, true);
}

/// Checkpoints of the bare model have no head: then `output` stays undefined.
void readHead(Reader& r, const EncoderConfig& e, EncoderWeights& w) {
    const Index hidden = e.text.hidden;
    switch (e.head) {
        case EncoderHead::BertMaskedLm: {
            const std::string head = "cls.predictions.";
            if (!r.contains(head + "transform.dense.weight")) return;
            w.headDense = r.affine({}, head + "transform.dense", {hidden, hidden}, true);
            w.headNorm = r.affine({}, head + "transform.LayerNorm", {hidden}, true);
            w.output.weight = r.contains(head + "decoder.weight")
                                  ? r.tensor({}, head + "decoder.weight", {e.outputs, hidden})
                                  : w.words.words;
            w.output.bias = r.tensor(
                {}, r.contains(head + "bias") ? head + "bias" : head + "decoder.bias", {e.outputs});
            return;
        }
        case EncoderHead::RobertaMaskedLm:
            if (!r.contains("lm_head.dense.weight")) return;
            w.headDense = r.affine({}, "lm_head.dense", {hidden, hidden}, true);
            w.headNorm = r.affine({}, "lm_head.layer_norm", {hidden}, true);
            w.output.weight = r.contains("lm_head.decoder.weight")
                                  ? r.tensor({}, "lm_head.decoder.weight", {e.outputs, hidden})
                                  : w.words.words;
            w.output.bias =
                r.tensor({}, r.contains("lm_head.bias") ? "lm_head.bias" : "lm_head.decoder.bias",
                         {e.outputs});
            return;
        case EncoderHead::ImageClasses:
            if (r.contains("classifier.weight"))
                w.output = r.affine({}, "classifier", {e.outputs, e.vision.hidden}, true);
            return;
        case EncoderHead::ClipProjection:
            if (e.text.layers > 0 && r.contains("text_projection.weight"))
                w.textProjection =
                    r.affine({}, "text_projection", {e.outputs, e.text.hidden}, false);
            if (e.vision.layers > 0 && r.contains("visual_projection.weight"))
                w.visualProjection =
                    r.affine({}, "visual_projection", {e.outputs, e.vision.hidden}, false);
            return;
        case EncoderHead::LanguageModel:
            w.output.weight = r.contains("lm_head.weight")
                                  ? r.tensor({}, "lm_head.weight", {e.outputs, hidden})
                                  : w.decoderWords.words;
            if (r.contains("final_logits_bias"))
                w.output.bias = r.tensor({}, "final_logits_bias", {1, e.outputs}).view({e.outputs});
            return;
        case EncoderHead::None:
            return;
    }
}

/// Buffers and copies that need no mention: ids of positions, masks, what is tied to another.
bool expected(const std::string& name) {
    for (const char* part : {"position_ids", "embed_tokens.weight", "logit_scale"})
        if (name.find(part) != std::string::npos) return true;
    return false;
}

}  // namespace

EncoderWeights loadEncoderWeights(const std::filesystem::path& directory, const ModelConfig& config,
                                  const Job& job) {
    const EncoderConfig& e = *config.encoder;
    Reader r(directory, e, job);
    EncoderWeights w;
    w.words = readWords(r, e.words, e.text, config.vocab);
    w.decoderWords = readWords(r, e.decoderWords, e.decoder, config.vocab);
    readImage(r, e.image, e.vision, w);
    w.text = readTower(r, e.text, e.buckets);
    w.decoder = readTower(r, e.decoder, e.buckets);
    w.vision = readTower(r, e.vision, e.buckets);
    readHead(r, e, w);
    for (const std::string& name : r.unused())
        if (!expected(name)) w.unused.push_back(name);
    return w;
}

}  // namespace sparsight
