#include "core/capture/decode.h"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <set>

#include "core/capture/measure.h"

namespace sparsight {
namespace {

using kernels::DType;

constexpr Index kMostSteps = Index(1) << 20;

/// The rows of all tokens so far, layer by layer, and how a layer is given out when they are all
/// there.
class Rows {
public:
    Rows(kernels::Backend& backend, const CaptureOptions& options, std::vector<Index> chosen,
         Index capacity, const LayerSink& sink)
        : m_backend(backend),
          m_store(options.store),
          m_topK(options.topK()),
          m_chosen(std::move(chosen)),
          m_capacity(capacity),
          m_sink(sink),
          m_q(m_chosen.size()) {}

    /// Place of a layer among the chosen ones; -1 = not chosen.
    Index find(Index layer) const {
        const auto at = std::lower_bound(m_chosen.begin(), m_chosen.end(), layer);
        return at != m_chosen.end() && *at == layer ? at - m_chosen.begin() : -1;
    }
    Index last() const { return m_chosen.back(); }
    Index count() const { return Index(m_chosen.size()); }
    double massError() const { return m_massError; }

    void keep(const LayerCall& call, Index at) {
        if (given(at)) return;
        const kernels::Problem& p = call.problem;
        const auto row = std::size_t(p.d * bytesOf(m_store));
        const std::vector<std::byte> rows = copyOf(call, call.q, p.Hq, p.Nq, p.d, m_store);
        auto& q = m_q[std::size_t(at)];
        q.resize(std::size_t(p.Hq * m_capacity) * row);
        for (Index h = 0; h < p.Hq; ++h)
            std::memcpy(q.data() + std::size_t(h * m_capacity + p.Nk - p.Nq) * row,
                        rows.data() + std::size_t(h * p.Nq) * row, std::size_t(p.Nq) * row);
    }

    void finish(const LayerCall& call, Index at, const Job& job) {
        if (given(at)) return;
        LayerCapture layer;
        layer.layer = call.layer;
        layer.problem = call.problem;
        kernels::Problem& p = layer.problem;
        p.Nq = p.Nk;
        auto& q = m_q[std::size_t(at)];
        layer.q = {q.data(), m_store, p.Hq * m_capacity * p.d, m_capacity * p.d, p.d};
        std::vector<std::byte> k, v;
        layer.k = stored(call, call.k, p.d, k);
        layer.v = stored(call, call.v, p.dv, v);
        std::vector<float> lse(std::size_t(p.Hq * p.Nq));
        layer.lse = {lse.data(), {p.Hq, p.Nq}};
        const LayerStats stats = measureLayer(m_backend, layer, lse.data(), job, m_topK);
        m_massError = std::max(m_massError, stats.massError);
        m_sink(layer, stats);
        q = {};
        m_given.insert(at);
    }

private:
    /// The cache itself where it has the stored type, else a copy.
    kernels::TensorView stored(const LayerCall& call, const kernels::TensorView& x, Index d,
                               std::vector<std::byte>& memory) const {
        if (!call.onGpu() && x.t == m_store) return x;
        const kernels::Problem& p = call.problem;
        memory = copyOf(call, x, p.Hkv, p.Nk, d, m_store);
        return {memory.data(), m_store, p.Hkv * p.Nk * d, p.Nk * d, d};
    }
    /// A pass that begins again on the CPU meets layers that the sink has already.
    bool given(Index at) const { return m_given.contains(at); }

    kernels::Backend& m_backend;
    DType m_store;
    Index m_topK;
    std::vector<Index> m_chosen;
    Index m_capacity;
    const LayerSink& m_sink;
    std::vector<std::vector<std::byte>> m_q;  ///< [chosen][Hq][capacity][d]
    std::set<Index> m_given;
    double m_massError = 0;
};

}  // namespace

double captureDecode(ModelRunner& model, kernels::Backend& backend,
                     std::span<const std::int32_t> prompt, Index steps,
                     const CaptureOptions& options, const GeneratedFn& generated,
                     const LayerSink& sink, const Job& job) {
    const ModelConfig& config = model.config();
    requireDecoderOnly(config, "a decode capture");
    if (prompt.empty())
        throw Error(Errc::Usage, "the prompt is empty: give a text with at least one token");
    if (steps < 1 || steps > kMostSteps)
        throw Error(Errc::Usage, "a decode capture takes 1 to " + std::to_string(kMostSteps) +
                                     " steps, not " + std::to_string(steps));
    std::vector<Index> chosen = options.layers;
    if (chosen.empty()) chosen = parseLayers("all", config.layers);
    std::sort(chosen.begin(), chosen.end());
    if (chosen.front() < 0 || chosen.back() >= config.layers)
        throw Error(Errc::Usage,
                    "layer " + std::to_string(chosen.front() < 0 ? chosen.front() : chosen.back()) +
                        " cannot be captured: the model has " + layersInWords(config));

    // Progress: the prefill, the steps, and the layers' statistics during the last step.
    constexpr double kPrefill = 0.5, kDecode = 0.75;
    const Index capacity = Index(prompt.size()) + steps;
    Rows rows(backend, options, chosen, capacity, sink);
    KvCache cache(config, capacity);
    const Job quiet = withoutReport(job);
    const AttentionFn forward = denseAttention(backend, quiet);
    bool last = false;
    const AttentionFn attention = [&](const LayerCall& call) {
        const Index at = rows.find(call.layer);
        if (at >= 0) rows.keep(call, at);
        if (at >= 0 && last) {
            const double from = kDecode + (1 - kDecode) * double(at) / double(rows.count());
            const std::string stage = "statistics of layer " + std::to_string(call.layer);
            job.step(from, stage);
            rows.finish(call, at, quiet);
        }
        // Nobody reads the output of the last layer.
        if (!last || call.layer != rows.last()) forward(call);
    };
    job.step(0, "prompt");
    model.forward(prompt, cache, attention, job.part(0, kPrefill));
    std::vector<float> logits(std::size_t(config.vocab));
    std::vector<std::int32_t> tokens;
    for (Index row = Index(prompt.size()) - 1; !last; row = 0) {
        model.logits(row, row + 1, logits.data());
        // The lowest index of the largest value.
        const auto next =
            std::int32_t(std::max_element(logits.begin(), logits.end()) - logits.begin());
        tokens.push_back(next);
        const auto& eos = config.eosTokens;
        last =
            Index(tokens.size()) == steps || std::find(eos.begin(), eos.end(), next) != eos.end();
        job.step(kPrefill + (kDecode - kPrefill) * double(tokens.size()) / double(steps),
                 "step " + std::to_string(tokens.size()) + " of " + std::to_string(steps));
        if (last) generated(tokens);
        model.forward(std::span(&tokens.back(), 1), cache, attention, quiet,
                      last ? rows.last() : -1);
    }
    return rows.massError();
}

CaptureEstimate estimateDecode(const ModelConfig& config, Index prompt, Index steps,
                               const CaptureOptions& options, kernels::Backend& backend) {
    CaptureEstimate e = estimateCapture(config, prompt + steps, options, backend);
    const Index tokens = prompt + steps;
    const Index chosen = options.layers.empty() ? config.layers : Index(options.layers.size());
    e.memoryBytes += tokens * config.layers * config.kvHeads *
                     (config.headDim + config.valueWidth()) * Index(sizeof(float));
    e.memoryBytes += tokens * chosen * config.heads * config.headDim * bytesOf(options.store);
    return e;
}

std::vector<Index> parseSteps(std::string_view text) {
    const auto fail = [&]() -> Error {
        return {Errc::Usage, "decode steps '" + std::string(text) +
                                 "' are not of the form 0,3,5-9 (numbers up to " +
                                 std::to_string(kMostSteps) + ")"};
    };
    std::vector<Index> steps;
    for (std::string_view rest = text;;) {
        const auto comma = rest.find(',');
        const std::string_view item = rest.substr(0, comma);
        const char *at = item.data(), *end = item.data() + item.size();
        const auto number = [&] {
            Index n = 0;
            const auto [next, error] = std::from_chars(at, end, n);
            if (error != std::errc() || n < 0 || n >= kMostSteps) throw fail();
            at = next;
            return n;
        };
        const Index first = number();
        Index final = first;
        if (at != end && *at == '-') {
            ++at;
            final = number();
        }
        if (at != end || final < first) throw fail();
        for (Index s = first; s <= final; ++s) steps.push_back(s);
        if (comma == rest.npos) break;
        rest.remove_prefix(comma + 1);
    }
    std::sort(steps.begin(), steps.end());
    steps.erase(std::unique(steps.begin(), steps.end()), steps.end());
    return steps;
}

}  // namespace sparsight
