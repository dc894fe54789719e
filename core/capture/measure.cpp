#include "core/capture/measure.h"

#include <algorithm>
#include <cmath>

namespace sparsight {
namespace {

/// The mass that a head's rows have over the keys: 1 each, less what a learned sink takes; 0 for a
/// row that sees no key.
double massOfRows(const kernels::Problem& p, Index head, const float* lse) {
    double mass = 0;
    for (Index i = 0; i < p.Nq; ++i) {
        if (!std::isfinite(lse[i])) continue;
        mass += p.sinks ? 1 / (1 + std::exp(double(p.sinks[head]) - double(lse[i]))) : 1.0;
    }
    return mass;
}

/// Backend::capture of heads [first, first + count), whose outputs are at their places in `all`. A
/// GPU that has no memory for so many does half of them, and then the others.
kernels::Report captureHeads(kernels::Backend& backend, const LayerCapture& layer, Index first,
                             Index count, const kernels::CaptureSpec& spec,
                             const kernels::CaptureOut& all, const Job& job) {
    const kernels::Problem& whole = layer.problem;
    const Index group = whole.Hq / whole.Hkv;
    kernels::Problem p = whole.oneHead(first);
    p.Hq = count;
    p.Hkv = std::max<Index>(1, count / group);
    const Index blocks =
        ((p.Nq + spec.block - 1) / spec.block) * ((p.Nk + spec.block - 1) / spec.block);
    const Index diagonals = p.causal ? p.Nk : p.Nq + p.Nk - 1;
    kernels::CaptureOut out;
    out.lse = all.lse + first * p.Nq;
    out.entropy = all.entropy + first * p.Nq;
    out.meanDistance = all.meanDistance + first * p.Nq;
    out.sinkMass = all.sinkMass + first * p.Nq;
    out.localMass = all.localMass + first * p.Nq;
    out.blockSum = all.blockSum + first * blocks;
    out.blockMax = all.blockMax + first * blocks;
    out.colMass = all.colMass + first * p.Nk;
    out.diagMass = all.diagMass + first * diagonals;
    if (all.topKey) {
        out.topKey = all.topKey + first * p.Nq * spec.topK;
        out.topP = all.topP + first * p.Nq * spec.topK;
    }
    try {
        return backend.capture(p, layer.q.head(first), layer.k.head(whole.kvHead(first)), spec, out,
                               job);
    } catch (const Error& e) {
        if (e.code() != Errc::Resources || count == 1) throw;
    }
    // Whole groups of query heads as long as there is more than one.
    const Index half = count > group ? (count / group + 1) / 2 * group : (count + 1) / 2;
    kernels::Report report = captureHeads(backend, layer, first, half, spec, all,
                                          job.part(0, double(half) / double(count)));
    report.nonFiniteRows += captureHeads(backend, layer, first + half, count - half, spec, all,
                                         job.part(double(half) / double(count), 1))
                                .nonFiniteRows;
    return report;
}

}  // namespace

LayerStats measureLayer(kernels::Backend& backend, const LayerCapture& layer, float* lse,
                        const Job& job, Index topK) {
    const kernels::Problem& p = layer.problem;
    kernels::CaptureSpec spec;
    LayerStats s;
    s.layer = layer.layer;
    s.heads = p.Hq;
    s.Nq = p.Nq;
    s.Nk = p.Nk;
    LayerStats::Level base;
    base.block = spec.block;
    base.rows = (p.Nq + spec.block - 1) / spec.block;
    base.cols = (p.Nk + spec.block - 1) / spec.block;
    const auto rows = std::size_t(p.Hq * p.Nq);
    base.sum.resize(std::size_t(p.Hq * base.rows * base.cols));
    base.max.resize(base.sum.size());
    s.colMass.resize(std::size_t(p.Hq * p.Nk));
    s.diagMass.resize(std::size_t(p.Hq * (p.causal ? p.Nk : p.Nq + p.Nk - 1)));
    for (auto* x : {&s.entropy, &s.meanDistance, &s.sinkMass, &s.localMass}) x->resize(rows);

    kernels::CaptureOut out;
    out.lse = lse;
    out.entropy = s.entropy.data();
    out.meanDistance = s.meanDistance.data();
    out.sinkMass = s.sinkMass.data();
    out.localMass = s.localMass.data();
    out.blockSum = base.sum.data();
    out.blockMax = base.max.data();
    out.colMass = s.colMass.data();
    out.diagMass = s.diagMass.data();
    if (topK > 0) {
        spec.topK = s.top.k = topK;
        s.top.key.resize(rows * std::size_t(topK));
        s.top.p.resize(s.top.key.size());
        out.topKey = s.top.key.data();
        out.topP = s.top.p.data();
    }
    const kernels::Report report = captureHeads(backend, layer, 0, p.Hq, spec, out, job);
    if (report.nonFiniteRows > 0)
        throw Error(Errc::Format, "layer " + std::to_string(layer.layer) + ": " +
                                      std::to_string(report.nonFiniteRows) +
                                      " rows have NaN or infinite scores; the stored type may be "
                                      "too narrow for this model");

    const Index perHead = base.rows * base.cols;
    for (Index h = 0; h < p.Hq; ++h) {
        double mass = 0;
        for (Index i = 0; i < perHead; ++i) mass += double(base.sum[std::size_t(h * perHead + i)]);
        s.massError =
            std::max(s.massError, std::abs(mass - massOfRows(p, h, lse + h * p.Nq)) / double(p.Nq));
    }
    s.pyramid.push_back(std::move(base));
    buildPyramid(s);
    return s;
}

}  // namespace sparsight
