#include "core/capture/capture.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cmath>

#include "core/capture/cost.h"

namespace sparsight {
namespace {

using kernels::DType;

/// A copy of `x` as the session stores it: [heads][tokens][d] of type `to`.
std::vector<std::byte> stored(const kernels::TensorView& x, Index heads, Index tokens, Index d,
                              DType to) {
    std::vector<std::byte> out(std::size_t(heads * tokens * d * kernels::bytesOf(to)));
    for (Index h = 0; h < heads; ++h)
        for (Index n = 0; n < tokens; ++n)
            for (Index c = 0; c < d; ++c)
                kernels::storeFloat(out.data(), to, (h * tokens + n) * d + c,
                                    kernels::loadFloat(x.p, x.t, h * x.sh + n * x.sn + c));
    return out;
}

/// A layer's own memory: what the views of its LayerCapture look at.
struct Stored {
    std::vector<std::byte> q, k, v;
    std::vector<float> lse;
};

LayerCapture keepLayer(const LayerCall& call, DType to) {
    const kernels::Problem& p = call.problem;
    const auto memory = std::make_shared<Stored>();
    LayerCapture layer;
    layer.layer = call.layer;
    layer.problem = p;
    memory->q = stored(call.q, p.Hq, p.Nq, p.d, to);
    layer.q = {memory->q.data(), to, p.Hq * p.Nq * p.d, p.Nq * p.d, p.d};
    // float32 keys and values of a cache that is exactly full lie as they are stored.
    const auto asStored = [&](const kernels::TensorView& x, Index d, std::vector<std::byte>& own) {
        if (to == x.t && x.sn == d && x.sh == p.Nk * d) return x;
        own = stored(x, p.Hkv, p.Nk, d, to);
        return kernels::TensorView{own.data(), to, p.Hkv * p.Nk * d, p.Nk * d, d};
    };
    layer.k = asStored(call.k, p.d, memory->k);
    layer.v = asStored(call.v, p.dv, memory->v);
    memory->lse.resize(std::size_t(p.Hq * p.Nq));
    layer.lse = {memory->lse.data(), {p.Hq, p.Nq}};
    layer.owner = memory;
    return layer;
}

LayerStats measure(kernels::Backend& backend, const LayerCapture& layer, const Job& job) {
    const kernels::Problem& p = layer.problem;
    const kernels::CaptureSpec spec;
    LayerStats s;
    s.layer = layer.layer;
    s.heads = p.Hq;
    s.Nq = p.Nq;
    s.Nk = p.Nk;
    LayerStats::Level base;
    base.block = spec.block;
    base.rows = (p.Nq + spec.block - 1) / spec.block;
    base.cols = (p.Nk + spec.block - 1) / spec.block;
    const auto rows = std::size_t(p.Hq * p.Nq), keys = std::size_t(p.Hq * p.Nk);
    base.sum.resize(std::size_t(p.Hq * base.rows * base.cols));
    base.max.resize(base.sum.size());
    s.colMass.resize(keys);
    s.diagMass.resize(keys);
    for (auto* x : {&s.entropy, &s.meanDistance, &s.sinkMass, &s.localMass}) x->resize(rows);

    kernels::CaptureOut out;
    out.lse = const_cast<float*>(layer.lse.data());  // the layer's own, empty until here
    out.entropy = s.entropy.data();
    out.meanDistance = s.meanDistance.data();
    out.sinkMass = s.sinkMass.data();
    out.localMass = s.localMass.data();
    out.blockSum = base.sum.data();
    out.blockMax = base.max.data();
    out.colMass = s.colMass.data();
    out.diagMass = s.diagMass.data();
    const kernels::Report report = backend.capture(p, layer.q, layer.k, spec, out, job);
    if (report.nonFiniteRows > 0)
        throw Error(Errc::Format, "layer " + std::to_string(layer.layer) + ": " +
                                      std::to_string(report.nonFiniteRows) +
                                      " rows have NaN or infinite scores; the stored type may be "
                                      "too narrow for this model");

    const Index perHead = base.rows * base.cols;
    for (Index h = 0; h < p.Hq; ++h) {
        double mass = 0;
        for (Index i = 0; i < perHead; ++i) mass += double(base.sum[std::size_t(h * perHead + i)]);
        s.massError = std::max(s.massError, std::abs(mass - double(p.Nq)) / double(p.Nq));
    }
    s.pyramid.push_back(std::move(base));
    buildPyramid(s);
    return s;
}

/// "layer 3 of 8, 1234 tokens/s, 12 s left".
class Progress {
public:
    Progress(const Job& job, Index tokens, Index layers)
        : m_job(job), m_tokens(tokens), m_layers(layers) {}
    void step(Index layer, double fraction) const {
        std::string text = "layer " + std::to_string(layer + 1) + " of " + std::to_string(m_layers);
        const double seconds =
            std::chrono::duration<double>(std::chrono::steady_clock::now() - m_start).count();
        // Of the first moments neither the rate nor the rest can be told.
        if (fraction > 0.02 && fraction < 1 && seconds > 0.3)
            text += ", " + std::to_string(std::llround(double(m_tokens) * fraction / seconds)) +
                    " tokens/s, " +
                    std::to_string(std::llround(std::ceil(seconds / fraction - seconds))) +
                    " s left";
        m_job.step(fraction, text);
    }
    /// The job of a kernel call that takes the progress from `from` to `to`.
    Job during(Index layer, double from, double to) const {
        return Job([=, this](double f, std::string_view) { step(layer, from + f * (to - from)); },
                   [this] { return m_job.stopAsked(); });
    }

private:
    const Job& m_job;
    Index m_tokens, m_layers;
    std::chrono::steady_clock::time_point m_start = std::chrono::steady_clock::now();
};

Index parseNumber(std::string_view text, std::string_view all, Index layerCount) {
    Index n = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), n);
    if (error == std::errc::result_out_of_range)
        n = layerCount;  // out of range below
    else if (error != std::errc() || end != text.data() + text.size() || n < 0)
        throw Error(Errc::Usage, "layers '" + std::string(all) + "': '" + std::string(text) +
                                     "' is not a layer; write for example 0,2-5 or all (0 to " +
                                     std::to_string(layerCount - 1) + ")");
    if (n >= layerCount)
        throw Error(Errc::NotFound, "there is no layer " + std::string(text) +
                                        ": the model has layers 0 to " +
                                        std::to_string(layerCount - 1));
    return n;
}

std::string_view trimmed(std::string_view s) {
    while (!s.empty() && s.front() == ' ') s.remove_prefix(1);
    while (!s.empty() && s.back() == ' ') s.remove_suffix(1);
    return s;
}

}  // namespace

std::vector<Index> parseLayers(std::string_view text, Index layerCount) {
    const std::string_view all = trimmed(text);
    std::vector<Index> out;
    if (all.empty() || all == "all") {
        for (Index l = 0; l < layerCount; ++l) out.push_back(l);
        return out;
    }
    for (std::string_view rest = all;;) {
        const auto comma = rest.find(',');
        const std::string_view item = trimmed(rest.substr(0, comma));
        const auto dash = item.find('-');
        const Index first = parseNumber(trimmed(item.substr(0, dash)), all, layerCount);
        const Index last = dash == item.npos
                               ? first
                               : parseNumber(trimmed(item.substr(dash + 1)), all, layerCount);
        if (last < first)
            throw Error(Errc::Usage, "layers '" + std::string(all) + "': the range '" +
                                         std::string(item) + "' runs backwards");
        for (Index l = first; l <= last; ++l) out.push_back(l);
        if (comma == rest.npos) break;
        rest.remove_prefix(comma + 1);
    }
    std::sort(out.begin(), out.end());
    out.erase(std::unique(out.begin(), out.end()), out.end());
    return out;
}

double capturePrompt(ModelRunner& model, kernels::Backend& backend,
                     std::span<const std::int32_t> ids, const CaptureOptions& options,
                     const LayerSink& sink, const Job& job) {
    const ModelConfig& config = model.config();
    if (ids.empty())
        throw Error(Errc::Usage, "the prompt is empty: give a text with at least one token");
    std::vector<Index> chosen = options.layers;
    if (chosen.empty()) chosen = parseLayers("all", config.layers);
    std::sort(chosen.begin(), chosen.end());
    if (chosen.front() < 0 || chosen.back() >= config.layers)
        throw Error(Errc::Usage,
                    "layer " + std::to_string(chosen.front() < 0 ? chosen.front() : chosen.back()) +
                        " cannot be captured: the model has layers 0 to " +
                        std::to_string(config.layers - 1));
    const Index tokens = Index(ids.size()), last = chosen.back(), layers = last + 1;
    const auto isChosen = [&](Index l) {
        return std::binary_search(chosen.begin(), chosen.end(), l);
    };

    // Where each layer's parts begin and end in [0, 1], by their work.
    const LayerCost cost = layerCost(config, tokens);
    std::vector<double> begin(std::size_t(layers) + 1, 0.0);
    for (Index l = 0; l < layers; ++l)
        begin[std::size_t(l) + 1] = begin[std::size_t(l)] + cost.matrices + cost.attention +
                                    (isChosen(l) ? cost.capture : 0);
    const double total = begin.back();

    const Progress progress(job, tokens, layers);
    progress.step(0, 0);
    double massError = 0;
    const AttentionFn forward =
        denseAttention(backend, Job({}, [&job] { return job.stopAsked(); }));
    const AttentionFn attention = [&](const LayerCall& call) {
        const double from = begin[std::size_t(call.layer)];
        double at = from;
        if (isChosen(call.layer)) {
            const LayerCapture layer = keepLayer(call, options.store);
            const LayerStats stats =
                measure(backend, layer,
                        progress.during(call.layer, at / total, (at + cost.capture) / total));
            at += cost.capture;
            massError = std::max(massError, stats.massError);
            sink(layer, stats);
        }
        progress.step(call.layer, at / total);
        // Nobody reads the output of the last layer.
        if (call.layer < last) forward(call);
        progress.step(call.layer, (at + cost.attention) / total);
    };
    KvCache cache(config, tokens, KvCache::Keep::LastLayer);
    model.forward(ids, cache, attention, withoutReport(job), last);
    progress.step(last, 1);
    return massError;
}

}  // namespace sparsight
