// What must hold for any kernel whatever the numbers are (kernels.md 10).
#include <catch2/catch.hpp>
#include <functional>
#include <numeric>

#include "kernels/backend.h"
#include "layer_case.h"

using namespace sparsight;
using namespace sparsight::kernels;

namespace {

template <class Test>
void everyKernel(const Test& test) {
    for (const Kernel& kernel : sparsight::kernels::kernels()) {
        if (!kernel.supported()) continue;
        const auto backend = kernel.make(2);
        INFO("kernel " << kernel.id);
        test(*backend);
    }
}

struct Result {
    std::vector<float> o, lse;
};

Result forward(Backend& backend, const Problem& p, const TensorView& q, const TensorView& k,
               const TensorView& v, std::span<const Policy> policies,
               PlanMode mode = PlanMode::Exact) {
    Result r;
    r.o.resize(std::size_t(p.batch * p.Hq * p.Nq * p.dv));
    r.lse.resize(std::size_t(p.batch * p.Hq * p.Nq));
    const Plan plan = buildPlan(p, policies, mode);
    backend.forward(p, q, k, v, plan,
                    {r.o.data(), DType::F32, p.Hq * p.Nq * p.dv, p.Nq * p.dv, p.dv}, r.lse.data());
    return r;
}
Result forward(Backend& backend, const Layer& l, std::span<const Policy> policies) {
    return forward(backend, l.problem, l.q.view(), l.k.view(), l.v.view(), policies);
}

/// One group per row, from a rule on (row, key).
Policy ranges(const Problem& p, const std::function<bool(Index, Index)>& keeps) {
    RowRanges out;
    out.rangePtr.push_back(0);
    for (Index i = 0; i < p.Nq; ++i) {
        for (Index j = 0; j < p.Nk;) {
            if (!keeps(i, j)) {
                ++j;
                continue;
            }
            const Index begin = j;
            while (j < p.Nk && keeps(i, j)) ++j;
            out.ranges.push_back({std::int32_t(begin), std::int32_t(j)});
        }
        out.rowEnd.push_back(std::int32_t(i + 1));
        out.rangePtr.push_back(std::int32_t(out.ranges.size()));
    }
    return out;
}

LayerCase layerOf(Index n, Index heads = 1) {
    LayerCase c;
    c.Nq = c.Nk = n;
    c.Hq = c.Hkv = heads;
    return c;
}

}  // namespace

TEST_CASE("permuting the heads permutes the results") {
    everyKernel([](Backend& backend) {
        LayerCase c = layerOf(257, 3);
        const Layer l(c, 1);
        RandomPolicy make(3);
        const std::vector<Policy> policies{make.make(1, l.problem), make.make(2, l.problem),
                                           make.make(3, l.problem)};
        const Result straight = forward(backend, l, policies);
        Problem one = l.problem;
        one.Hq = one.Hkv = 1;
        const auto rows = std::size_t(one.Nq), values = rows * std::size_t(one.dv);
        for (const Index h : {2, 0, 1}) {
            const Result alone =
                forward(backend, one, l.q.view().head(h), l.k.view().head(h), l.v.view().head(h),
                        std::span(&policies[std::size_t(h)], 1));
            CHECK(std::equal(alone.o.begin(), alone.o.end(),
                             straight.o.begin() + std::ptrdiff_t(std::size_t(h) * values)));
            CHECK(std::equal(alone.lse.begin(), alone.lse.end(),
                             straight.lse.begin() + std::ptrdiff_t(std::size_t(h) * rows)));
        }
    });
}

TEST_CASE("the parts of a mask merge to the whole") {
    everyKernel([](Backend& backend) {
        const Layer l(layerOf(300), 2);
        const Problem& p = l.problem;
        const Policy even = ranges(p, [](Index i, Index j) { return (i / 7 + j / 5) % 2 == 0; });
        const Policy odd = ranges(p, [](Index i, Index j) { return (i / 7 + j / 5) % 2 == 1; });
        const Policy dense = Dense{};
        const Result a = forward(backend, l, std::span(&even, 1)),
                     b = forward(backend, l, std::span(&odd, 1)),
                     whole = forward(backend, l, std::span(&dense, 1));
        double error = 0, norm = 0, lseError = 0;
        for (std::size_t i = 0; i < whole.lse.size(); ++i) {
            const double top = std::max(double(a.lse[i]), double(b.lse[i]));
            const double wa = std::exp(double(a.lse[i]) - top),
                         wb = std::exp(double(b.lse[i]) - top);
            lseError = std::max(lseError, std::abs(top + std::log(wa + wb) - double(whole.lse[i])));
            for (std::size_t e = i * std::size_t(p.dv); e < (i + 1) * std::size_t(p.dv); ++e) {
                const double merged = (wa * double(a.o[e]) + wb * double(b.o[e])) / (wa + wb);
                error += (merged - double(whole.o[e])) * (merged - double(whole.o[e]));
                norm += double(whole.o[e]) * double(whole.o[e]);
            }
        }
        CHECK(std::sqrt(error / norm) < 1e-6);
        CHECK(lseError < 1e-5);
    });
}

TEST_CASE("recall of everything is 1, and it grows with the mask") {
    everyKernel([](Backend& backend) {
        const Layer l(layerOf(400), 3);
        const Problem& p = l.problem;
        const auto lse = [&](const Policy& policy) {
            std::vector<float> out(std::size_t(p.Nq));
            backend.lseOnly(p, l.q.view(), l.k.view(),
                            buildPlan(p, std::span(&policy, 1), PlanMode::Exact), out.data());
            return out;
        };
        const std::vector<float> dense = lse(Dense{});
        const std::vector<float> all = lse(ranges(p, [](Index, Index) { return true; }));
        for (std::size_t i = 0; i < all.size(); ++i)
            REQUIRE(std::exp(double(all[i] - dense[i])) == Approx(1).margin(1e-5));
        std::vector<float> before(dense.size(), -std::numeric_limits<float>::infinity());
        for (const Index window : {1, 10, 63, 64, 65, 200, 400}) {
            const std::vector<float> now = lse(Streaming{4, window});
            for (std::size_t i = 0; i < now.size(); ++i) REQUIRE(now[i] >= before[i] - 1e-5f);
            before = now;
        }
    });
}

TEST_CASE("pictures add up to the block masses and to each other") {
    everyKernel([](Backend& backend) {
        const Layer l(layerOf(320), 4);
        const Problem& p = l.problem;
        std::vector<float> lse(320), blocks(25), columns(320);
        CaptureOut out;
        out.lse = lse.data();
        out.blockSum = blocks.data();
        out.colMass = columns.data();
        backend.capture(p, l.q.view(), l.k.view(), {}, out);
        const auto draw = [&](RenderSpec spec) {
            std::vector<float> px(std::size_t(spec.width * spec.height));
            backend.render(p, l.q.view(), l.k.view(), lse.data(), spec, px.data());
            for (float& x : px) x = std::max(x, 0.0f);
            return px;
        };
        RenderSpec spec;
        spec.q1 = spec.k1 = 320;
        spec.width = spec.height = 5;
        const auto coarse = draw(spec);
        for (std::size_t i = 0; i < 25; ++i)
            CHECK(coarse[i] == Approx(blocks[i]).epsilon(1e-4).margin(1e-6));
        // One rectangle, cut at an odd place, drawn token by token.
        double sum = 0;
        for (const auto& [from, to] : {std::pair<Index, Index>{0, 101}, {101, 320}}) {
            RenderSpec part;
            part.q1 = 320;
            part.k0 = from;
            part.k1 = to;
            part.height = 320;
            part.width = to - from;
            const auto px = draw(part);
            sum += std::accumulate(px.begin(), px.end(), 0.0);
        }
        CHECK(sum == Approx(320).epsilon(1e-5));
        CHECK(std::accumulate(columns.begin(), columns.end(), 0.0) == Approx(320).epsilon(1e-5));
        const Policy mask = Streaming{3, 50};
        spec.mask = &mask;
        spec.show = Show::Kept;
        const auto kept = draw(spec);
        spec.show = Show::Lost;
        const auto lost = draw(spec);
        for (std::size_t i = 0; i < 25; ++i)
            CHECK(kept[i] + lost[i] == Approx(coarse[i]).epsilon(1e-4).margin(1e-6));
    });
}

TEST_CASE("numbers that are hard on a softmax") {
    const int kind = GENERATE(0, 1, 2, 3, 4, 5);
    const char* const names[] = {"one dominant key", "all equal",        "constant rows",
                                 "long tails",       "denormal queries", "peaked"};
    INFO(names[kind]);
    Layer l(layerOf(200), 60 + unsigned(kind));
    std::mt19937 random{unsigned(kind)};
    std::cauchy_distribution<float> cauchy;
    for (Index n = 0; n < 200; ++n)
        for (Index c = 0; c < 64; ++c) {
            const float q = loadFloat(l.q.view().p, DType::F32, l.q.at(0, 0, n, c));
            if (kind == 0) {
                l.q.set(0, 0, n, c, 1);
                if (n == 17) l.k.set(0, 0, n, c, 40);
            } else if (kind == 1) {
                l.q.set(0, 0, n, c, 0.5f);
                l.k.set(0, 0, n, c, 0.25f);
            } else if (kind == 2) {
                l.q.set(0, 0, n, c, float(n % 5));
                l.k.set(0, 0, n, c, float(n % 3));
            } else if (kind == 3) {
                l.q.set(0, 0, n, c, std::clamp(cauchy(random), -80.0f, 80.0f));
                l.k.set(0, 0, n, c, std::clamp(cauchy(random), -80.0f, 80.0f));
            } else if (kind == 4) {
                l.q.set(0, 0, n, c, q * 1e-41f);
            } else {
                l.q.set(0, 0, n, c, 8 * q);
            }
        }
    const Policy policies[] = {Dense{}};
    const auto reference = makeReference();
    const Result want = forward(*reference, l, policies);
    everyKernel([&](Backend& backend) {
        const Result got = forward(backend, l, policies);
        double error = 0, norm = 0;
        for (std::size_t i = 0; i < got.o.size(); ++i) {
            error += std::pow(double(got.o[i]) - double(want.o[i]), 2);
            norm += std::pow(double(want.o[i]), 2);
        }
        // Scores of thousands carry their float32 rounding into the exponent.
        CHECK(std::sqrt(error / norm) < (kind == 3 ? 2e-4 : 5e-6));
        for (std::size_t i = 0; i < got.lse.size(); ++i)
            REQUIRE(got.lse[i] == Approx(want.lse[i]).epsilon(1e-5).margin(1e-5));
    });
}

TEST_CASE("plans at their limits") {
    everyKernel([](Backend& backend) {
        const Layer l(layerOf(200, 2), 5);
        const Problem& p = l.problem;
        BlockList nothing;
        nothing.rowPtr = {0, 0, 0, 0, 0};
        BlockList single = nothing;
        single.rowPtr = {0, 0, 1, 1, 1};
        single.col = {1};
        const std::vector<Policy> policies{nothing, single};
        const Result r = forward(backend, l, policies);
        const auto rowEmpty = [&](Index h, Index i) {
            const auto at = std::size_t(h * p.Nq + i);
            bool zero = r.lse[at] == -std::numeric_limits<float>::infinity();
            for (Index e = 0; e < p.dv; ++e)
                zero = zero && r.o[at * std::size_t(p.dv) + std::size_t(e)] == 0.0f;
            return zero;
        };
        for (Index i = 0; i < p.Nq; ++i) {
            CHECK(rowEmpty(0, i));
            CHECK(rowEmpty(1, i) == (i < 64 || i >= 128));
        }
        // One column, and the diagonal that only the last row meets.
        const std::vector<Policy> edge{VerticalSlash{{7}, {}}, VerticalSlash{{}, {199}}};
        const Result e = forward(backend, l, edge);
        for (Index i = 0; i < p.Nq; ++i) {
            CHECK(std::isfinite(e.lse[std::size_t(i)]) == (i >= 7));
            CHECK(std::isfinite(e.lse[std::size_t(p.Nq + i)]) == (i == 199));
        }
    });
}
