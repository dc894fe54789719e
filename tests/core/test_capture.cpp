#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/capture/capture.h"
#include "core/model/tokenizer.h"

using namespace sparsight;

namespace {

const std::string kBookworm = SPARSIGHT_SOURCE_DIR "/resources/models/bookworm";

std::vector<std::int32_t> passage(Index tokens) {
    std::ifstream in(std::string(SPARSIGHT_TEST_DATA) + "/bookworm/bookworm_golden.json");
    const auto golden = nlohmann::json::parse(in);
    auto ids =
        Tokenizer::load(kBookworm)->encode(golden.at("needle_prompt").get<std::string>()).ids;
    REQUIRE(Index(ids.size()) >= tokens);
    ids.resize(std::size_t(tokens));
    return ids;
}

/// P of one row in float64 from the stored values, with its LSE.
double probabilities(const LayerCapture& layer, Index h, Index i, std::vector<double>& p) {
    const auto& problem = layer.problem;
    const auto q = headQ(layer, h), k = headK(layer, h);
    p.assign(std::size_t(problem.Nk), 0.0);
    double sum = 0;
    for (Index j = 0; j < problem.visibleEnd(i); ++j) {
        double s = 0;
        for (Index c = 0; c < problem.d; ++c)
            s += double(kernels::loadFloat(q.p, q.t, i * q.sn + c)) *
                 double(kernels::loadFloat(k.p, k.t, j * k.sn + c));
        sum += p[std::size_t(j)] = std::exp(double(problem.scale) * s);
    }
    for (double& x : p) x /= sum;
    return std::log(sum);
}

void checkStatistics(const LayerCapture& layer, const LayerStats& stats) {
    const auto& problem = layer.problem;
    const Index n = problem.Nq;
    REQUIRE(stats.pyramid.size() > 1);
    const auto& base = stats.pyramid.front();
    REQUIRE(base.block == 64);
    REQUIRE(base.rows == (n + 63) / 64);
    double lse = 0, entropy = 0, distance = 0, sink = 0, local = 0, column = 0, diagonal = 0,
           block = 0, most = 0;
    const auto worse = [](double& worst, double is, double should) {
        worst = std::max(worst, std::abs(is - should));
    };
    std::vector<double> p;
    for (Index h = 0; h < problem.Hq; ++h) {
        std::vector<double> col(std::size_t(n), 0.0), diag(col);
        std::vector<double> sums(std::size_t(base.rows * base.cols), 0.0), maxima(sums);
        for (Index i = 0; i < n; ++i) {
            worse(lse, double(layer.lse(h, i)), probabilities(layer, h, i, p));
            double rowEntropy = 0, rowDistance = 0, rowSink = 0, rowLocal = 0;
            for (Index j = 0; j <= i; ++j) {
                const double x = p[std::size_t(j)];
                if (x > 0) rowEntropy -= x * std::log(x);
                rowDistance += x * double(i - j);
                if (j < 4) rowSink += x;
                if (i - j < 64) rowLocal += x;
                col[std::size_t(j)] += x;
                diag[std::size_t(i - j)] += x;
                const auto b = std::size_t(i / 64 * base.cols + j / 64);
                sums[b] += x;
                maxima[b] = std::max(maxima[b], x);
            }
            const auto at = std::size_t(h * n + i);
            worse(entropy, double(stats.entropy[at]), rowEntropy);
            worse(distance, double(stats.meanDistance[at]) / double(n), rowDistance / double(n));
            worse(sink, double(stats.sinkMass[at]), rowSink);
            worse(local, double(stats.localMass[at]), rowLocal);
        }
        for (Index j = 0; j < n; ++j) {
            const auto at = std::size_t(h * n + j);
            worse(column, double(stats.colMass[at]) / double(n), col[std::size_t(j)] / double(n));
            worse(diagonal, double(stats.diagMass[at]) / double(n),
                  diag[std::size_t(j)] / double(n));
        }
        for (Index b = 0; b < Index(sums.size()); ++b) {
            const auto at = std::size_t(h * Index(sums.size()) + b);
            worse(block, double(base.sum[at]) / 64, sums[std::size_t(b)] / 64);
            worse(most, double(base.max[at]), maxima[std::size_t(b)]);
        }
    }
    CHECK(lse < 1e-4);
    CHECK(entropy < 1e-4);
    CHECK(distance < 1e-5);
    CHECK(sink < 1e-5);
    CHECK(local < 1e-5);
    CHECK(column < 1e-5);
    CHECK(diagonal < 1e-5);
    CHECK(block < 1e-5);
    CHECK(most < 1e-5);
}

}  // namespace

TEST_CASE("a capture's statistics are those of the stored values", "[capture]") {
    const auto model = loadModel(kBookworm);
    const auto backend = kernels::makeBackend();
    const auto ids = passage(700);
    CaptureOptions options;
    options.layers = {2, 4};
    options.store = GENERATE(kernels::DType::F32, kernels::DType::F16, kernels::DType::BF16);
    std::vector<Index> seen;
    double worst = 0;
    std::vector<std::string> stages;
    const double massError = capturePrompt(
        *model, *backend, ids, options,
        [&](const LayerCapture& layer, const LayerStats& stats) {
            seen.push_back(layer.layer);
            CHECK(stats.layer == layer.layer);
            CHECK(layer.q.t == options.store);
            CHECK(layer.k.t == options.store);
            CHECK(layer.v.t == options.store);
            worst = std::max(worst, stats.massError);
            const auto& top = stats.pyramid.back();
            REQUIRE(top.sum.size() == std::size_t(layer.problem.Hq));
            for (const float mass : top.sum) CHECK(mass == Approx(700).epsilon(1e-5));
            if (layer.layer == 4) checkStatistics(layer, stats);
        },
        Job([&](double, std::string_view s) { stages.emplace_back(s); }, {}));
    CHECK(seen == options.layers);
    CHECK(massError == worst);
    CHECK(massError < 1e-5);
    CHECK(std::any_of(stages.begin(), stages.end(),
                      [](const std::string& s) { return s.starts_with("layer 3 of 5"); }));
}

TEST_CASE("the layers before a captured one are untouched by the capture", "[capture]") {
    const auto model = loadModel(kBookworm);
    const auto backend = kernels::makeBackend();
    const auto ids = passage(150);
    const Index d = model->config().headDim;
    std::vector<float> expected;
    KvCache cache(model->config(), 150);
    model->forward(ids, cache, [&, dense = denseAttention(*backend)](const LayerCall& call) {
        dense(call);
        if (call.layer == 5)
            for (Index i = 0; i < 150; ++i)
                for (Index c = 0; c < d; ++c)
                    expected.push_back(
                        static_cast<const float*>(call.q.p)[3 * call.q.sh + i * call.q.sn + c]);
    });
    CaptureOptions options;
    options.store = kernels::DType::F16;  // of all layers: rounding must not reach the next layer
    Index count = 0;
    capturePrompt(*model, *backend, ids, options,
                  [&](const LayerCapture& layer, const LayerStats&) {
                      ++count;
                      if (layer.layer != 5) return;
                      const auto q = headQ(layer, 3);
                      for (Index i = 0; i < 150; ++i)
                          for (Index c = 0; c < d; ++c)
                              REQUIRE(kernels::loadFloat(q.p, q.t, i * q.sn + c) ==
                                      kernels::halfToFloat(
                                          kernels::floatToHalf(expected[std::size_t(i * d + c)])));
                  });
    CHECK(count == model->config().layers);
}

TEST_CASE("a stopped capture keeps its finished layers", "[capture]") {
    const auto model = loadModel(kBookworm);
    const auto backend = kernels::makeBackend();
    const auto ids = passage(300);
    Index done = 0;
    const LayerSink count = [&](const LayerCapture&, const LayerStats&) { ++done; };
    CHECK_THROWS_AS(
        capturePrompt(*model, *backend, ids, {}, count, Job({}, [&] { return done == 3; })),
        Cancelled);
    CHECK(done == 3);
    // A sink that fails stops it with its own error.
    CHECK_THROWS_AS(capturePrompt(*model, *backend, ids, {},
                                  [](const LayerCapture&, const LayerStats&) {
                                      throw Error(Errc::Resources, "the disk is full");
                                  }),
                    Error);
}

TEST_CASE("captures of nothing or of missing layers are refused", "[capture]") {
    const auto model = loadModel(kBookworm);
    const auto backend = kernels::makeBackend();
    const LayerSink nobody = [](const LayerCapture&, const LayerStats&) {};
    CHECK_THROWS_AS(capturePrompt(*model, *backend, std::span<const std::int32_t>{}, {}, nobody), Error);
    CaptureOptions options;
    options.layers = {3, 8};
    CHECK_THROWS_AS(capturePrompt(*model, *backend, passage(10), options, nobody), Error);
}

TEST_CASE("lists of layers", "[capture]") {
    const std::vector<Index> all{0, 1, 2, 3, 4, 5, 6, 7};
    CHECK(parseLayers("", 8) == all);
    CHECK(parseLayers("all", 8) == all);
    CHECK(parseLayers("0,2-5", 8) == std::vector<Index>{0, 2, 3, 4, 5});
    CHECK(parseLayers(" 7 , 3-3,3", 8) == std::vector<Index>{3, 7});
    const auto code = [](std::string_view text) {
        try {
            parseLayers(text, 8);
        } catch (const Error& e) {
            CHECK(std::string(e.what()).find("0 to 7") != std::string::npos);
            return e.code();
        }
        FAIL("no Error for " << text);
        return Errc::Io;
    };
    for (const char* text : {"x", "1,", ",", "-", "2-", "-3", "1-2-3", "1;2", "0x1", "+1"}) {
        CAPTURE(text);
        CHECK(code(text) == Errc::Usage);
    }
    CHECK(code("8") == Errc::NotFound);
    CHECK(code("0-99999999999999999999999") == Errc::NotFound);
    CHECK_THROWS_AS(parseLayers("5-2", 8), Error);
}

TEST_CASE("the estimate grows with the prompt", "[capture]") {
    const auto backend = kernels::makeBackend();
    const ModelConfig config = readConfig(kBookworm);
    const auto small = estimateCapture(config, 1000, {}, *backend);
    const auto large = estimateCapture(config, 16000, {}, *backend);
    CHECK(small.seconds > 0);
    CHECK(large.seconds > small.seconds);
    CHECK(small.memoryBytes > 0);
    CHECK(large.memoryBytes < Index(2500) * 1000 * 1000);
    CHECK(large.diskBytes > 10 * small.diskBytes);
    CHECK(small.modelBytes > 30'000'000);
    CaptureOptions one;
    one.layers = {7};
    CHECK(estimateCapture(config, 1000, one, *backend).diskBytes * 8 == small.diskBytes);
}
