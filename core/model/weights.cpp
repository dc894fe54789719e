#include "core/model/weights.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>

#include "kernels/base/error.h"

namespace sparsight {
namespace {

std::string shapeText(const std::vector<Index>& shape) {
    std::string text = "[";
    for (std::size_t i = 0; i < shape.size(); ++i)
        text += (i ? ", " : "") + std::to_string(shape[i]);
    return text + "]";
}

Index bytesPerElement(const StTensor& t) {
    const Index n = t.elements();
    return n == 0 ? 0 : Index(t.bytes.size()) / n;
}

/// Elements [first, first + count) of `t` as a tensor of one dimension.
StTensor partOf(const StTensor& t, Index first, Index count) {
    StTensor part = t;
    const Index width = bytesPerElement(t);
    part.shape = {count};
    part.bytes = t.bytes.subspan(std::size_t(first * width), std::size_t(count * width));
    return part;
}

Weight owned(std::vector<float> values, Index rows, Index cols) {
    Weight w;
    w.own = std::make_shared<const std::vector<float>>(std::move(values));
    w.data = w.own->data();
    w.rows = rows;
    w.cols = cols;
    return w;
}

/// Buffers of old files that are no weights.
bool isBuffer(const std::string& name) {
    for (const char* end : {".inv_freq", ".masked_bias", ".position_ids", ".attn.bias",
                            ".attention.bias", ".rotary_emb.cos_cached", ".rotary_emb.sin_cached"})
        if (name.ends_with(end)) return true;
    return false;
}

constexpr Index kTile = 128;  // edge of an fp8 tile with one scale
constexpr Index kGroup = 32;  // values of an MXFP4 group with one scale
constexpr float kMxfp4[16] = {0, .5f, 1, 1.5f, 2, 3, 4, 6, -0.f, -.5f, -1, -1.5f, -2, -3, -4, -6};

}  // namespace

Weight Weight::slice(Index first, Index n) const {
    Weight w = *this;
    if (data) w.data = data + first * cols;
    if (stored.first) w.stored.first += first * stored.rowStride * stored.bytesPerElement();
    w.rows = n;
    return w;
}

Index availableMemory() {
    std::ifstream in("/proc/meminfo");
    std::string key;
    for (Index kB = 0; in >> key >> kB; in.ignore(64, '\n'))
        if (key == "MemAvailable:") return kB * 1024;
    return Index(sysconf(_SC_PHYS_PAGES)) / 2 * Index(sysconf(_SC_PAGESIZE));
}

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

WeightFile::WeightFile(const std::filesystem::path& directory,
                       const std::vector<std::string>& prefixes, const std::string& landmark,
                       Mode mode)
    : m_where(directory.string()), m_file(SafeTensors::openModel(directory)), m_mode(mode) {
    m_prefix = prefixes.empty() ? std::string() : prefixes.front();
    for (const std::string& p : prefixes)
        if (m_file.contains(p + landmark)) {
            m_prefix = p;
            break;
        }
}

void WeightFile::require(const std::string& name, const std::vector<Index>& shape) {
    if (!m_file.contains(name))
        throw Error(Errc::Format, m_where + ": the weights have no tensor '" + name + "' (" +
                                      shapeText(shape) + " expected)");
    const std::vector<Index>& found = m_file.shape(name);
    if (found != shape)
        throw Error(Errc::Format, m_where + ": tensor '" + name + "' has shape " +
                                      shapeText(found) + ", config.json calls for " +
                                      shapeText(shape));
    if (m_used.insert(name).second) {
        Index n = 4;
        for (const Index d : shape) n *= d;
        m_wanted += n;
    }
}

void WeightFile::check(const std::string& name, const float* x, Index count) const {
    if (!allFinite(x, count))
        throw Error(Errc::Format, m_where + ": tensor '" + name +
                                      "' holds NaN or infinite values; the file is damaged");
}

Weight WeightFile::read(const std::string& name, const std::vector<Index>& shape) {
    require(name, shape);
    const Index rows = shape.at(0), cols = shape.size() > 1 ? shape[1] : 1;
    if (m_mode == Mode::CheckOnly) {
        Weight w;
        w.rows = rows;
        w.cols = cols;
        return w;
    }
    Weight w = storedPart(name, 0, rows, cols);
    if (w.given()) return w;
    const StTensor& t = m_file.at(name);
    const auto address = reinterpret_cast<std::uintptr_t>(t.bytes.data());
    if (t.dtype == StDType::F32 && address % alignof(float) == 0) {
        w.data = reinterpret_cast<const float*>(address);
        w.rows = rows;
        w.cols = cols;
    } else {
        std::vector<float> values = t.toFloat();
        const std::string scales = name + "_scale_inv";
        if (t.dtype == StDType::F8_E4M3 && m_file.contains(scales)) {
            const Index tileRows = (rows + kTile - 1) / kTile,
                        tileCols = (cols + kTile - 1) / kTile;
            require(scales, {tileRows, tileCols});
            const std::vector<float> scale = m_file.at(scales).toFloat();
            for (Index i = 0; i < rows; ++i)
                for (Index j = 0; j < cols; ++j)
                    values[std::size_t(i * cols + j)] *=
                        scale[std::size_t(i / kTile * tileCols + j / kTile)];
        }
        w = owned(std::move(values), rows, cols);
    }
    check(name, w.data, w.count());
    return w;
}

Weight WeightFile::readTransposed(const std::string& name, Index rows, Index cols) {
    const Weight stored = read(name, {cols, rows});
    if (m_mode == Mode::CheckOnly) return stored;
    if (stored.stored.first) {
        Weight w = stored;
        std::swap(w.rows, w.cols);
        std::swap(w.stored.rowStride, w.stored.colStride);
        return w;
    }
    std::vector<float> values(std::size_t(rows * cols));
    for (Index i = 0; i < rows; ++i)
        for (Index j = 0; j < cols; ++j)
            values[std::size_t(i * cols + j)] = stored.data[j * rows + i];
    return owned(std::move(values), rows, cols);
}

Linear WeightFile::linear(const std::string& name, Index out, Index in, bool bias,
                          bool transposed) {
    Linear l;
    l.w =
        transposed ? readTransposed(name + ".weight", out, in) : read(name + ".weight", {out, in});
    if (bias) l.b = read(name + ".bias", {out});
    return l;
}

NormWeight WeightFile::norm(const std::string& name, Index width, bool bias) {
    NormWeight n;
    n.w = read(name + ".weight", {width});
    if (bias) n.b = read(name + ".bias", {width});
    return n;
}

Weight WeightFile::storedPart(const std::string& name, Index first, Index rows, Index cols) const {
    Weight w;
    if (m_mode != Mode::Stored) return w;
    const StTensor& t = m_file.at(name);
    if (t.dtype != StDType::F32 && t.dtype != StDType::F16 && t.dtype != StDType::BF16) return w;
    w.rows = rows;
    w.cols = cols;
    w.stored.type = t.dtype;
    w.stored.rowStride = cols;
    w.stored.first = t.bytes.data() + first * w.stored.bytesPerElement();
    return w;
}

void WeightFile::readPart(const std::string& name, Index first, std::span<float> out) {
    const StTensor part = partOf(m_file.at(name), first, Index(out.size()));
    const std::vector<float> values = part.toFloat();
    std::copy(values.begin(), values.end(), out.begin());
    check(name, out.data(), Index(out.size()));
}

void WeightFile::readMxfp4(const std::string& name, Index expert, Index rows, Index cols,
                           float* out) {
    const StTensor &blocks = m_file.at(name + "_blocks"), &scales = m_file.at(name + "_scales");
    if (blocks.dtype != StDType::U8 || scales.dtype != StDType::U8)
        throw Error(Errc::Format, m_where + ": tensors '" + name +
                                      "_blocks' and '_scales' must be bytes (U8), not " +
                                      blocks.dtypeName + " and " + scales.dtypeName);
    const Index groups = rows * cols / kGroup;
    const std::byte* b = blocks.bytes.data() + expert * groups * kGroup / 2;
    const std::byte* s = scales.bytes.data() + expert * groups;
    for (Index g = 0; g < groups; ++g) {
        const float scale = std::ldexp(1.0f, std::to_integer<int>(s[g]) - 127);
        for (Index i = 0; i < kGroup / 2; ++i) {  // the low nibble comes first
            const unsigned byte = std::to_integer<unsigned>(b[g * kGroup / 2 + i]);
            out[g * kGroup + 2 * i] = kMxfp4[byte & 15u] * scale;
            out[g * kGroup + 2 * i + 1] = kMxfp4[byte >> 4] * scale;
        }
    }
    check(name + "_blocks", out, rows * cols);
}

std::vector<std::string> WeightFile::leftovers() const {
    std::vector<std::string> out;
    for (const auto& [name, tensor] : m_file.tensors())
        if (!m_used.contains(name) && !isBuffer(name) && !name.ends_with("_scale_inv"))
            out.push_back(name);
    return out;
}

// --- decoder layers
// -------------------------------------------------------------------------------

namespace {

/// `rows` of a fused matrix become three, each with its part of the bias.
Linear slice(const Linear& all, Index first, Index n) {
    Linear l;
    l.w = all.w.slice(first, n);
    if (all.b.rows > 0) l.b = all.b.slice(first, n);
    return l;
}

/// Rows ordered head by head as q, k, v -> rows [first, first + d) of every head, stacked.
Weight headRows(const Weight& all, Index heads, Index perHead, Index first, Index d) {
    Weight w = all.slice(0, heads * d);
    if (!all.given()) return w;
    if (w.stored.first) {
        StoredWeight& s = w.stored;
        s.groups = heads;
        s.groupStride = perHead * s.rowStride;
        s.first += first * s.rowStride * s.bytesPerElement();
        return w;
    }
    std::vector<float> values(std::size_t(heads * d * all.cols));
    for (Index h = 0; h < heads; ++h)
        std::copy_n(all.data + (h * perHead + first) * all.cols, d * all.cols,
                    values.data() + h * d * all.cols);
    return owned(std::move(values), heads * d, all.cols);
}

void readQkv(WeightFile& f, const ModelConfig& c, const std::string& at, LayerWeights& w) {
    const DecoderBlock& b = c.block;
    const Index q = c.heads * c.headDim, k = c.kvHeads * c.headDim, v = c.kvHeads * c.valueWidth();
    if (b.qkv.empty()) {
        w.q = f.linear(at + b.q, q, c.hidden, b.qkvBias, b.transposed);
        w.k = f.linear(at + b.k, k, c.hidden, b.qkvBias, b.transposed);
        w.v = f.linear(at + b.v, v, c.hidden, b.qkvBias, b.transposed);
        return;
    }
    const Linear all = f.linear(at + b.qkv, q + k + v, c.hidden, b.qkvBias, b.transposed);
    if (b.order == QkvOrder::Stacked) {
        w.q = slice(all, 0, q);
        w.k = slice(all, q, k);
        w.v = slice(all, q + k, v);
        return;
    }
    const Index d = c.headDim;
    Linear* parts[] = {&w.q, &w.k, &w.v};
    for (Index i = 0; i < 3; ++i) {
        parts[i]->w = headRows(all.w, c.heads, 3 * d, i * d, d);
        if (all.b.rows > 0) parts[i]->b = headRows(all.b, c.heads, 3 * d, i * d, d);
    }
}

void readLatent(WeightFile& f, const ModelConfig& c, const std::string& at, LayerWeights& w) {
    const LatentConfig& m = c.latent;
    const Index q = c.heads * c.headDim;
    if (m.qRank > 0) {
        w.qDown = f.linear(at + "self_attn.q_a_proj", m.qRank, c.hidden, m.bias);
        w.qDownNorm = f.norm(at + "self_attn.q_a_layernorm", m.qRank, false);
        w.q = f.linear(at + "self_attn.q_b_proj", q, m.qRank, false);
    } else {
        w.q = f.linear(at + "self_attn.q_proj", q, c.hidden, false);
    }
    w.kvDown = f.linear(at + "self_attn.kv_a_proj_with_mqa", m.kvRank + m.rope, c.hidden, m.bias);
    w.kvDownNorm = f.norm(at + "self_attn.kv_a_layernorm", m.kvRank, false);
    w.kvUp =
        f.linear(at + "self_attn.kv_b_proj", c.heads * (m.nope + c.valueWidth()), m.kvRank, false);
}

MlpWeights readMlp(WeightFile& f, const ModelConfig& c, const std::string& at, Index width) {
    const DecoderBlock& b = c.block;
    MlpWeights m;
    if (!b.gateUp.empty()) {
        const Linear both = f.linear(at + b.gateUp, 2 * width, c.hidden, b.mlpBias, b.transposed);
        m.gate = slice(both, 0, width);
        m.up = slice(both, width, width);
    } else {
        if (!b.gate.empty())
            m.gate = f.linear(at + b.gate, width, c.hidden, b.mlpBias, b.transposed);
        m.up = f.linear(at + b.up, width, c.hidden, b.mlpBias, b.transposed);
    }
    m.down = f.linear(at + b.down, c.hidden, width, b.mlpBias, b.transposed);
    return m;
}

std::string layerPrefix(const WeightFile& f, const ModelConfig& c, Index l) {
    return f.prefix() + c.block.layers + std::to_string(l) + ".";
}

/// How a file stores its experts.
enum class Stored {
    OneByOne,  ///< each matrix under the number of its expert
    Stacked,   ///< [E, 2I, H] rows of gate, then of up; [E, H, I]
    Columns,   ///< [E, H, 2I] gate in even columns, up in odd ones; [E, I, H] (gpt_oss)
    Mxfp4      ///< the same, in blocks, rows and columns swapped
};

struct ExpertNames {
    Stored stored = Stored::OneByOne;
    std::string at;  ///< up to "experts."
};

ExpertNames expertNames(const WeightFile& f, const ModelConfig& c, const std::string& at) {
    ExpertNames n;
    n.at = at + c.experts.block + "experts.";
    if (c.experts.router == Router::TopSoftmax) {
        n.stored = f.contains(n.at + "gate_up_proj_blocks") ? Stored::Mxfp4 : Stored::Columns;
        return n;
    }
    for (const std::string& block : {c.experts.block, std::string("mlp.")})
        if (f.contains(at + block + "experts.gate_up_proj"))
            return {Stored::Stacked, at + block + "experts."};
    return n;
}

/// Checks that a layer's experts are there.
void requireExperts(WeightFile& f, const ModelConfig& c, Index l) {
    const ExpertsConfig& e = c.experts;
    const ExpertNames n = expertNames(f, c, layerPrefix(f, c, l));
    const Index I = e.intermediate, H = c.hidden;
    switch (n.stored) {
        case Stored::OneByOne:
            for (Index i = 0; i < e.count; ++i) {
                const std::string at = n.at + std::to_string(i) + ".";
                f.require(at + e.gate + ".weight", {I, H});
                f.require(at + e.up + ".weight", {I, H});
                f.require(at + e.down + ".weight", {H, I});
            }
            return;
        case Stored::Stacked:
            f.require(n.at + "gate_up_proj", {e.count, 2 * I, H});
            f.require(n.at + "down_proj", {e.count, H, I});
            return;
        case Stored::Columns:
            f.require(n.at + "gate_up_proj", {e.count, H, 2 * I});
            f.require(n.at + "down_proj", {e.count, I, H});
            break;
        case Stored::Mxfp4:
            for (const auto& [name, rows, cols] :
                 {std::tuple{"gate_up_proj", 2 * I, H}, std::tuple{"down_proj", H, I}}) {
                f.require(n.at + name + "_blocks", {e.count, rows, cols / kGroup, kGroup / 2});
                f.require(n.at + name + "_scales", {e.count, rows, cols / kGroup});
            }
            break;
    }
    f.require(n.at + "gate_up_proj_bias", {e.count, 2 * I});
    f.require(n.at + "down_proj_bias", {e.count, H});
}

/// [rows, cols] of which every second row from `first` on.
Weight everySecondRow(const std::vector<float>& x, Index first, Index rows, Index cols) {
    std::vector<float> out(std::size_t(rows * cols));
    for (Index i = 0; i < rows; ++i)
        std::copy_n(x.data() + (2 * i + first) * cols, cols, out.data() + i * cols);
    return owned(std::move(out), rows, cols);
}

std::vector<float> transposed(const std::vector<float>& x, Index rows, Index cols) {
    std::vector<float> out(x.size());
    for (Index i = 0; i < rows; ++i)
        for (Index j = 0; j < cols; ++j)
            out[std::size_t(i * cols + j)] = x[std::size_t(j * rows + i)];
    return out;
}

}  // namespace

LayerWeights readLayer(WeightFile& f, const ModelConfig& c, Index l) {
    const DecoderBlock& b = c.block;
    const std::string at = layerPrefix(f, c, l);
    LayerWeights w;
    const auto norm = [&](const std::string& name) {
        return name.empty() ? NormWeight{} : f.norm(at + name, c.hidden, b.norm == NormKind::Layer);
    };
    w.attentionNorm = norm(b.attentionNorm);
    w.attentionOutNorm = norm(b.attentionOutNorm);
    w.attentionSumNorm = norm(b.attentionSumNorm);
    w.mlpNorm = norm(b.mlpNorm);
    w.mlpOutNorm = norm(b.mlpOutNorm);
    w.mlpSumNorm = norm(b.mlpSumNorm);
    if (c.latent.used())
        readLatent(f, c, at, w);
    else
        readQkv(f, c, at, w);
    w.o = f.linear(at + b.o, c.hidden, c.heads * c.valueWidth(), b.oBias, b.transposed);
    if (!b.qNorm.empty()) {
        const Index d = c.headDim;
        w.qNorm = f.norm(at + b.qNorm, b.wholeNorms ? c.heads * d : d, false);
        w.kNorm = f.norm(at + b.kNorm, b.wholeNorms ? c.kvHeads * d : d, false);
    }
    if (!b.sinks.empty()) w.sinks = f.read(at + b.sinks, {c.heads});

    const ExpertsConfig& e = c.experts;
    if (!c.layer(l).experts) {
        w.mlp = readMlp(f, c, at, c.intermediate);
        return w;
    }
    // Files with stacked experts may also use the newer name of the router.
    const std::string router =
        f.contains(at + e.routerName + ".weight") || !f.contains(at + "mlp.gate.weight")
            ? e.routerName
            : "mlp.gate";
    w.router = f.linear(at + router, e.count, c.hidden, e.routerBias);
    if (!e.correctionBias.empty()) w.correction = f.read(at + e.correctionBias, {e.count});
    if (e.sharedIntermediate > 0) {
        const std::string shared = at + e.block + "shared_experts.";
        w.mlp.gate = f.linear(shared + e.gate, e.sharedIntermediate, c.hidden, b.mlpBias);
        w.mlp.up = f.linear(shared + e.up, e.sharedIntermediate, c.hidden, b.mlpBias);
        w.mlp.down = f.linear(shared + e.down, c.hidden, e.sharedIntermediate, b.mlpBias);
    }
    if (f.mode() == WeightFile::Mode::CheckOnly) requireExperts(f, c, l);
    return w;
}

MlpWeights readExpert(WeightFile& f, const ModelConfig& c, Index l, Index expert) {
    const ExpertsConfig& e = c.experts;
    const ExpertNames n = expertNames(f, c, layerPrefix(f, c, l));
    const Index I = e.intermediate, H = c.hidden;
    MlpWeights m;
    if (n.stored == Stored::OneByOne) {
        const std::string at = n.at + std::to_string(expert) + ".";
        m.gate = f.linear(at + e.gate, I, H, false);
        m.up = f.linear(at + e.up, I, H, false);
        m.down = f.linear(at + e.down, H, I, false);
        return m;
    }
    if (n.stored == Stored::Stacked) {
        const Weight all = f.storedPart(n.at + "gate_up_proj", expert * 2 * I * H, 2 * I, H);
        if (all.given()) {
            m.gate.w = all.slice(0, I);
            m.up.w = all.slice(I, I);
            m.down.w = f.storedPart(n.at + "down_proj", expert * H * I, H, I);
            if (m.down.w.given()) return m;
        }
    }
    std::vector<float> both(std::size_t(2 * I * H)), down(std::size_t(H * I));
    if (n.stored == Stored::Mxfp4) {
        f.readMxfp4(n.at + "gate_up_proj", expert, 2 * I, H, both.data());
        f.readMxfp4(n.at + "down_proj", expert, H, I, down.data());
    } else {
        f.readPart(n.at + "gate_up_proj", expert * 2 * I * H, both);
        f.readPart(n.at + "down_proj", expert * H * I, down);
    }
    if (n.stored == Stored::Stacked) {
        const Weight all = owned(std::move(both), 2 * I, H);
        m.gate.w = all.slice(0, I);
        m.up.w = all.slice(I, I);
        m.down.w = owned(std::move(down), H, I);
        return m;
    }
    if (n.stored == Stored::Columns) {
        both = transposed(both, 2 * I, H);
        down = transposed(down, H, I);
    }
    m.gate.w = everySecondRow(both, 0, I, H);
    m.up.w = everySecondRow(both, 1, I, H);
    m.down.w = owned(std::move(down), H, I);
    std::vector<float> bothBias(std::size_t(2 * I)), downBias(static_cast<std::size_t>(H));
    f.readPart(n.at + "gate_up_proj_bias", expert * 2 * I, bothBias);
    f.readPart(n.at + "down_proj_bias", expert * H, downBias);
    m.gate.b = everySecondRow(bothBias, 0, I, 1);
    m.up.b = everySecondRow(bothBias, 1, I, 1);
    m.down.b = owned(std::move(downBias), H, 1);
    return m;
}

WeightFile openWeights(const std::filesystem::path& directory, const ModelConfig& c) {
    const Architecture& row = architecture(c.arch);
    return {directory, row.prefixes, row.embedding};
}

std::string outputMatrix(const WeightFile& f, const ModelConfig& c) {
    const Architecture& row = architecture(c.arch);
    for (const std::string& name : row.headNames)
        if (f.contains(name)) return name;
    return f.prefix() + row.embedding;
}

std::vector<std::string> checkWeights(WeightFile& f, const ModelConfig& c) {
    const Architecture& row = architecture(c.arch);
    const WeightFile::Mode before = f.mode();
    f.setMode(WeightFile::Mode::CheckOnly);
    std::vector<std::string> notes = f.file().notes();
    const Index width = c.embeddingWidth > 0 ? c.embeddingWidth : c.hidden;
    const std::string embedding = f.prefix() + row.embedding, head = outputMatrix(f, c);
    // One matrix of the two is enough: it then serves as both.
    if (f.contains(embedding) || head == embedding) f.require(embedding, {c.vocab, width});
    if (head != embedding) f.require(head, {c.vocab, width});
    if (head == embedding && !c.tiedEmbeddings)
        notes.push_back("the output matrix is missing: the embedding is used in its place");
    if (c.positionRows > 0) f.require(f.prefix() + row.positions, {c.positionRows, c.hidden});
    if (width != c.hidden) {
        f.require(f.prefix() + "project_in.weight", {c.hidden, width});
        f.require(f.prefix() + "project_out.weight", {width, c.hidden});
    }
    if (c.finalNorm) f.norm(f.prefix() + row.finalNorm, c.hidden, c.block.norm == NormKind::Layer);
    for (Index l = 0; l < c.layers; ++l) readLayer(f, c, l);
    f.setMode(before);

    std::vector<std::string> unknown;
    Index beyond = 0;
    const std::string layers = f.prefix() + c.block.layers;
    for (const std::string& name : f.leftovers()) {
        const bool numbered = name.starts_with(layers) && name.size() > layers.size() &&
                              std::isdigit(static_cast<unsigned char>(name[layers.size()])) != 0;
        if (numbered && std::atoll(name.c_str() + layers.size()) >= c.layers)
            ++beyond;  // DeepSeek's layers for predicting several tokens
        else
            unknown.push_back(name);
    }
    if (beyond > 0)
        notes.push_back(std::to_string(beyond) + " tensors of layers after the last are not used");
    if (!unknown.empty()) {
        std::string text = unknown.size() == 1
                               ? std::string("1 tensor is not used: ")
                               : std::to_string(unknown.size()) + " tensors are not used: ";
        for (std::size_t i = 0; i < std::min<std::size_t>(unknown.size(), 3); ++i)
            text += (i ? ", " : "") + unknown[i];
        notes.push_back(text + (unknown.size() > 3 ? ", ..." : ""));
    }
    return notes;
}

}  // namespace sparsight
