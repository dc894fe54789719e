#include <catch2/catch.hpp>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>

#include "core/metrics/head_metrics.h"
#include "core/metrics/mask_metrics.h"
#include "kernels/plan.h"
#include "random_head.h"

using namespace sparsight;
using kernels::Policy;
using kernels::Problem;

namespace {

constexpr double kTolerance = 2e-5;  // float32 LSEs

kernels::Backend& backend() {
    static const auto shipped = kernels::makeBackend();
    return *shipped;
}

std::vector<Policy> samples(Index Nq, Index Nk) {
    std::vector<Policy> all{kernels::Dense{}, kernels::Streaming{3, 17}, kernels::Streaming{0, 1},
                            kernels::VerticalSlash{{0, 5, 70}, {0, 1, 2, 33, 90}}};
    kernels::BlockList blocks;
    blocks.rowPtr.push_back(0);
    for (Index r = 0; r < (Nq + 63) / 64; ++r) {
        for (Index c = r % 2; c < (Nk + 63) / 64; c += 2) blocks.col.push_back(std::int32_t(c));
        blocks.rowPtr.push_back(std::int32_t(blocks.col.size()));
    }
    all.push_back(blocks);
    return all;
}

/// Kept share of every row's mass: the definition.
std::vector<double> rowShares(const std::vector<double>& attention, const Policy& policy,
                              const Problem& p) {
    const auto mask = tokenMask(policy, p);
    std::vector<double> shares(std::size_t(p.Nq), 0.0);
    for (Index r = 0; r < p.Nq; ++r)
        for (Index k = 0; k < p.Nk; ++k)
            if (mask[std::size_t(r * p.Nk + k)])
                shares[std::size_t(r)] += attention[std::size_t(r * p.Nk + k)];
    return shares;
}

double mean(const std::vector<double>& x) {
    return std::accumulate(x.begin(), x.end(), 0.0) / double(x.size());
}

/// Output of the softmax over the kept keys only.
std::vector<double> output(const RandomLayer& layer, Index h, const Policy& policy) {
    const Problem& p = layer.problem;
    const auto a = layer.attention(h);
    const auto mask = tokenMask(policy, p);
    std::vector<double> o(std::size_t(p.Nq * p.dv), 0.0);
    for (Index r = 0; r < p.Nq; ++r) {
        double sum = 0;
        for (Index k = 0; k < p.Nk; ++k)
            if (mask[std::size_t(r * p.Nk + k)]) sum += a[std::size_t(r * p.Nk + k)];
        for (Index k = 0; k < p.Nk && sum > 0; ++k)
            if (mask[std::size_t(r * p.Nk + k)])
                for (Index c = 0; c < p.dv; ++c)
                    o[std::size_t(r * p.dv + c)] +=
                        a[std::size_t(r * p.Nk + k)] / sum *
                        double(layer.v[std::size_t((p.kvHead(h) * p.Nk + k) * p.dv + c)]);
    }
    return o;
}

Errc codeOf(const std::function<void()>& work) {
    try {
        work();
    } catch (const Error& e) {
        return e.code();
    }
    FAIL("no error");
    return Errc::Usage;
}

}  // namespace

TEST_CASE("recall, coverage and output error are those of the definition", "[metrics]") {
    const auto shape =
        GENERATE(std::pair<Index, Index>{200, 200}, std::pair<Index, Index>{37, 210});
    RandomLayer layer(4, 2, shape.first, shape.second, 16, 21, 2.0f);
    layer.problem.window = GENERATE(0, 45);
    const Index h = GENERATE(0, 3);
    const HeadInput head = layer.head(h, backend());
    const auto attention = layer.attention(h);
    for (const Policy& policy : samples(shape.first, shape.second)) {
        CAPTURE(policy.index(), shape.first, layer.problem.window, h);
        const MaskMetrics m = measureMask(backend(), head, layer.headV(h), policy, {});
        const auto shares = rowShares(attention, policy, head.problem);
        REQUIRE(m.rowRecall.size() == shares.size());
        for (std::size_t r = 0; r < shares.size(); ++r)
            CHECK(double(m.rowRecall[r]) == Approx(shares[r]).margin(kTolerance));
        CHECK(m.recall == Approx(mean(shares)).margin(kTolerance));
        CHECK(m.recallMin ==
              Approx(*std::min_element(shares.begin(), shares.end())).margin(kTolerance));
        CHECK(m.coverage == Approx(double(kernels::keptPairs(policy, head.problem)) /
                                   double(kernels::validPairs(head.problem))));
        const auto sparse = output(layer, h, policy), dense = output(layer, h, kernels::Dense{});
        double error = 0, norm = 0;
        for (std::size_t i = 0; i < dense.size(); ++i) {
            error += (sparse[i] - dense[i]) * (sparse[i] - dense[i]);
            norm += dense[i] * dense[i];
        }
        CHECK(m.outputError == Approx(std::sqrt(error / norm)).margin(kTolerance).epsilon(1e-4));
    }
}

TEST_CASE("tile recall is the mass in the tiles that the plan executes", "[metrics]") {
    RandomLayer layer(1, 1, 300, 300, 16, 22, 2.0f);
    const HeadInput head = layer.head(0, backend());
    const auto attention = layer.attention(0);
    for (const Policy& policy : samples(300, 300)) {
        CAPTURE(policy.index());
        const auto plan =
            kernels::buildPlan(head.problem, std::span(&policy, 1), kernels::PlanMode::Tile);
        double mass = 0;
        std::vector<kernels::Range> ranges;
        for (Index r = 0; r < 300; ++r) {
            kernels::executedRanges(plan, head.problem, 0, r, ranges);
            for (const kernels::Range& range : ranges)
                for (Index k = range.begin; k < range.end; ++k)
                    mass += attention[std::size_t(r * 300 + k)];
        }
        const MaskMetrics m = measureMask(backend(), head, layer.headV(0), policy, {});
        CHECK(m.tileRecall == Approx(mass / 300).margin(kTolerance));
        CHECK(m.density == Approx(plan.stats.density(0)));
        CHECK(m.tiles == plan.stats.tiles[0]);
    }
}

TEST_CASE("dense loses nothing", "[metrics]") {
    const RandomLayer layer(2, 1, 150, 150, 16, 23);
    for (Index h = 0; h < 2; ++h) {
        const MaskMetrics m =
            measureMask(backend(), layer.head(h, backend()), layer.headV(h), kernels::Dense{}, {});
        CHECK(m.recall == Approx(1).margin(1e-6));
        CHECK(m.tileRecall == Approx(1).margin(1e-6));
        CHECK(m.coverage == 1);
        CHECK(m.density == 1);
        CHECK(m.outputError < 1e-6);
    }
}

TEST_CASE("percentiles interpolate as numpy's do", "[metrics]") {
    // All keys equal: row i keeps 1 of i + 1 keys, so its recall is 1 / (i + 1).
    const Index n = 5;
    const std::vector<float> zero(std::size_t(n), 0.0f);
    HeadInput head;
    head.problem.Nq = head.problem.Nk = n;
    head.problem.d = head.problem.dv = 1;
    head.q = head.k = {zero.data(), kernels::DType::F32, n, n, 1};
    head.backend = &backend();
    const MaskMetrics m = measureMask(backend(), head, head.k, kernels::Streaming{0, 1}, {});
    CHECK(m.recall == Approx((1 + 1. / 2 + 1. / 3 + 1. / 4 + 1. / 5) / 5));
    CHECK(m.recallMin == Approx(0.2));
    CHECK(m.recallP1 == Approx(0.2 + 0.04 * 0.05));  // rank 0.01 * 4 between 1/5 and 1/4
    CHECK(m.recallP5 == Approx(0.2 + 0.20 * 0.05));
    CHECK(m.coverage == Approx(5. / 15));
    CHECK(m.outputError == Approx(0).margin(1e-12));  // v is zero everywhere
}

TEST_CASE("rows that keep nothing count with 0, rows that see nothing do not count", "[metrics]") {
    kernels::RowRanges half;  // rows 0..9 keep everything, rows 10..19 nothing
    half.rowEnd = {10, 20};
    half.rangePtr = {0, 1, 1};
    half.ranges = {{0, 20}};
    const RandomLayer layer(1, 1, 20, 20, 8, 24);
    const MaskMetrics m =
        measureMask(backend(), layer.head(0, backend()), layer.headV(0), half, {});
    CHECK(m.recall == Approx(0.5).margin(1e-6));
    CHECK(m.recallMin == 0);
    CHECK(m.rowRecall[15] == 0);

    const RandomLayer tall(1, 1, 30, 10, 8, 25);  // rows 0..19 stand before the first key
    const MaskMetrics t =
        measureMask(backend(), tall.head(0, backend()), tall.headV(0), kernels::Dense{}, {});
    CHECK(t.recall == Approx(1).margin(1e-6));
    CHECK(t.rowRecall[0] == 0);
}

TEST_CASE("needle recall is the kept share of the answer rows' needle mass", "[metrics]") {
    const RandomLayer layer(1, 1, 40, 40, 8, 26, 2.0f);
    const auto a = layer.attention(0);
    MetricsOptions options;
    options.needle = NeedleTruth{};
    options.needle->needle = {5, 9};
    options.needle->answer = {36, 40};
    const auto mass = [&](Index from) {
        double sum = 0;
        for (Index r = 35; r < 39; ++r)  // the rows that predict tokens 36..39
            for (Index k = from; k < 9; ++k) sum += a[std::size_t(r * 40 + k)];
        return sum;
    };
    const HeadInput head = layer.head(0, backend());
    const auto share = [&](const Policy& policy) {
        return *measureMask(backend(), head, layer.headV(0), policy, options).needleRecall;
    };
    CHECK(share(kernels::Dense{}) == Approx(1));
    CHECK(share(kernels::Streaming{0, 10}) == Approx(0).margin(1e-12));
    CHECK(share(kernels::VerticalSlash{{7, 8}, {0}}) == Approx(mass(7) / mass(5)).epsilon(1e-5));
    options.needle->needle = {38, 45};
    CHECK(codeOf([&] { share(kernels::Dense{}); }) == Errc::Shape);
    options.needle.reset();
    CHECK_FALSE(
        measureMask(backend(), head, layer.headV(0), kernels::Dense{}, options).needleRecall);
}

TEST_CASE("a wrong stored LSE and scores that are not numbers are told", "[metrics]") {
    RandomLayer layer(1, 1, 30, 30, 8, 27);
    HeadInput head = layer.head(0, backend());
    std::vector<float> lse(30, -3.0f);
    head.lse = lse.data();
    CHECK(codeOf([&] { measureMask(backend(), head, layer.headV(0), kernels::Dense{}, {}); }) ==
          Errc::Format);
    head.lse = nullptr;
    layer.q[20 * 8] = std::numeric_limits<float>::quiet_NaN();
    CHECK(codeOf([&] { measureMask(backend(), head, layer.headV(0), kernels::Dense{}, {}); }) ==
          Errc::Format);
    std::vector<float> row(30);
    CHECK(codeOf([&] { rowProbabilities(head.problem, head.q, head.k, 20, row.data()); }) ==
          Errc::Format);
    CHECK(codeOf([&] { rowPeak(head.problem, head.q, head.k, 30); }) == Errc::Shape);
}

TEST_CASE("a dense output and an LSE that are given change nothing", "[metrics]") {
    const RandomLayer layer(1, 1, 100, 100, 16, 28, 2.0f);
    HeadInput head = layer.head(0, backend());
    const Policy policy = kernels::Streaming{4, 16};
    const MaskMetrics plain = measureMask(backend(), head, layer.headV(0), policy, {});
    const auto dense = denseOutput(backend(), head, layer.headV(0));
    std::vector<float> lse(100);
    const Policy all = kernels::Dense{};
    backend().lseOnly(
        head.problem, head.q, head.k,
        kernels::buildPlan(head.problem, std::span(&all, 1), kernels::PlanMode::Exact), lse.data());
    head.lse = lse.data();
    MetricsOptions options;
    options.denseOutput = dense.data();
    const MaskMetrics given = measureMask(backend(), head, layer.headV(0), policy, options);
    CHECK(given.recall == Approx(plain.recall).margin(1e-6));
    CHECK(given.outputError == Approx(plain.outputError).margin(1e-6));
}

TEST_CASE("one row's probabilities and its peak", "[metrics]") {
    RandomLayer layer(2, 1, 30, 50, 8, 29, 2.0f);
    layer.problem.window = GENERATE(0, 12);
    const HeadInput head = layer.head(1, backend());
    const auto a = layer.attention(1);
    std::vector<float> row(50);
    for (Index r = 0; r < 30; ++r) {
        rowProbabilities(head.problem, head.q, head.k, r, row.data());
        const auto* expected = a.data() + r * 50;
        for (Index k = 0; k < 50; ++k)
            CHECK(double(row[std::size_t(k)]) == Approx(expected[k]).margin(1e-6));
        const RowPeak peak = rowPeak(head.problem, head.q, head.k, r);
        CHECK(peak.key == std::max_element(expected, expected + 50) - expected);
        CHECK(peak.probability == Approx(expected[peak.key]).margin(1e-9));
    }
}

TEST_CASE("one row's largest probabilities, the lower key first", "[metrics]") {
    RandomLayer layer(2, 1, 30, 50, 8, 29, 2.0f);
    layer.problem.window = GENERATE(0, 12);
    const HeadInput head = layer.head(1, backend());
    const auto a = layer.attention(1);
    for (const Index r : {0, 7, 29}) {
        const auto* expected = a.data() + r * 50;
        const Index begin = head.problem.visibleBegin(r), end = head.problem.visibleEnd(r);
        std::vector<std::int32_t> order;
        for (Index k = begin; k < end; ++k) order.push_back(std::int32_t(k));
        std::stable_sort(order.begin(), order.end(),
                         [&](std::int32_t x, std::int32_t y) { return expected[x] > expected[y]; });
        for (const Index count : {1, 5, 64}) {
            const TopKeys top = rowTopKeys(head.problem, head.q, head.k, r, count);
            REQUIRE(top.key.size() == std::size_t(count));
            for (Index n = 0; n < count; ++n) {
                const auto at = std::size_t(n);
                CHECK(top.key[at] == (n < end - begin ? order[at] : -1));
                CHECK(double(top.p[at]) ==
                      Approx(n < end - begin ? expected[order[at]] : 0.0).margin(1e-6));
            }
        }
    }
    CHECK(codeOf([&] { rowTopKeys(head.problem, head.q, head.k, 30, 5); }) == Errc::Shape);
    // All keys alike.
    const std::vector<float> ones(4, 1.0f);
    Problem p;
    p.Nq = p.Nk = 4;
    p.d = 1;
    const kernels::TensorView x{ones.data(), kernels::DType::F32, 4, 4, 1};
    CHECK(rowTopKeys(p, x, x, 3, 3).key == std::vector<std::int32_t>{0, 1, 2});
}

TEST_CASE("the overlap of a mask with the top keys is the share of them that it keeps",
          "[metrics]") {
    RandomLayer layer(2, 1, 150, 150, 16, 31, 2.0f);
    const HeadInput head = layer.head(1, backend());
    TopKeys top{64, {}, {}};
    for (Index r = 0; r < 150; ++r) {
        const TopKeys row = rowTopKeys(head.problem, head.q, head.k, r, 64);
        top.key.insert(top.key.end(), row.key.begin(), row.key.end());
        top.p.insert(top.p.end(), row.p.begin(), row.p.end());
    }
    MetricsOptions options;
    options.top = &top;
    for (const Policy& policy : samples(150, 150)) {
        CAPTURE(policy.index());
        const auto mask = tokenMask(policy, head.problem);
        std::array<double, 3> wanted{};
        for (Index r = 0; r < 150; ++r)
            for (std::size_t i = 0; i < 3; ++i) {
                const Index k = std::min(kOverlaps[i], r + 1);
                double kept = 0;
                for (Index n = 0; n < k; ++n)
                    kept += mask[std::size_t(r * 150 + top.key[std::size_t(r * 64 + n)])];
                wanted[i] += kept / double(k) / 150;
            }
        const MaskMetrics m = measureMask(backend(), head, layer.headV(1), policy, options);
        REQUIRE(m.topOverlap.has_value());
        for (std::size_t i = 0; i < 3; ++i) CHECK((*m.topOverlap)[i] == Approx(wanted[i]));
        CHECK(!measureMask(backend(), head, layer.headV(1), policy, {}).topOverlap);
    }
    top.key.pop_back();
    CHECK(codeOf([&] { topOverlap(head.problem, kernels::Dense{}, top); }) == Errc::Shape);
}

TEST_CASE("a learned sink takes its share, a cap bounds the score, ties go to the first key",
          "[metrics]") {
    const std::vector<float> ones(4, 1.0f);
    Problem p;
    p.Nq = p.Nk = 4;
    p.d = 1;
    const kernels::TensorView x{ones.data(), kernels::DType::F32, 4, 4, 1};
    std::vector<float> row(4);
    const float sink = 1.0f;
    p.sinks = &sink;  // as heavy as every key: the keys get 1/5 each
    rowProbabilities(p, x, x, 3, row.data());
    for (const float v : row) CHECK(double(v) == Approx(0.2));
    const RowPeak peak = rowPeak(p, x, x, 3);
    CHECK(peak.key == 0);
    CHECK(peak.probability == Approx(0.2));
    p.softcap = 0.5f;  // keys fall to 0.5 tanh(2), the sink stays
    rowProbabilities(p, x, x, 0, row.data());
    const double key = std::exp(0.5 * std::tanh(2.0));
    CHECK(double(row[0]) == Approx(key / (key + std::exp(1.0))));
    CHECK(row[1] == 0);
}

TEST_CASE("retrieval score counts hits, and positions once for the set", "[metrics]") {
    const std::vector<std::int32_t> ids{1, 2, 3, 4, 5};
    const std::vector<CopyStep> steps{{1, 2}, {1, 2}, {2, 9}, {4, 5}, {-1, 2}};
    const RetrievalScore score = retrievalScore(steps, ids, {1, 3});
    CHECK(score.code == Approx(1.0));
    CHECK(score.set == Approx(0.5));
    CHECK(retrievalScore({}, ids, {1, 3}).code == 0);
    CHECK(codeOf([&] { retrievalScore(steps, ids, {3, 3}); }) == Errc::Shape);
    CHECK(codeOf([&] { retrievalScore(steps, ids, {3, 6}); }) == Errc::Shape);
}

TEST_CASE("head facts are means over the late rows, and the label follows from them", "[metrics]") {
    const Index n = 400, Hq = 2;
    RandomLayer layer(Hq, 1, n, n, 8, 30);
    // Head 1, row 390 looks at key 100 alone: the token it produces, 391, is a copy of token 100.
    for (Index c = 0; c < 8; ++c)
        layer.q[std::size_t((n + 390) * 8 + c)] = 100 * layer.k[std::size_t(100 * 8 + c)];
    for (Index k = 0; k < n; ++k) {  // make key 100 the unique best of its own direction
        double dot = 0, self = 0;
        for (Index c = 0; c < 8; ++c) {
            dot += double(layer.k[std::size_t(k * 8 + c)] * layer.k[std::size_t(100 * 8 + c)]);
            self += double(layer.k[std::size_t(100 * 8 + c)] * layer.k[std::size_t(100 * 8 + c)]);
        }
        if (k != 100 && dot > 0.5 * self)
            for (Index c = 0; c < 8; ++c) layer.k[std::size_t(k * 8 + c)] *= 0.1f;
    }
    const Problem& p = layer.problem;
    std::vector<float> lse(std::size_t(Hq * n));
    LayerStats stats;
    stats.heads = Hq;
    stats.Nq = stats.Nk = n;
    for (auto* x : {&stats.entropy, &stats.meanDistance, &stats.sinkMass, &stats.localMass})
        x->resize(std::size_t(Hq * n));
    kernels::CaptureOut out;
    out.lse = lse.data();
    out.entropy = stats.entropy.data();
    out.meanDistance = stats.meanDistance.data();
    out.sinkMass = stats.sinkMass.data();
    out.localMass = stats.localMass.data();
    backend().capture(p, layer.viewQ(), layer.viewK(), {}, out);
    LayerCapture capture;
    capture.layer = 3;
    capture.problem = p;
    capture.q = layer.viewQ();
    capture.k = layer.viewK();
    capture.v = layer.viewV();
    capture.lse = View<const float, 2>(lse.data(), {Hq, n});
    std::vector<std::int32_t> ids(std::size_t(n), 7);
    ids[100] = 42;
    ids[391] = 42;
    NeedleTruth truth;
    truth.needle = {100, 101};
    truth.answer = {391, 392};
    const auto facts = headFacts(backend(), capture, stats, ids, truth);
    REQUIRE(facts.size() == 2);
    for (Index h = 0; h < Hq; ++h) {
        const auto a = layer.attention(h);
        double sink = 0, local = 0, entropy = 0, distance = 0, streaming = 0;
        for (Index r = 64; r < n; ++r)
            for (Index k = 0; k <= r; ++k) {
                const double v = a[std::size_t(r * n + k)];
                sink += k < 4 ? v : 0;
                local += r - k < 64 ? v : 0;
                entropy -= v > 0 ? v * std::log(v) : 0;
                distance += v * double(r - k);
                streaming += k < 4 || r - k < 256 ? v : 0;
            }
        const HeadFacts& f = facts[std::size_t(h)];
        CAPTURE(h);
        const double rows = double(n - 64);
        CHECK(f.layer == 3);
        CHECK(f.head == h);
        CHECK(f.kvHead == 0);
        CHECK(f.sinkMass == Approx(sink / rows).margin(kTolerance));
        CHECK(f.localMass == Approx(local / rows).margin(kTolerance));
        CHECK(f.entropy == Approx(entropy / rows).epsilon(1e-4));
        CHECK(f.distance == Approx(distance / rows).epsilon(1e-4));
        CHECK(f.streamingRecall == Approx(streaming / rows).margin(kTolerance));
    }
    CHECK(facts[0].retrieval.value() == 0);
    CHECK(facts[1].retrieval.value() == 1);
    CHECK(facts[1].label == "retrieval");
    CHECK(facts[0].label == (facts[0].streamingRecall >= 0.95 ? "streaming" : "mixed"));

    CHECK_FALSE(headFacts(backend(), capture, stats, {}, std::nullopt)[1].retrieval);
    truth.needle = {399, 401};
    CHECK(codeOf([&] { headFacts(backend(), capture, stats, ids, truth); }) == Errc::Shape);
    stats.Nk = 1;
    CHECK(codeOf([&] { headFacts(backend(), capture, stats, ids, std::nullopt); }) == Errc::Shape);
    CHECK(codeOf([&] { headInput(capture, nullptr, 2, backend()); }) == Errc::NotFound);
    CHECK(headInput(capture, nullptr, 1, backend()).lse == lse.data() + n);
}

TEST_CASE("recall curves ascend in density and say what makes each point", "[metrics]") {
    const char* text = GENERATE("a-shape:sink=4", "vertical-slash:keep_local=4,keep_sink=2",
                                "antidiagonal:block=64", "oracle-blocks");
    CAPTURE(text);
    const RandomLayer layer(1, 1, 600, 600, 16, 31, 2.0f);
    const HeadInput head = layer.head(0, backend());
    const auto curve = recallCurve(backend(), head, layer.headV(0), parseMethod(text), 6);
    REQUIRE(!curve.empty());
    CHECK(curve.size() <= 6);
    MetricsOptions options;
    options.outputError = options.tileRecall = false;
    for (std::size_t i = 0; i < curve.size(); ++i) {
        CAPTURE(i, toString(curve[i].spec));
        if (i > 0) CHECK(curve[i].density > curve[i - 1].density);
        const MaskMetrics m = measureMask(backend(), head, layer.headV(0),
                                          makePolicy(curve[i].spec)->select(head), options);
        CHECK(curve[i].recall == Approx(m.recall).margin(kTolerance));
        CHECK(curve[i].density == Approx(m.density).margin(1e-9));
        CHECK(curve[i].coverage == Approx(m.coverage).margin(1e-9));
    }
    CHECK(recallCurve(backend(), head, layer.headV(0), parseMethod("dense"), 6).size() == 1);
    CHECK(codeOf([&] { recallCurve(backend(), head, layer.headV(0), parseMethod("dense"), 1); }) ==
          Errc::Usage);
}
