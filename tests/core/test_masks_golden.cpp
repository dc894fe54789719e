#include <fmt/format.h>

#include "core/masks/antidiagonal.h"
#include "core/masks/retrieval_heads.h"
#include "core/masks/vertical_slash.h"
#include "core/metrics/head_metrics.h"
#include "golden.h"

using namespace sparsight;
using kernels::Policy;

namespace {

constexpr double kRecall = 2e-5;  // float32 LSEs against the goldens' float64

kernels::Backend& backend() {
    static const auto shipped = kernels::makeBackend();
    return *shipped;
}

kernels::Problem square(Index n) {
    kernels::Problem p;
    p.Nq = p.Nk = n;
    return p;
}

Policy aShape(double sink, double window) {
    MethodSpec spec{"a-shape", {}};
    spec.params.numbers = {{"sink", sink}, {"window", window}};
    return makePolicy(spec)->select({});
}

std::vector<std::int32_t> row(const std::vector<std::int64_t>& flat, Index width, Index at,
                              Index count) {
    const auto begin = flat.begin() + at * width;
    return {begin, begin + count};
}

/// Blocks in which the policy and [rows][rows] bytes differ.
Index differingBlocks(const Policy& policy, const std::vector<std::int64_t>& golden, Index head,
                      Index rows) {
    const auto& list = std::get<kernels::BlockList>(policy);
    std::vector<std::uint8_t> kept(std::size_t(rows * rows));
    REQUIRE(Index(list.rowPtr.size()) == rows + 1);
    for (Index r = 0; r < rows; ++r)
        for (auto i = list.rowPtr[std::size_t(r)]; i < list.rowPtr[std::size_t(r + 1)]; ++i)
            kept[std::size_t(r * rows + list.col[std::size_t(i)])] = 1;
    Index different = 0;
    for (std::size_t i = 0; i < kept.size(); ++i)
        different += kept[i] != golden[std::size_t(head * rows * rows) + i];
    return different;
}

}  // namespace

TEST_CASE("golden a-shape: the authors' Triton kernel executes these pairs", "[masks][golden]") {
    const std::string name =
        GENERATE("ashape_n1024_i128_l1024", "ashape_n1024_i16_l100", "ashape_n777_i128_l256");
    CAPTURE(name);
    const Golden golden("streaming-llm/" + name);
    const Index n = golden.json.at("n");
    const Policy policy = aShape(golden.parameter("n_init"), golden.parameter("n_local"));
    CHECK(tokenMask(policy, square(n)) == golden.mask(0, n));
    const StoredLayer layer("bookworm_L6_n1024", n);
    const auto recall = golden.doubles("recall"), coverage = golden.doubles("density");
    for (Index h = 0; h < 8; ++h) {
        const MaskMetrics m = layer.measure(h, backend(), policy);
        CHECK(m.recall == Approx(recall[std::size_t(h)]).margin(kRecall));
        CHECK(m.coverage == Approx(coverage[0]).epsilon(1e-12));
    }
}

TEST_CASE("golden a-shape: exact streaming of Block-Sparse-Attention", "[masks][golden]") {
    const Golden golden("streaming-llm/bsa_token_n777_s4_l100");
    const Index n = 777;
    const Policy policy = aShape(golden.parameter("sink"), golden.parameter("local"));
    const auto mask = tokenMask(policy, square(n));
    CHECK(mask == golden.mask(0, n));
    // Which blocks that kernel walks is its own business; it has to reach every kept pair.
    const auto visited = golden.ints("block_mask");
    const Index rows = golden.extent("block_mask", 1), cols = golden.extent("block_mask", 2);
    for (Index r = 0; r < rows; ++r)
        for (Index c = 0; c < cols; ++c) {
            int any = 0;
            for (Index i = r * 128; i < std::min(n, r * 128 + 128); ++i)
                for (Index j = c * 64; j < std::min(n, c * 64 + 64); ++j)
                    any |= mask[std::size_t(i * n + j)];
            CAPTURE(r, c);
            CHECK(any <= visited[std::size_t(r * cols + c)]);
        }
}

TEST_CASE("golden a-shape: DuoAttention's training mask is the same set", "[masks][golden]") {
    const Golden golden("duo-attention/trainmask_n777_s64_r256");
    const Policy policy = aShape(golden.parameter("sink_size"), golden.parameter("recent_size"));
    CHECK(tokenMask(policy, square(777)) == golden.mask(0, 777));
    CHECK(double(kernels::keptPairs(policy, square(777))) / double(validPairs(square(777))) ==
          Approx(golden.doubles("density")[0]).epsilon(1e-12));
}

TEST_CASE("golden vertical-slash: indices, tables and the executed set", "[masks][golden]") {
    const std::string name =
        GENERATE("vs_L4_n1024_v30_s50", "vs_L4_n777_v64_s150", "vs_L6_n1024_v100_s200");
    CAPTURE(name);
    const Golden golden("minference/" + name);
    const Index n = golden.json.at("n");
    const StoredLayer layer(fmt::format("bookworm_{}_n1024", name.substr(3, 2)), n);
    const bool forcedTie = golden.parameter("slash_size") < golden.parameter("forced_diagonals");

    MethodSpec spec{"vertical-slash", {}};
    spec.params.numbers = {{"vertical", golden.parameter("vertical_size")},
                           {"slash", golden.parameter("slash_size")},
                           {"last_q", golden.parameter("last_q")},
                           {"keep_sink", golden.parameter("forced_columns")},
                           {"keep_local", golden.parameter("forced_diagonals")}};
    const auto method = makePolicy(spec);
    const auto columns = golden.ints("vertical_idx"), distances = golden.ints("slash_idx");
    const Index V = golden.extent("vertical_idx", 1), S = golden.extent("slash_idx", 1);
    const Index rows = golden.extent("block_count", 1);
    const auto blockCount = golden.ints("block_count"), blocks = golden.ints("block_offset");
    const auto columnCount = golden.ints("column_count"), singles = golden.ints("column_index");
    const auto recall = golden.doubles("recall"), coverage = golden.doubles("density");
    const auto nominalRecall = golden.doubles("recall_nominal");
    for (Index h = 0; h < 8; ++h) {
        CAPTURE(h);
        const HeadInput head = layer.head(h, backend());
        auto chosen = std::get<kernels::VerticalSlash>(method->select(head));
        CHECK(chosen.cols == row(columns, V, h, V));
        if (forcedTie) {
            // All forced distances tie; CUDA keeps others of them than we do. The count is common.
            CHECK(Index(chosen.diags.size()) == S);
            CHECK(chosen.diags.front() >= 0);
            CHECK(chosen.diags.back() < Index(golden.parameter("forced_diagonals")));
            chosen.diags = row(distances, S, h, S);
        } else {
            CHECK(chosen.diags == row(distances, S, h, S));
        }
        const auto tables = releasedTiles(chosen, n, Index(golden.parameter("tile")));
        REQUIRE(Index(tables.size()) == rows);
        for (Index r = 0; r < rows; ++r) {
            const auto at = std::size_t(h * rows + r);
            CAPTURE(r);
            CHECK(tables[std::size_t(r)].tiles ==
                  row(blocks, golden.extent("block_offset", 2), Index(at), blockCount[at]));
            CHECK(tables[std::size_t(r)].columns ==
                  row(singles, golden.extent("column_index", 2), Index(at), columnCount[at]));
        }
        const Policy executed = releasedRanges(chosen, n, Index(golden.parameter("tile")));
        if (!forcedTie)
            CHECK(tokenMask(*method->released(head), head.problem) ==
                  tokenMask(executed, head.problem));
        if (h == 0 || h == 5) CHECK(tokenMask(executed, head.problem) == golden.mask(h ? 1 : 0, n));
        const MaskMetrics run = layer.measure(h, backend(), executed);
        CHECK(run.recall == Approx(recall[std::size_t(h)]).margin(kRecall));
        CHECK(run.coverage == Approx(coverage[std::size_t(h)]).epsilon(1e-12));
        CHECK(layer.measure(h, backend(), chosen).recall ==
              Approx(nominalRecall[std::size_t(h)]).margin(kRecall));
    }
}

TEST_CASE("golden antidiagonal: block scores and block masks", "[masks][golden]") {
    struct Case {
        const char* name;
        Index allowed;  ///< blocks of a head set that the JSON lets differ
    };
    const Case c = GENERATE(Case{"L4_n1024_S4_t95", 0}, Case{"L4_n777_S8_t80", 0},
                            Case{"L6_n1801_S8_t90_chunk1024", 0}, Case{"L6_n2048_S16_t80", 0},
                            Case{"L6_n2048_S4_t90_chunk512_triton", 2}, Case{"L6_n2048_S8_t90", 0},
                            Case{"L6_n2048_S8_t90_chunk1024_unpadded", 4});
    CAPTURE(c.name);
    const Golden golden(std::string("xattention/") + c.name);
    const std::string name = c.name;
    const bool tritonOnly = name.find("unpadded") != name.npos;
    const bool halfScores = tritonOnly || name.find("triton") != name.npos;
    const Index n = golden.json.at("n");
    const StoredLayer layer(
        fmt::format("bookworm_{}_n{}", name.substr(0, 2), name[1] == '4' ? 1024 : 2048), n);
    const auto& given = golden.json.at("parameters").at("chunk_size");
    const Index chunk = given.is_number() ? given.get<Index>() : 0;
    const auto stride = Index(golden.parameter("stride")),
               block = Index(golden.parameter("block_size"));
    const Antidiagonal method(stride, golden.parameter("threshold"), block, /*released=*/true,
                              chunk);
    const std::string suffix = tritonOnly ? "_triton_fp16" : "";
    const auto blocks = golden.ints("block_mask" + suffix);
    const auto score = golden.floats("block_score" + suffix);
    const Index rows = golden.extent("block_mask" + suffix, 1);

    Index different = 0;
    double scoreError = 0;
    std::vector<float> ours(std::size_t(rows * rows));
    for (Index h = 0; h < 8; ++h) {
        CAPTURE(h);
        const HeadInput head = layer.head(h, backend());
        const Policy policy = method.select(head);
        different += differingBlocks(policy, blocks, h, rows);
        backend().antidiagonal(head.problem, head.q, head.k, stride, block,
                               chunk ? chunk : releasedChunk(n), ours.data());
        for (Index r = 0; r < rows; ++r)
            for (Index col = 0; col <= r; ++col)
                scoreError = std::max(
                    scoreError, std::abs(double(ours[std::size_t(r * rows + col)]) -
                                         double(score[std::size_t((h * rows + r) * rows + col)])));
        if (c.allowed > 0) continue;  // a block that differs changes the recall
        const MaskMetrics m = layer.measure(h, backend(), policy);
        CHECK(m.recall == Approx(golden.doubles("recall")[std::size_t(h)]).margin(kRecall));
        CHECK(m.coverage == Approx(golden.doubles("density")[std::size_t(h)]).epsilon(1e-12));
    }
    CHECK(different <= c.allowed);
    CHECK(scoreError < (halfScores ? 1e-2 : 1e-5) * double(block / stride));
}

TEST_CASE("golden DuoAttention: chunked prefill", "[masks][golden]") {
    const std::string name =
        GENERATE("chunk_n777_c200_s16_r64", "chunk_n512_c512_s64_r128_firstchunk");
    CAPTURE(name);
    const Golden golden("duo-attention/" + name);
    const Index n = golden.json.at("n");
    const auto sink = Index(golden.parameter("sink_size")),
               recent = Index(golden.parameter("recent_size"));
    const auto full =
        golden.json.at("parameters").at("full_attention_heads").get<std::vector<int>>();
    const StoredLayer layer("bookworm_L6_n1024", n);
    const Policy streaming =
        duoChunkPolicy(n, Index(golden.parameter("prefilling_chunk_size")), sink, recent);
    // streaming_cache_positions holds zeros only, in both cases, which no cache can: it says
    // nothing about duoCache. The masks do, for every chunk but the first.
    const auto stored = golden.ints("streaming_cache_positions");
    CHECK(std::all_of(stored.begin(), stored.end(), [](auto k) { return k == 0; }));
    for (Index h = 0; h < 8; ++h) {
        const Policy policy = full[std::size_t(h / 2)] ? Policy(kernels::Dense{}) : streaming;
        CAPTURE(h);
        if (h % 2 == 0) CHECK(tokenMask(policy, square(n)) == golden.mask(h / 2, n));
        const MaskMetrics m = layer.measure(h, backend(), policy);
        CHECK(m.recall == Approx(golden.doubles("recall")[std::size_t(h)]).margin(kRecall));
        CHECK(m.coverage == Approx(golden.doubles("density")[std::size_t(h)]).epsilon(1e-12));
    }
}

TEST_CASE("golden DuoAttention: gates cut by quantile", "[masks][golden]") {
    const std::string name = GENERATE("gates_llama3_8b_1048k", "gates_llama2_7b_32k");
    CAPTURE(name);
    const Golden golden("duo-attention/" + name);
    const auto gates = golden.doubles("gates_raw");
    for (const auto& [key, value] : golden.json.at("parameters").at("per_sparsity").items()) {
        const double sparsity = value.at("sparsity");
        const auto same = [&](const std::vector<std::uint8_t>& ours, const std::string& tensor) {
            const auto theirs = golden.ints(tensor);
            return std::equal(ours.begin(), ours.end(), theirs.begin(), theirs.end());
        };
        CAPTURE(key);
        CHECK(same(duoRetrieval(gates, sparsity, golden.doubles("noise_" + key)),
                   "retrieval_" + key));
        CHECK(same(duoRetrieval(gates, sparsity), "noiseless_" + key));
    }
}

TEST_CASE("golden retrieval heads: the authors' counts from their argmaxes", "[metrics][golden]") {
    const std::string name = GENERATE("needle_3trials", "needle_n1024_as_is");
    CAPTURE(name);
    const Golden golden("retrieval-head/" + name);
    const auto& trials = golden.json.at("trials");
    const auto mean = golden.doubles("head_score_mean");
    std::vector<double> sum(64, 0.0);
    for (std::size_t t = 0; t < trials.size(); ++t) {
        const std::string suffix = "_" + std::to_string(t);
        const auto stored = golden.ints("input_ids" + suffix);
        const std::vector<std::int32_t> ids(stored.begin(), stored.end());
        const auto argmax = golden.ints("argmax" + suffix),
                   made = golden.ints("generated" + suffix);
        const auto score = golden.doubles("score" + suffix);
        const TokenSpan span{trials[t].at("needle_span")[0], trials[t].at("needle_span")[1]};
        for (std::size_t h = 0; h < 64; ++h) {
            std::vector<CopyStep> steps;
            for (std::size_t s = 0; s < made.size(); ++s)
                steps.push_back({argmax[s * 64 + h], std::int32_t(made[s])});
            const double ours = retrievalScore(steps, ids, span).code;
            CAPTURE(t, h);
            CHECK(ours == Approx(score[h]).epsilon(1e-12));
            sum[h] += ours / double(trials.size());
        }
    }
    for (std::size_t h = 0; h < 64; ++h) CHECK(sum[h] == Approx(mean[h]).epsilon(1e-12));
}

TEST_CASE("golden retrieval heads: argmax and needle mass of the first step", "[metrics][golden]") {
    // The first step runs on the prompt's last token, whose q and k are stored (float16).
    struct Case {
        const char *golden, *trial, *layer;
        Index number, n;
    };
    const Case c = GENERATE(Case{"needle_n1024_as_is", "0", "bookworm_L4_n1024", 4, 1024},
                            Case{"needle_n1024_as_is", "0", "bookworm_L6_n1024", 6, 1024},
                            Case{"needle_3trials", "1", "bookworm_L6_n2048", 6, 2048});
    CAPTURE(c.golden, c.layer);
    const Golden golden(std::string("retrieval-head/") + c.golden);
    const StoredLayer layer(c.layer, c.n);
    const std::string trial = c.trial;
    const auto argmax = golden.ints("argmax_" + trial);
    const auto margin = golden.floats("argmax_margin_" + trial),
               mass = golden.floats("span_mass_" + trial);
    const auto& span = golden.json.at("trials")[std::size_t(std::stoi(trial))].at("needle_span");
    for (Index h = 0; h < 8; ++h) {
        const HeadInput head = layer.head(h, backend());
        const auto at = std::size_t(c.number * 8 + h);
        CAPTURE(h, margin[at]);
        const RowPeak peak = rowPeak(head.problem, head.q, head.k, c.n - 1);
        if (margin[at] > 1e-3f) CHECK(peak.key == argmax[at]);
        std::vector<float> row(std::size_t(c.n));
        rowProbabilities(head.problem, head.q, head.k, c.n - 1, row.data());
        double ours = 0;
        for (Index k = span[0]; k < span[1]; ++k) ours += double(row[std::size_t(k)]);
        CHECK(ours == Approx(double(mass[at])).margin(2e-3));
    }
}
