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

}  // namespace

LayerStats measureLayer(kernels::Backend& backend, const LayerCapture& layer, float* lse,
                        const Job& job) {
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
        s.massError =
            std::max(s.massError, std::abs(mass - massOfRows(p, h, lse + h * p.Nq)) / double(p.Nq));
    }
    s.pyramid.push_back(std::move(base));
    buildPyramid(s);
    return s;
}

}  // namespace sparsight
