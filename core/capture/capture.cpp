#include "core/capture/capture.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <set>

#include "core/capture/cost.h"
#include "core/capture/layer_writer.h"
#include "core/capture/measure.h"

namespace sparsight {
namespace {

using kernels::DType;

/// A layer's own memory: what the views of its LayerCapture look at.
struct Stored {
    std::vector<std::byte> q, k, v;
    std::vector<float> lse, sinks, relBias;
};

/// @param lse  set to the memory that the result's LSE, empty yet, looks at
LayerCapture keepLayer(const LayerCall& call, DType to, float*& lse) {
    const kernels::Problem& p = call.problem;
    const auto memory = std::make_shared<Stored>();
    LayerCapture layer;
    layer.layer = call.layer;
    layer.problem = p;
    memory->q = copyOf(call, call.q, p.Hq, p.Nq, p.d, to);
    layer.q = {memory->q.data(), to, p.Hq * p.Nq * p.d, p.Nq * p.d, p.d};
    // float32 keys and values of a cache that is exactly full lie as they are stored.
    const auto asStored = [&](const kernels::TensorView& x, Index d, std::vector<std::byte>& own) {
        if (!call.onGpu() && to == x.t && x.sn == d && x.sh == p.Nk * d) return x;
        own = copyOf(call, x, p.Hkv, p.Nk, d, to);
        return kernels::TensorView{own.data(), to, p.Hkv * p.Nk * d, p.Nk * d, d};
    };
    layer.k = asStored(call.k, p.d, memory->k);
    layer.v = asStored(call.v, p.dv, memory->v);
    if (p.sinks) {
        memory->sinks.assign(p.sinks, p.sinks + p.Hq);
        layer.problem.sinks = memory->sinks.data();
    }
    if (p.relBias) {
        memory->relBias.assign(p.relBias, p.relBias + p.Hq * (p.Nq + p.Nk - 1));
        layer.problem.relBias = memory->relBias.data();
    }
    memory->lse.resize(std::size_t(p.Hq * p.Nq));
    layer.lse = {memory->lse.data(), {p.Hq, p.Nq}};
    lse = memory->lse.data();
    layer.owner = memory;
    return layer;
}

/// The layer whose statistics are those of what is stored: on a GPU its own q and k, unless the
/// stored type is narrower than theirs.
LayerCapture measured(const LayerCall& call, const LayerCapture& layer) {
    LayerCapture m = layer;
    if (call.onGpu() && (layer.q.t == DType::F32 || layer.q.t == call.q.t)) {
        m.q = call.q;
        m.k = call.k;
    }
    return m;
}

/// "layer 3 of 8, 1234 tokens/s, 12 s left".
class Progress {
public:
    Progress(const Job& job, const ModelConfig& config, const std::vector<Index>& order,
             const InputSize& size)
        : m_job(job),
          m_config(config),
          m_order(order),
          m_tokens(size.text + size.decoder + size.image) {}
    void step(Index layer, double fraction) const {
        const auto at = std::find(m_order.begin(), m_order.end(), layer) - m_order.begin();
        const std::string place = std::to_string(at + 1) + " of " + std::to_string(m_order.size());
        std::string text = m_config.stacks.empty()
                               ? "layer " + place
                               : "layer " + layerName(m_config, layer) + ", " + place;
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
    const ModelConfig& m_config;
    const std::vector<Index>& m_order;
    Index m_tokens;
    std::chrono::steady_clock::time_point m_start = std::chrono::steady_clock::now();
};

}  // namespace

double capturePrompt(ModelRunner& model, kernels::Backend& backend,
                     std::span<const std::int32_t> ids, const CaptureOptions& options,
                     const LayerSink& sink, const Job& job) {
    ModelInput input;
    input.ids.assign(ids.begin(), ids.end());
    return capturePrompt(model, backend, input, options, sink, job);
}

double capturePrompt(ModelRunner& model, kernels::Backend& backend, const ModelInput& input,
                     const CaptureOptions& options, const LayerSink& sink, const Job& job) {
    const ModelConfig& config = model.config();
    const InputSize size = inputSize(config, input);
    std::vector<Index> chosen = options.layers;
    if (chosen.empty()) chosen = layersFor(config, size);
    std::sort(chosen.begin(), chosen.end());
    if (chosen.front() < 0 || chosen.back() >= config.layers)
        throw Error(Errc::Usage,
                    "layer " + std::to_string(chosen.front() < 0 ? chosen.front() : chosen.back()) +
                        " cannot be captured: the model has " + layersInWords(config));
    const std::vector<Index> order = layerOrder(config, chosen);
    const Index last = order.back();
    const auto isChosen = [&](Index l) {
        return std::binary_search(chosen.begin(), chosen.end(), l);
    };
    double total = 0;
    for (const Index l : order) {
        const LayerCost cost = layerCost(config, l, size);
        total += cost.matrices + cost.attention + (isChosen(l) ? cost.capture : 0);
    }

    const Progress progress(job, config, order, size);
    progress.step(order.front(), 0);
    double massError = 0, done = 0;  // work of the layers so far
    const AttentionFn forward =
        denseAttention(backend, Job({}, [&job] { return job.stopAsked(); }));
    LayerWriter writer(sink);
    std::set<Index> given;  // a pass that begins again on the CPU has captured some layers already
    const AttentionFn attention = [&](const LayerCall& call) {
        const LayerCost cost = layerCost(config, call.layer, size);
        if (isChosen(call.layer) && !given.contains(call.layer)) {
            float* lse = nullptr;
            LayerCapture layer = keepLayer(call, options.store, lse);
            LayerStats stats =
                measureLayer(backend, measured(call, layer), lse,
                             progress.during(call.layer, std::min(1.0, done / total),
                                             std::min(1.0, (done + cost.capture) / total)),
                             options.topK());
            done += cost.capture;
            massError = std::max(massError, stats.massError);
            given.insert(call.layer);
            // A layer on the CPU may look at a cache that the next one overwrites.
            if (call.onGpu())
                writer.add(std::move(layer), std::move(stats));
            else
                writer.write(layer, stats);
        }
        progress.step(call.layer, std::min(1.0, done / total));
        // Nobody reads the output of the last layer.
        if (call.layer != last) forward(call);
        done += cost.attention + cost.matrices;
        progress.step(call.layer, std::clamp((done - cost.matrices) / total, 0.0, 1.0));
    };
    model.pass(input, attention, withoutReport(job), chosen);
    writer.finish();
    progress.step(last, 1);
    return massError;
}

}  // namespace sparsight
