#include <catch2/catch.hpp>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <numeric>

#include "core/masks/antidiagonal.h"
#include "core/masks/oracle_blocks.h"
#include "core/masks/retrieval_heads.h"
#include "core/masks/vertical_slash.h"
#include "core/metrics/head_metrics.h"
#include "core/metrics/mask_metrics.h"
#include "random_head.h"

using namespace sparsight;
using kernels::Policy;
using kernels::Problem;

namespace {

kernels::Backend& backend() {
    static const auto shipped = kernels::makeBackend();
    return *shipped;
}

Problem square(Index n) {
    Problem p;
    p.Nq = p.Nk = n;
    return p;
}

/// "#.." per row, as the sheets draw masks.
std::vector<std::string> picture(const Policy& policy, Index n) {
    const auto mask = tokenMask(policy, square(n));
    std::vector<std::string> rows;
    for (Index r = 0; r < n; ++r) {
        rows.emplace_back();
        for (Index k = 0; k < n; ++k) rows.back() += mask[std::size_t(r * n + k)] ? '#' : '.';
    }
    return rows;
}

Policy select(const char* text, const HeadInput& head) {
    return makePolicy(parseMethod(text))->select(head);
}

std::vector<std::int32_t> blocksOf(std::vector<float> scores, double threshold, bool first) {
    return selectBlocks(scores, Index(scores.size()) - 1, threshold, first);
}

}  // namespace

TEST_CASE("a-shape: the sheet's example", "[masks]") {
    const Policy policy = select("a-shape:sink=1,window=3", {});
    CHECK(picture(policy, 8) == std::vector<std::string>{"#.......", "##......", "###.....",
                                                         "####....", "#.###...", "#..###..",
                                                         "#...###.", "#....###"});
    CHECK(kernels::keptPairs(policy, square(8)) == 26);
}

TEST_CASE("a-shape with a window of all tokens is dense, in decode rows too", "[masks]") {
    Problem p = square(9);
    p.Nq = 1;  // one decode row
    CHECK(tokenMask(select("a-shape:sink=2,window=3", {}), p) ==
          std::vector<std::uint8_t>{1, 1, 0, 0, 0, 0, 1, 1, 1});
    CHECK(kernels::keptPairs(select("a-shape:sink=0,window=9", {}), square(9)) == 45);
}

TEST_CASE("vertical-slash: the sheet's tables and executed set", "[masks]") {
    const kernels::VerticalSlash nominal{{0, 3}, {0, 5}};
    const auto tables = releasedTiles(nominal, 12, 4);
    REQUIRE(tables.size() == 3);
    CHECK(tables[0].tiles == std::vector<std::int32_t>{0});
    CHECK(tables[1].tiles == std::vector<std::int32_t>{0, 4});
    CHECK(tables[2].tiles == std::vector<std::int32_t>{3, 8});
    CHECK(tables[2].columns == std::vector<std::int32_t>{0});
    const Policy executed = releasedRanges(nominal, 12, 4);
    CHECK(picture(executed, 12) ==
          std::vector<std::string>{"#...........", "##..........", "###.........", "####........",
                                   "#####.......", "######......", "#######.....", "########....",
                                   "#..####.#...", "#..####.##..", "#..####.###.", "#..####.####"});
    CHECK(kernels::keptPairs(executed, square(12)) == 66);
    CHECK(kernels::keptPairs(nominal, square(12)) == 36);
}

TEST_CASE("vertical-slash: the sheet's probe sums", "[masks]") {
    // Keys are unit vectors and queries the logarithms of the sheet's rows: P is the sheet's.
    std::vector<float> q(36, 0.0f), k(36, 0.0f);
    for (std::size_t i = 0; i < 6; ++i) k[i * 7] = 1;
    const double rows[2][6] = {{.5, .1, .2, .1, .1, 1}, {.4, .1, .1, .2, .1, .1}};
    for (std::size_t r = 0; r < 2; ++r)
        for (std::size_t j = 0; j < 6; ++j) q[(4 + r) * 6 + j] = float(std::log(rows[r][j]));
    HeadInput head;
    head.problem = square(6);
    head.problem.d = head.problem.dv = 6;
    head.q = {q.data(), kernels::DType::F32, 36, 36, 6};
    head.k = {k.data(), kernels::DType::F32, 36, 36, 6};
    head.backend = &backend();

    Problem probe = head.problem;
    probe.Nq = 2;
    std::vector<float> vert(6), slash(6);
    kernels::CaptureOut out;
    out.colMass = vert.data();
    out.diagMass = slash.data();
    backend().capture(probe, head.q.from(4), head.k, {}, out);
    const double expectedVert[] = {.9, .2, .3, .3, .2, .1},
                 expectedSlash[] = {.2, .2, .4, .2, .6, .4};
    for (std::size_t i = 0; i < 6; ++i) {
        CHECK(double(vert[i]) == Approx(expectedVert[i]).margin(1e-6));
        CHECK(double(slash[i]) == Approx(expectedSlash[i]).margin(1e-6));
    }
    const auto chosen = std::get<kernels::VerticalSlash>(
        select("vertical-slash:vertical=3,slash=4,last_q=2,keep_sink=0,keep_local=1", head));
    CHECK(chosen.cols == std::vector<std::int32_t>{0, 2, 3});
    CHECK(chosen.diags == std::vector<std::int32_t>{0, 2, 4, 5});
    head.problem.causal = false;
    CHECK_THROWS_AS(select("vertical-slash", head), Error);
}

TEST_CASE("largest: forced first, ties to the smaller index, cut to what there is", "[masks]") {
    const std::vector<float> scores{1, 5, 5, 5, 0};
    CHECK(largest(scores, 2, 0) == std::vector<std::int32_t>{1, 2});
    CHECK(largest(scores, 2, 1) == std::vector<std::int32_t>{0, 1});
    CHECK(largest(scores, 9, 0).size() == 5);
    CHECK(largest(scores, 0, 3).empty());
}

TEST_CASE("antidiagonal: the sheet's block scores", "[masks]") {
    const std::vector<float> q{1, 0, 2, 1, 0, 1, 3, 1}, k{2, 0, 1, 0, 0, 1, 1, 2};
    Problem p = square(8);
    p.d = p.dv = 1;
    std::vector<float> score(4, -1.0f);
    const kernels::TensorView vq{q.data(), kernels::DType::F32, 8, 8, 1};
    const kernels::TensorView vk{k.data(), kernels::DType::F32, 8, 8, 1};
    backend().antidiagonal(p, vq, vk, /*stride=*/2, /*block=*/4, /*padTo=*/0, score.data());
    CHECK(double(score[0]) == Approx(2).margin(1e-5));
    CHECK(double(score[2]) == Approx(.918).margin(1e-3));
    CHECK(double(score[3]) == Approx(1.082).margin(1e-3));
}

TEST_CASE("antidiagonal: the sheet's threshold steps, both rules", "[masks]") {
    using Blocks = std::vector<std::int32_t>;
    const std::vector<float> scores{.30f, .05f, .25f, .10f, .30f};
    CHECK(blocksOf(scores, .9, false) == Blocks{0, 2, 3, 4});
    CHECK(blocksOf(scores, .8, false) == Blocks{0, 2, 4});
    CHECK(blocksOf(scores, .6, false) == Blocks{0, 4});
    CHECK(blocksOf(scores, .9, true) == Blocks{0, 1, 2, 3, 4});
    CHECK(blocksOf(scores, .8, true) == Blocks{0, 2, 3, 4});
    CHECK(blocksOf(scores, .6, true) == Blocks{0, 2, 4});
    CHECK(blocksOf({1.0f}, .9, false) == Blocks{0});
    CHECK(releasedChunk(100) == 2048);
    CHECK(releasedChunk(1 << 17) == 2048);
    CHECK(releasedChunk(1 << 14) == 1 << 14);
}

TEST_CASE("DuoAttention: the sheet's chunked prefill and its gates", "[masks]") {
    CHECK(picture(duoChunkPolicy(12, 4, 1, 2), 12) ==
          std::vector<std::string>{"#...........", "##..........", "###.........", "####........",
                                   "#.###.......", "#.####......", "#.#####.....", "#.######....",
                                   "#.....###...", "#.....####..", "#.....#####.", "#.....######"});
    using Ranges = std::vector<kernels::Range>;
    CHECK(duoCache(3, 1, 2) == Ranges{{0, 3}});
    CHECK(duoCache(8, 1, 2) == Ranges{{0, 1}, {6, 8}});
    CHECK(duoCache(8, 0, 2) == Ranges{{6, 8}});
    CHECK(duoCache(0, 1, 2).empty());
    const std::vector<double> gates{.95, .0, 1.0, .31};
    CHECK(duoRetrieval(gates, .5) == std::vector<std::uint8_t>{1, 0, 1, 0});
    CHECK(duoRetrieval(gates, 0) == std::vector<std::uint8_t>{1, 1, 1, 1});
    CHECK(duoRetrieval(gates, 1) == std::vector<std::uint8_t>{0, 0, 0, 0});
}

TEST_CASE("retrieval heads: a table, a list or a score decides", "[masks]") {
    const auto folder = std::filesystem::temp_directory_path() /
                        ("sparsight-duo-" + std::to_string(std::hash<std::string>{}(__FILE__)));
    std::filesystem::create_directories(folder);
    const auto table = folder / "full_attention_heads.tsv";
    std::ofstream(table) << ".95\t.0\n1.0\t.31\n";
    CHECK(readDuoGates(folder.string()) == std::vector<std::vector<double>>{{.95, 0}, {1, .31}});
    HeadInput head;
    head.layer = 1;
    head.head = 3;
    head.kvHead = 1;
    const auto isDense = [&](const std::string& text) {
        return std::holds_alternative<kernels::Dense>(makePolicy(parseMethod(text))->select(head));
    };
    CHECK_FALSE(isDense("retrieval-heads:table=" + table.string()));
    CHECK(isDense("retrieval-heads:table=" + folder.string() + ",sparsity=0.2"));
    CHECK_FALSE(isDense("retrieval-heads:table=" + folder.string() + ",sparsity=0.5"));
    head.kvHead = 0;
    CHECK(isDense("retrieval-heads:table=" + folder.string() + ",sparsity=0.5"));
    head.layer = 2;
    CHECK_THROWS_AS(isDense("retrieval-heads:table=" + table.string()), Error);
    std::ofstream(table) << ".95\t.0\n1.0\n";
    CHECK_THROWS_AS(readDuoGates(table.string()), Error);
    std::ofstream(table) << ".95\tlots\n";
    CHECK_THROWS_AS(readDuoGates(table.string()), Error);
    std::filesystem::remove_all(folder);

    CHECK(isDense("retrieval-heads:heads=2.3+4.0"));
    CHECK_FALSE(isDense("retrieval-heads:heads=2.2"));
    CHECK_THROWS_AS(isDense("retrieval-heads"), Error);
    head.retrievalScore = 0.2;
    CHECK(isDense("retrieval-heads"));
    CHECK_FALSE(isDense("retrieval-heads:threshold=0.3"));
}

TEST_CASE("retrieval score: the sheet's three heads", "[metrics]") {
    enum : std::int32_t { Eat = 1, A, Sandwich, Stop };
    const std::vector<std::int32_t> ids{9, 9, 9, 9, 9, 9, Eat, A, Sandwich, 9};
    const auto score = [&](std::vector<Index> keys) {
        const std::int32_t made[] = {Eat, A, Sandwich, Stop};
        std::vector<CopyStep> steps;
        for (std::size_t i = 0; i < 4; ++i) steps.push_back({keys[i], made[i]});
        return retrievalScore(steps, ids, {6, 9}).code;
    };
    CHECK(score({6, 7, 8, 0}) == Approx(1));
    CHECK(score({6, 2, 8, 8}) == Approx(2.0 / 3));
    CHECK(score({5, 6, 7, 8}) == Approx(0).margin(1e-12));
}

TEST_CASE("oracle blocks: heaviest first, by hand and against every other choice", "[masks]") {
    // 4 x 4 blocks of 64; masses given, so nothing is computed.
    const float mass[] = {64, 0, 0, 0, 10, 54, 0, 0, 30, 2, 32, 0, 1, 20, 3, 40};
    HeadInput head;
    head.problem = square(256);
    head.blockMass = mass;
    head.backend = &backend();
    const OracleOrder order = oracleOrder(head, 64);
    REQUIRE(order.blocks.size() == 10);
    CHECK(order.forced == 4);
    CHECK(order.quarters == 10);
    const std::vector<std::pair<int, int>> expected{{0, 0}, {1, 1}, {2, 2}, {3, 3}, {2, 0},
                                                    {3, 1}, {1, 0}, {3, 2}, {2, 1}, {3, 0}};
    for (std::size_t i = 0; i < 10; ++i) {
        CHECK(order.blocks[i].row == expected[i].first);
        CHECK(order.blocks[i].col == expected[i].second);
    }
    CHECK(oracleCount(order, 0) == 4);
    CHECK(oracleCount(order, 0.6) == 6);
    CHECK(oracleCount(order, 1) == 10);

    const RandomLayer layer(1, 1, 512, 512, 32, 3, 3.0f);
    const HeadInput random = layer.head(0, backend());
    const auto found =
        std::get<kernels::BlockList>(select("antidiagonal:block=64,threshold=0.7", random));
    const Policy best = oracleList(oracleOrder(random, 64), Index(found.col.size()));
    MetricsOptions options;
    options.outputError = false;
    CHECK(measureMask(backend(), random, layer.headV(0), best, options).recall >=
          measureMask(backend(), random, layer.headV(0), found, options).recall - 1e-6);
}

TEST_CASE("every method keeps the diagonal, looks at nothing ahead and fits the problem",
          "[masks]") {
    const auto shape = GENERATE(std::pair<Index, Index>{300, 300}, std::pair<Index, Index>{70, 300},
                                std::pair<Index, Index>{1, 130}, std::pair<Index, Index>{5, 5});
    const Index window = GENERATE(0, 50);
    RandomLayer layer(2, 1, shape.first, shape.second, 16, 11, 2.0f);
    layer.problem.window = window;
    const Problem& p = layer.problem;
    for (const Method& m : methods()) {
        HeadInput head = layer.head(1, backend());
        head.retrievalScore = 0.05;
        CAPTURE(m.id, p.Nq, p.Nk, window);
        const Policy policy = makePolicy({std::string(m.id), {}})->select(head);
        kernels::validate(policy, head.problem);
        const auto mask = tokenMask(policy, head.problem);
        Index wrong = 0;
        for (Index r = 0; r < p.Nq; ++r) {
            wrong += !mask[std::size_t(r * p.Nk + p.position(r))];
            for (Index k = 0; k < p.Nk; ++k)
                wrong += mask[std::size_t(r * p.Nk + k)] &&
                         (k >= p.visibleEnd(r) || k < p.visibleBegin(r));
        }
        CHECK(wrong == 0);
        CHECK(Index(std::accumulate(mask.begin(), mask.end(), 0)) ==
              kernels::keptPairs(policy, head.problem));
        const MaskMetrics metrics = measureMask(backend(), head, layer.headV(1), policy, {});
        CHECK(metrics.recall > 0);
        CHECK(metrics.recall <= 1);
        CHECK(metrics.coverage <= 1);
        CHECK(metrics.density <= 1 + 1e-12);
        CHECK(metrics.tileRecall >= metrics.recall - 1e-5);  // E contains M
        CHECK(metrics.recallMin <= metrics.recallP1);
        CHECK(metrics.recallP1 <= metrics.recallP5);
    }
}

TEST_CASE("a full budget loses nothing", "[masks]") {
    const char* text =
        GENERATE("dense", "a-shape:window=1048576", "vertical-slash:slash=1048576",
                 "vertical-slash:vertical=1048576", "antidiagonal:threshold=1",
                 "antidiagonal:threshold=1,released=1", "retrieval-heads:threshold=0",
                 "oracle-blocks:density=1", "oracle-blocks:density=1,block=128");
    CAPTURE(text);
    const RandomLayer layer(1, 1, 333, 333, 16, 5, 2.0f);
    HeadInput head = layer.head(0, backend());
    head.retrievalScore = 0.5;
    const MaskMetrics m = measureMask(backend(), head, layer.headV(0), select(text, head), {});
    CHECK(m.recall == Approx(1).margin(2e-6));
    CHECK(m.recallMin == Approx(1).margin(1e-5));
    CHECK(m.coverage == 1);
    CHECK(m.density == 1);
    CHECK(m.outputError < 1e-5);
}

TEST_CASE("a larger budget never keeps less mass", "[masks]") {
    struct Sweep {
        const char *method, *name;
        std::vector<double> values;
    };
    const Sweep sweep = GENERATE(Sweep{"a-shape", "window", {1, 8, 64, 200, 333}},
                                 Sweep{"vertical-slash", "slash", {100, 150, 250, 333}},
                                 Sweep{"antidiagonal", "threshold", {0, .3, .6, .9, 1}},
                                 Sweep{"oracle-blocks", "density", {0, .3, .6, .9, 1}});
    CAPTURE(sweep.method);
    const RandomLayer layer(1, 1, 333, 333, 16, 6, 2.0f);
    const HeadInput head = layer.head(0, backend());
    double last = 0;
    for (const double value : sweep.values) {
        MethodSpec spec{sweep.method, {}};
        spec.params.numbers[sweep.name] = value;
        if (spec.id == "vertical-slash") spec.params.numbers["vertical"] = 30;
        const double recall =
            measureMask(backend(), head, layer.headV(0), makePolicy(spec)->select(head), {}).recall;
        CAPTURE(value);
        CHECK(recall >= last - 1e-6);
        last = recall;
    }
}
