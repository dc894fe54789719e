#pragma once

#include <cmath>
#include <cstring>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/model/config.h"
#include "sessions/io.h"
#include "sessions/session.h"
#include "tests/files.h"

namespace sparsight::sessions::test {

namespace fs = std::filesystem;

using test_files::slurp;
using test_files::spill;
using test_files::TempFolder;

constexpr Index kLayers = 4, kHeads = 4, kKvHeads = 2, kWidth = 16;

inline ModelConfig smallModel() {
    return parseConfig(R"({"model_type": "llama", "vocab_size": 300, "hidden_size": 64,
        "intermediate_size": 96, "num_hidden_layers": 4, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 1024})",
                       "small", "test");
}

inline CaptureRequest smallRequest(Index tokens, kernels::DType store = kernels::DType::F32,
                                   bool topKeys = false) {
    CaptureRequest r;
    r.options.topKeys = topKeys;
    r.config = smallModel();
    r.modelDirectory = "/nowhere/small";
    r.promptName = "prompt";
    for (Index i = 0; i < tokens; ++i) {
        r.tokenIds.push_back(std::int32_t(7 * i % 300));
        r.offsets.push_back({i, i + 1, i, i + 1});
    }
    r.promptText.assign(std::size_t(tokens), 'x');
    r.options.store = store;
    r.device = "cpu";
    return r;
}

/// A layer whose every number follows from (layer, position): a reader in another process knows
/// what must stand there.
struct SmallLayer {
    std::vector<std::byte> q, k, v;
    std::vector<float> lse;
    LayerCapture capture;
    LayerStats stats;
};

inline float value(Index layer, Index at, int salt) {
    auto x = std::uint32_t(at * 2654435761u + layer * 40503u + salt * 97u);
    x ^= x >> 15;
    x *= 2246822519u;
    x ^= x >> 13;
    return float(x % 20001) / 10000.0f - 1.0f;
}

inline std::vector<std::byte> bytesOf(Index layer, Index count, int salt, kernels::DType type) {
    std::vector<std::byte> bytes(std::size_t(count * kernels::bytesOf(type)));
    for (Index i = 0; i < count; ++i)
        kernels::storeFloat(bytes.data(), type, i, value(layer, i, salt));
    return bytes;
}

inline std::unique_ptr<SmallLayer> smallLayer(Index layer, Index tokens,
                                              kernels::DType type = kernels::DType::F32,
                                              bool topKeys = false) {
    auto s = std::make_unique<SmallLayer>();
    s->q = bytesOf(layer, kHeads * tokens * kWidth, 1, type);
    s->k = bytesOf(layer, kKvHeads * tokens * kWidth, 2, type);
    s->v = bytesOf(layer, kKvHeads * tokens * kWidth, 3, type);
    for (Index i = 0; i < kHeads * tokens; ++i) s->lse.push_back(value(layer, i, 4));
    LayerCapture& c = s->capture;
    c.layer = layer;
    c.problem.Hq = kHeads;
    c.problem.Hkv = kKvHeads;
    c.problem.Nq = c.problem.Nk = tokens;
    c.problem.d = c.problem.dv = kWidth;
    c.problem.scale = 0.25f;
    const auto view = [&](const std::vector<std::byte>& b) {
        return kernels::TensorView{b.data(), type, 0, tokens * kWidth, kWidth};
    };
    c.q = view(s->q);
    c.k = view(s->k);
    c.v = view(s->v);
    c.lse = {s->lse.data(), {kHeads, tokens}};

    LayerStats& st = s->stats;
    st.layer = layer;
    st.heads = kHeads;
    st.Nq = st.Nk = tokens;
    LayerStats::Level base;
    base.rows = base.cols = (tokens + 63) / 64;
    for (Index h = 0; h < kHeads; ++h)
        for (Index r = 0; r < base.rows; ++r)
            for (Index col = 0; col < base.cols; ++col) {
                const bool seen = col <= r;
                base.sum.push_back(seen ? 1 + value(layer, h * 7 + r * 3 + col, 5) : 0.0f);
                base.max.push_back(seen ? std::abs(value(layer, h + r + col, 6)) : 0.0f);
            }
    st.pyramid.push_back(std::move(base));
    buildPyramid(st);
    const auto fill = [&](std::vector<float>& into, int salt) {
        for (Index i = 0; i < kHeads * tokens; ++i) into.push_back(value(layer, i, salt));
    };
    fill(st.colMass, 7);
    fill(st.diagMass, 8);
    fill(st.entropy, 9);
    fill(st.meanDistance, 10);
    fill(st.sinkMass, 11);
    fill(st.localMass, 12);
    for (Index row = 0; topKeys && row < kHeads * tokens; ++row)
        for (Index n = 0; n < kTopKeys; ++n) {
            const Index i = row % tokens;
            st.top.k = kTopKeys;
            st.top.key.push_back(n <= i ? std::int32_t((i + n * (layer + 1)) % (i + 1)) : -1);
            st.top.p.push_back(n <= i ? 1 / float(row + n + 1 + layer) : 0.0f);
        }
    st.massError = 1e-6 * double(layer + 1);
    return s;
}

/// Whether a stored layer holds exactly what smallLayer() makes.
inline bool sameLayer(const Session& session, const std::string& capture, Index layer, Index tokens,
                      kernels::DType type = kernels::DType::F32) {
    const bool topKeys = session.captureInfo(capture).topKeys;
    const auto made = smallLayer(layer, tokens, type, topKeys);
    const auto read = session.layer(capture, layer);
    const auto stats = session.stats(capture, layer);
    const kernels::Problem &a = made->capture.problem, &b = read->problem;
    if (a.Hq != b.Hq || a.Hkv != b.Hkv || a.Nq != b.Nq || a.Nk != b.Nk || a.d != b.d ||
        a.dv != b.dv || a.scale != b.scale || a.causal != b.causal || a.window != b.window)
        return false;
    const auto same = [&](const std::vector<std::byte>& wanted, const kernels::TensorView& found) {
        return found.t == type && std::memcmp(wanted.data(), found.p, wanted.size()) == 0;
    };
    if (!same(made->q, read->q) || !same(made->k, read->k) || !same(made->v, read->v)) return false;
    if (std::memcmp(made->lse.data(), read->lse.data(), made->lse.size() * 4) != 0) return false;
    const LayerStats &s = made->stats, &t = *stats;
    if (s.pyramid.size() != t.pyramid.size() || s.massError != t.massError) return false;
    for (std::size_t l = 0; l < s.pyramid.size(); ++l)
        if (s.pyramid[l].sum != t.pyramid[l].sum || s.pyramid[l].max != t.pyramid[l].max ||
            s.pyramid[l].block != t.pyramid[l].block)
            return false;
    for (Index h = 0; topKeys && h < kHeads; ++h) {
        const TopKeys top = session.topKeys(capture, layer, h, {0, tokens});
        const auto from = std::ptrdiff_t(h * tokens * kTopKeys);
        if (top.k != kTopKeys ||
            !std::equal(top.key.begin(), top.key.end(), s.top.key.begin() + from) ||
            !std::equal(top.p.begin(), top.p.end(), s.top.p.begin() + from))
            return false;
    }
    return s.colMass == t.colMass && s.diagMass == t.diagMass && s.entropy == t.entropy &&
           s.meanDistance == t.meanDistance && s.sinkMass == t.sinkMass &&
           s.localMass == t.localMass;
}

/// A capture of some layers. @return uuid
inline std::string writeCapture(Session& session, Index tokens, Index layers = kLayers,
                                kernels::DType type = kernels::DType::F32) {
    const std::string uuid = session.beginCapture(smallRequest(tokens, type));
    for (Index l = 0; l < layers; ++l) {
        const auto layer = smallLayer(l, tokens, type);
        session.addLayer(uuid, layer->capture, layer->stats);
    }
    session.finishCapture(uuid, layers == kLayers ? "complete" : "cancelled");
    return uuid;
}

}  // namespace sparsight::sessions::test
