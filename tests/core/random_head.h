#pragma once

#include <random>
#include <vector>

#include "core/masks/method.h"

/// A layer of normal random q, k, v for tests: float32, [heads][tokens][d] each.
struct RandomLayer {
    sparsight::kernels::Problem problem;
    std::vector<float> q, k, v;

    RandomLayer(sparsight::Index Hq, sparsight::Index Hkv, sparsight::Index Nq, sparsight::Index Nk,
                sparsight::Index d, unsigned seed, float gain = 1.0f) {
        problem.Hq = Hq;
        problem.Hkv = Hkv;
        problem.Nq = Nq;
        problem.Nk = Nk;
        problem.d = problem.dv = d;
        problem.scale = 1.0f / std::sqrt(float(d));
        std::mt19937 random(seed);
        std::normal_distribution<float> normal;
        const auto fill = [&](std::vector<float>& x, sparsight::Index size, float by) {
            x.resize(std::size_t(size));
            for (float& value : x) value = by * normal(random);
        };
        fill(q, Hq * Nq * d, gain);
        fill(k, Hkv * Nk * d, 1.0f);
        fill(v, Hkv * Nk * d, 1.0f);
    }
    sparsight::kernels::TensorView view(const std::vector<float>& x, sparsight::Index tokens) const {
        const sparsight::Index d = problem.d;
        return {x.data(), sparsight::kernels::DType::F32, sparsight::Index(x.size()), tokens * d, d};
    }
    sparsight::kernels::TensorView viewQ() const { return view(q, problem.Nq); }
    sparsight::kernels::TensorView viewK() const { return view(k, problem.Nk); }
    sparsight::kernels::TensorView viewV() const { return view(v, problem.Nk); }

    /// Query head `h` as methods and metrics want it; lse and block masses unknown.
    sparsight::HeadInput head(sparsight::Index h, sparsight::kernels::Backend& backend) const {
        sparsight::HeadInput in;
        in.problem = problem.oneHead(h);
        in.q = viewQ().head(h);
        in.k = viewK().head(problem.kvHead(h));
        in.backend = &backend;
        in.head = h;
        in.kvHead = problem.kvHead(h);
        return in;
    }
    sparsight::kernels::TensorView headV(sparsight::Index h) const {
        return viewV().head(problem.kvHead(h));
    }

    /// P [Nq][Nk] of one head by the definition, float64 (no sinks, cap or bias).
    std::vector<double> attention(sparsight::Index h) const {
        using sparsight::Index;
        const auto& p = problem;
        std::vector<double> a(std::size_t(p.Nq * p.Nk), 0.0);
        for (Index i = 0; i < p.Nq; ++i) {
            double sum = 0;
            for (Index j = p.visibleBegin(i); j < p.visibleEnd(i); ++j) {
                double s = 0;
                for (Index c = 0; c < p.d; ++c)
                    s += double(q[std::size_t((h * p.Nq + i) * p.d + c)]) *
                         double(k[std::size_t((p.kvHead(h) * p.Nk + j) * p.d + c)]);
                sum += a[std::size_t(i * p.Nk + j)] = std::exp(double(p.scale) * s);
            }
            for (Index j = 0; j < p.Nk; ++j) a[std::size_t(i * p.Nk + j)] /= sum > 0 ? sum : 1;
        }
        return a;
    }
};
