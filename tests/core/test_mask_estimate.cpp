#include <catch2/catch.hpp>

#include "core/masks/oracle_blocks.h"
#include "core/metrics/mask_estimate.h"
#include "core/metrics/mask_metrics.h"
#include "random_head.h"

using namespace sparsight;
using kernels::Policy;

namespace {

kernels::Backend& backend() {
    static const auto shipped = kernels::makeBackend();
    return *shipped;
}

/// Heads with sinks and near keys, so that masks differ in what they keep.
RandomLayer structured(Index n) {
    RandomLayer layer(2, 1, n, n, 32, 5, 1.5f);
    for (Index j = 0; j < n; ++j)
        for (Index c = 0; c < 32; ++c) {
            float& k = layer.k[std::size_t(j * 32 + c)];
            if (j < 3) k = c < 8 ? 2.0f : 0.0f;  // what every query below likes
        }
    for (Index h = 0; h < 2; ++h)
        for (Index i = 0; i < n; ++i)
            for (Index c = 0; c < 8; ++c) layer.q[std::size_t((h * n + i) * 32 + c)] += 0.8f;
    return layer;
}

LayerStats statsOf(const RandomLayer& layer) {
    const kernels::Problem& p = layer.problem;
    LayerStats s;
    s.heads = p.Hq;
    s.Nq = p.Nq;
    s.Nk = p.Nk;
    LayerStats::Level base;
    base.rows = (p.Nq + 63) / 64;
    base.cols = (p.Nk + 63) / 64;
    const auto blocks = std::size_t(p.Hq * base.rows * base.cols);
    base.sum.resize(blocks);
    base.max.resize(blocks);
    s.colMass.resize(std::size_t(p.Hq * p.Nk));
    s.diagMass.resize(std::size_t(p.Hq * p.Nk));
    s.sinkMass.resize(std::size_t(p.Hq * p.Nq));
    kernels::CaptureOut out;
    out.blockSum = base.sum.data();
    out.blockMax = base.max.data();
    out.colMass = s.colMass.data();
    out.diagMass = s.diagMass.data();
    out.sinkMass = s.sinkMass.data();
    backend().capture(p, layer.viewQ(), layer.viewK(), {}, out);
    s.pyramid.push_back(std::move(base));
    buildPyramid(s);
    return s;
}

MaskMetrics measured(const RandomLayer& layer, Index h, const Policy& policy) {
    MetricsOptions options;
    options.outputError = options.tileRecall = false;
    return measureMask(backend(), layer.head(h, backend()), layer.headV(h), policy, options);
}

Policy scattered(const kernels::Problem& p) {
    kernels::RowRanges ranges;
    ranges.rangePtr.push_back(0);
    for (Index i = 0; i < p.Nq; ++i) {
        for (Index j = i % 37; j + 11 < p.Nk; j += 37)
            ranges.ranges.push_back({std::int32_t(j), std::int32_t(j + 11)});
        ranges.rowEnd.push_back(std::int32_t(i + 1));
        ranges.rangePtr.push_back(std::int32_t(ranges.ranges.size()));
    }
    return ranges;
}

}  // namespace

TEST_CASE("an estimate comes near the measured recall and has the planner's density") {
    const RandomLayer layer = structured(1000);
    const LayerStats stats = statsOf(layer);
    kernels::BlockList blocks64, blocks128;
    blocks128.block = 128;
    for (kernels::BlockList* list : {&blocks64, &blocks128}) {
        list->rowPtr.push_back(0);
        const auto rows = std::int32_t((1000 + list->block - 1) / list->block);
        for (std::int32_t r = 0; r < rows; ++r) {
            for (std::int32_t c = r % 3; c <= r; c += 3) list->col.push_back(c);
            list->rowPtr.push_back(std::int32_t(list->col.size()));
        }
    }
    kernels::VerticalSlash vs;
    for (const int c : {0, 1, 2, 40, 41, 300, 301, 302, 650}) vs.cols.push_back(c);
    for (int s = 0; s < 60; ++s) vs.diags.push_back(s);
    for (int s = 200; s < 900; s += 45) vs.diags.push_back(s);
    const struct {
        const char* name;
        Policy policy;
        double tolerance;
    } cases[] = {
        {"dense", kernels::Dense{}, 1e-4},
        {"blocks of 64", blocks64, 1e-4},
        {"blocks of 128", blocks128, 1e-4},
        {"sink 4, window 100", kernels::Streaming{4, 100}, 2e-3},
        {"sink 64, window 256", kernels::Streaming{64, 256}, 0.02},
        {"window alone", kernels::Streaming{0, 64}, 1e-4},
        {"wider than the text", kernels::Streaming{4, 5000}, 1e-4},
        {"columns and slashes", vs, 0.02},
        {"scattered ranges", scattered(layer.problem), 0.03},
    };
    for (const auto& c : cases)
        for (Index h = 0; h < 2; ++h) {
            INFO(c.name << ", head " << h);
            const MaskMetrics want = measured(layer, h, c.policy);
            const MaskEstimate got =
                estimateMask(layer.problem.oneHead(h), stats, h, c.policy);
            CHECK(got.recall == Approx(want.recall).margin(c.tolerance));
            CHECK(got.density == Approx(want.density).epsilon(1e-12));
            if (got.exact) CHECK(got.recall == Approx(want.recall).margin(1e-4));
        }
    CHECK(estimateMask(layer.problem.oneHead(0), stats, 0, blocks64).exact);
    CHECK_FALSE(estimateMask(layer.problem.oneHead(0), stats, 0, vs).exact);
}

TEST_CASE("an estimate refuses statistics of other tokens") {
    const RandomLayer layer = structured(200);
    LayerStats stats = statsOf(layer);
    stats.Nk = 100;
    CHECK_THROWS_WITH(estimateMask(layer.problem.oneHead(0), stats, 0, kernels::Dense{}),
                      Catch::Contains("block masses"));
}

TEST_CASE("the block curve of a model is what the oracle keeps, head by head") {
    const RandomLayer layer = structured(900);
    const LayerStats stats = statsOf(layer);
    const double densities[] = {0.5, 0.2, 0.35, 1.0};
    const BlockMasses masses{layer.problem, &stats};
    const BlockCurve curve = blockCurve(std::span(&masses, 1), densities, 2);
    REQUIRE(curve.heads.size() == 2);
    for (std::size_t d = 0; d < 4; ++d) {
        double sum = 0;
        for (Index h = 0; h < 2; ++h) {
            HeadInput head = layer.head(h, backend());
            const OracleOrder order = oracleOrder(head, 64);
            const Policy kept = oracleList(order, oracleCount(order, densities[d]));
            const double want = measured(layer, h, kept).recall;
            CHECK(double(curve.heads[std::size_t(h)][d]) == Approx(want).margin(1e-4));
            sum += want;
        }
        CHECK(curve.recall[d] == Approx(sum / 2).margin(1e-4));
    }
    CHECK(curve.recall[3] == Approx(1));
}
