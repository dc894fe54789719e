#include "core/torch/encoder_weights.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/isfinite.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <optional>
#include <set>

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

/// Tensors of the model's files by name; in checking, only their shapes.
class Reader {
public:
    Reader(const std::filesystem::path& directory, const EncoderConfig& config, at::Device device)
        : m_where(directory.string()),
          m_file(SafeTensors::openModel(directory)),
          m_prefixes(config.prefixes),
          m_device(device) {}

    /// From here on values are read. @return tensors that nothing asked for
    std::vector<std::string> endChecking() {
        m_checking = false;
        std::vector<std::string> list;
        for (const auto& [name, tensor] : m_file.tensors())
            if (!m_used.contains(name)) list.push_back(name);
        return list;
    }
    Index bytes() const { return m_bytes; }
    void releasePages() const { m_file.releasePages(); }

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
    /// @return undefined in checking
    at::Tensor read(const std::string& full, const Shape& shape, const std::string& wanted) {
        if (full.empty())
            throw Error(Errc::Format, m_where + ": the weights have no tensor '" + wanted + "' (" +
                                          shapeText(shape) + " expected)");
        if (const Shape& found = m_file.shape(full); found != shape)
            throw Error(Errc::Format, m_where + ": tensor '" + full + "' has shape " +
                                          shapeText(found) + ", config.json calls for " +
                                          shapeText(shape));
        if (m_checking) {
            Index bytes = Index(sizeof(float));
            for (const Index d : shape) bytes *= d;
            if (m_used.insert(full).second) m_bytes += bytes;
            return {};
        }
        const std::vector<float> values = m_file.at(full).toFloat();
        at::Tensor out = at::empty(shape, at::kFloat);
        std::memcpy(out.data_ptr<float>(), values.data(), values.size() * sizeof(float));
        if (!at::isfinite(out).all().item<bool>())
            throw Error(Errc::Format, m_where + ": tensor '" + full +
                                          "' holds NaN or infinite values; the file is damaged");
        return out.to(m_device);
    }
    /// As read(), for a matrix with a row per token, which several parts may use: read once.
    at::Tensor readShared(const std::string& full, const Shape& shape, const std::string& wanted) {
        if (const auto at = m_shared.find(full); at != m_shared.end()) return at->second;
        const at::Tensor out = read(full, shape, wanted);
        if (!m_checking) m_shared[full] = out;
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

private:
    std::string m_where;
    SafeTensors m_file;
    const std::vector<std::string>& m_prefixes;
    at::Device m_device;
    bool m_checking = true;
    std::set<std::string> m_used;
    std::map<std::string, at::Tensor> m_shared;
    Index m_bytes = 0;
};

std::string numbered(const std::string& layer, Index number) {
    const auto at = layer.find('#');
    return layer.substr(0, at) + std::to_string(number) + layer.substr(at + 1);
}

/// The names of a tower's blocks in this file.
const BlockNames& namesOf(const Reader& r, const Tower& t) {
    for (const BlockNames& n : t.names)
        if (!r.find(t.prefix, numbered(n.layer, 0) + n.q + ".weight").empty()) return n;
    return t.names.front();
}

EncoderBlockWeights readBlock(Reader& r, const Tower& t, Index l) {
    const BlockNames& names = namesOf(r, t);
    const Index width = t.heads * t.headDim;
    const auto read = [&](const std::string& name, const Shape& shape, bool bias) {
        return name.empty() ? Affine{}
                            : r.affine(t.prefix, numbered(names.layer, l) + name, shape, bias);
    };
    const auto norm = [&](const std::string& name) { return read(name, {t.hidden}, !t.rmsNorm); };
    EncoderBlockWeights b;
    b.q = read(names.q, {width, t.hidden}, t.bias && t.qkvBias);
    b.k = read(names.k, {width, t.hidden}, t.bias && t.qkvBias);
    b.v = read(names.v, {width, t.hidden}, t.bias && t.qkvBias);
    b.o = read(names.o, {t.hidden, width}, t.bias);
    b.attentionNorm = norm(names.attentionNorm);
    b.crossQ = read(names.crossQ, {width, t.hidden}, t.bias);
    b.crossK = read(names.crossK, {width, t.hidden}, t.bias);
    b.crossV = read(names.crossV, {width, t.hidden}, t.bias);
    b.crossO = read(names.crossO, {t.hidden, width}, t.bias);
    b.crossNorm = norm(names.crossNorm);
    b.up = read(names.up, {t.intermediate, t.hidden}, t.bias);
    b.gate = read(names.gate, {t.intermediate, t.hidden}, t.bias);
    b.down = read(names.down, {t.hidden, t.intermediate}, t.bias);
    b.mlpNorm = norm(names.mlpNorm);
    return b;
}

TowerWeights readTower(Reader& r, const Tower& t, Index buckets) {
    TowerWeights w;
    if (t.layers == 0) return w;
    if (t.relativeBias)
        w.relativeBias = r.tensor(t.prefix,
                                  numbered(namesOf(r, t).layer, 0) +
                                      "layer.0.SelfAttention.relative_attention_bias.weight",
                                  {buckets, t.heads});
    w.finalNorm = r.affine(t.prefix, t.finalNorm, {t.hidden}, !t.rmsNorm);
    return w;
}

TextEmbeddingWeights readWords(Reader& r, const TextEmbedding& e, const Tower& t, Index vocab) {
    TextEmbeddingWeights w;
    if (t.layers == 0) return w;
    std::vector<std::string> names;
    for (const std::string& name : e.words) names.push_back(name + ".weight");
    w.words = r.readShared(r.findOne(t.prefix, names), {vocab, t.hidden}, names.front());
    if (!e.positions.empty())
        w.positions = r.tensor(t.prefix, e.positions + ".weight", {e.positionRows, t.hidden});
    if (!e.types.empty()) w.types = r.tensor(t.prefix, e.types + ".weight", {e.typeRows, t.hidden});
    w.norm = r.affine(t.prefix, e.norm, {t.hidden}, true);
    return w;
}

ImageEmbeddingWeights readImage(Reader& r, const ImageEmbedding& e, const Tower& t) {
    ImageEmbeddingWeights w;
    if (t.layers == 0) return w;
    w.patches =
        r.affine(t.prefix, e.patches, {t.hidden, e.channels, e.patch, e.patch}, e.patchBias);
    // ViT keeps [1, 1, H] and [1, N, H], CLIP [H] and an embedding's weight.
    const bool plain = !r.find(t.prefix, e.positions + ".weight").empty();
    const Index tokens = e.grid().tokens();
    w.classToken = plain ? r.tensor(t.prefix, e.classToken, {t.hidden})
                         : r.tensor(t.prefix, e.classToken, {1, 1, t.hidden});
    w.positions = plain ? r.tensor(t.prefix, e.positions + ".weight", {tokens, t.hidden})
                        : r.tensor(t.prefix, e.positions, {1, tokens, t.hidden});
    if (w.classToken.defined()) {
        w.classToken = w.classToken.view({1, t.hidden});
        w.positions = w.positions.view({tokens, t.hidden});
    }
    w.norm = r.affine(t.prefix, e.norm, {t.hidden}, true);
    return w;
}

/// An output matrix of its own, or the embedding.
at::Tensor readOutput(Reader& r, const std::string& name, const EncoderConfig& e, const Tower& t,
                      const TextEmbedding& words) {
    std::vector<std::string> names;
    for (const std::string& word : words.words) names.push_back(word + ".weight");
    const std::string own = r.find({}, name);
    return r.readShared(own.empty() ? r.findOne(t.prefix, names) : own, {e.outputs, t.hidden},
                        name);
}

/// The bias of the output matrix, or the head's, to which it is tied where it has none of its own.
at::Tensor readOutputBias(Reader& r, const std::string& head, const EncoderConfig& e) {
    const std::string own = head + "decoder.bias";
    return r.tensor({}, r.contains(own) ? own : head + "bias", {e.outputs});
}

/// Checkpoints of the bare model have no head: then `output` stays undefined.
HeadWeights readHead(Reader& r, const EncoderConfig& e) {
    const Index hidden = e.text.hidden;
    HeadWeights w;
    switch (e.head) {
        case EncoderHead::BertMaskedLm: {
            const std::string head = "cls.predictions.";
            if (!r.contains(head + "transform.dense.weight")) break;
            w.dense = r.affine({}, head + "transform.dense", {hidden, hidden}, true);
            w.norm = r.affine({}, head + "transform.LayerNorm", {hidden}, true);
            w.output.weight = readOutput(r, head + "decoder.weight", e, e.text, e.words);
            w.output.bias = readOutputBias(r, head, e);
            break;
        }
        case EncoderHead::RobertaMaskedLm:
            if (!r.contains("lm_head.dense.weight")) break;
            w.dense = r.affine({}, "lm_head.dense", {hidden, hidden}, true);
            w.norm = r.affine({}, "lm_head.layer_norm", {hidden}, true);
            w.output.weight = readOutput(r, "lm_head.decoder.weight", e, e.text, e.words);
            w.output.bias = readOutputBias(r, "lm_head.", e);
            break;
        case EncoderHead::ImageClasses:
            if (r.contains("classifier.weight"))
                w.output = r.affine({}, "classifier", {e.outputs, e.vision.hidden}, true);
            break;
        case EncoderHead::ClipProjection:
            if (e.text.layers > 0 && r.contains("text_projection.weight"))
                w.textProjection =
                    r.affine({}, "text_projection", {e.outputs, e.text.hidden}, false);
            if (e.vision.layers > 0 && r.contains("visual_projection.weight"))
                w.visualProjection =
                    r.affine({}, "visual_projection", {e.outputs, e.vision.hidden}, false);
            break;
        case EncoderHead::LanguageModel:
            w.output.weight = readOutput(r, "lm_head.weight", e, e.decoder, e.decoderWords);
            if (r.contains("final_logits_bias")) {
                w.output.bias = r.tensor({}, "final_logits_bias", {1, e.outputs});
                if (w.output.bias.defined()) w.output.bias = w.output.bias.view({e.outputs});
            }
            break;
        case EncoderHead::None:
            break;
    }
    return w;
}

/// Buffers and copies that need no mention: ids of positions, masks, what is tied to another.
bool expected(const std::string& name) {
    for (const char* part : {"position_ids", "embed_tokens.weight", "shared.weight", "logit_scale",
                             "lm_head.bias", "cls.predictions.bias"})
        if (name.find(part) != std::string::npos) return true;
    return false;
}

}  // namespace

struct EncoderWeights::Impl {
    Impl(const std::filesystem::path& directory, const ModelConfig& config, at::Device device)
        : model(config), e(*model.encoder), file(directory, e, device) {
        readWords(file, e.words, e.text, model.vocab);
        readWords(file, e.decoderWords, e.decoder, model.vocab);
        readImage(file, e.image, e.vision);
        for (const Side side : {Side::Text, Side::Decoder, Side::Vision}) {
            readTower(file, towerOf(side), e.buckets);
            for (Index l = 0; l < towerOf(side).layers; ++l) readBlock(file, towerOf(side), l);
            blocks[std::size_t(side)].resize(std::size_t(towerOf(side).layers));
        }
        readHead(file, e);
        for (const std::string& name : file.endChecking())
            if (!expected(name)) unused.push_back(name);
    }
    const Tower& towerOf(Side side) const {
        return side == Side::Text ? e.text : side == Side::Decoder ? e.decoder : e.vision;
    }

    const ModelConfig model;  ///< a copy: the file's reader refers to it
    const EncoderConfig& e;
    Reader file;
    std::vector<std::string> unused;
    std::optional<TextEmbeddingWeights> words, decoderWords;
    std::optional<ImageEmbeddingWeights> image;
    std::optional<TowerWeights> towers[3];
    std::vector<std::shared_ptr<const EncoderBlockWeights>> blocks[3];
    std::optional<HeadWeights> head;
};

EncoderWeights::EncoderWeights(const std::filesystem::path& directory, const ModelConfig& config,
                               at::Device device)
    : m_impl(std::make_unique<Impl>(directory, config, device)) {}
EncoderWeights::~EncoderWeights() = default;

const TextEmbeddingWeights& EncoderWeights::words(Side side) {
    Impl& m = *m_impl;
    const bool text = side == Side::Text;
    auto& slot = text ? m.words : m.decoderWords;
    if (!slot)
        slot =
            readWords(m.file, text ? m.e.words : m.e.decoderWords, m.towerOf(side), m.model.vocab);
    return *slot;
}

const ImageEmbeddingWeights& EncoderWeights::image() {
    Impl& m = *m_impl;
    if (!m.image) m.image = readImage(m.file, m.e.image, m.e.vision);
    return *m.image;
}

const TowerWeights& EncoderWeights::tower(Side side) {
    Impl& m = *m_impl;
    auto& slot = m.towers[std::size_t(side)];
    if (!slot) slot = readTower(m.file, m.towerOf(side), m.e.buckets);
    return *slot;
}

const HeadWeights& EncoderWeights::head() {
    Impl& m = *m_impl;
    if (!m.head) m.head = readHead(m.file, m.e);
    return *m.head;
}

std::shared_ptr<const EncoderBlockWeights> EncoderWeights::block(Side side, Index l, bool stays) {
    Impl& m = *m_impl;
    auto& slot = m.blocks[std::size_t(side)][std::size_t(l)];
    if (slot) return slot;
    auto read = std::make_shared<const EncoderBlockWeights>(readBlock(m.file, m.towerOf(side), l));
    if (stays)
        slot = read;
    else
        m.file.releasePages();
    return read;
}

void EncoderWeights::readAll(const Job& job) {
    Impl& m = *m_impl;
    const EncoderConfig& e = m.e;
    const Index all = e.text.layers + e.decoder.layers + e.vision.layers;
    Index done = 0;
    for (const Side side : {Side::Text, Side::Decoder, Side::Vision}) {
        const Tower& t = m.towerOf(side);
        if (t.layers == 0) continue;
        if (side == Side::Vision)
            image();
        else
            words(side);
        tower(side);
        for (Index l = 0; l < t.layers; ++l) {
            job.step(double(done) / double(all),
                     "reading layer " + std::to_string(done + 1) + " of " + std::to_string(all));
            ++done;
            block(side, l, true);
        }
    }
    head();
}

Index EncoderWeights::bytes() const {
    return m_impl->file.bytes();
}

const std::vector<std::string>& EncoderWeights::unused() const {
    return m_impl->unused;
}

}  // namespace sparsight
