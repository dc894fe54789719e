#include "core/metrics/head_metrics.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "kernels/plan.h"

namespace sparsight {
namespace {

constexpr Index kFirstRow = 64;  ///< earlier rows see few keys: their shares are high by themselves
constexpr Index kLocal = 64;
constexpr Index kStreamSink = 4, kStreamWindow = 256;
constexpr double kRetrievalFrom = 0.1, kStreamingFrom = 0.95;

/// Scores of one row in natural units, float64; -inf where the row cannot see.
std::vector<double> rowScores(const kernels::Problem& p, kernels::TensorView q,
                              kernels::TensorView k, Index row) {
    if (row < 0 || row >= p.Nq)
        throw Error(Errc::Shape, fmt::format("attention row {} is outside 0..{}", row, p.Nq - 1));
    std::vector<double> scores(std::size_t(p.Nk), -std::numeric_limits<double>::infinity());
    std::vector<double> query(std::size_t(p.d));
    for (Index i = 0; i < p.d; ++i)
        query[std::size_t(i)] = double(kernels::loadFloat(q.p, q.t, row * q.sn + i));
    for (Index key = p.visibleBegin(row); key < p.visibleEnd(row); ++key) {
        double dot = 0;
        for (Index i = 0; i < p.d; ++i)
            dot += query[std::size_t(i)] * double(kernels::loadFloat(k.p, k.t, key * k.sn + i));
        double s = double(p.scale) * dot;
        if (p.softcap > 0) s = double(p.softcap) * std::tanh(s / double(p.softcap));
        if (p.relBias) s += double(p.relBias[key - row + p.Nq - 1]);
        if (!std::isfinite(s))
            throw Error(Errc::Format, fmt::format("the attention score of row {}, key {} is not "
                                                  "finite: the captured q or k holds NaN or "
                                                  "infinity",
                                                  row, key));
        scores[std::size_t(key)] = s;
    }
    return scores;
}

/// ln of the softmax's denominator, the learned sink included.
double logDenominator(const kernels::Problem& p, const std::vector<double>& scores) {
    double top = *std::max_element(scores.begin(), scores.end());
    if (p.sinks) top = std::max(top, double(*p.sinks));
    double sum = p.sinks ? std::exp(double(*p.sinks) - top) : 0.0;
    for (const double s : scores) sum += std::exp(s - top);
    return top + std::log(sum);
}

/// Mean of the rows at positions kFirstRow and later; of all rows of short prompts, and where
/// attention is not causal (there the first rows see all keys).
double lateMean(const float* values, const kernels::Problem& p) {
    const Index rows = p.Nq, late = std::max<Index>(0, kFirstRow - p.position(0));
    const Index first = p.causal && rows > late ? late : 0;
    double sum = 0;
    for (Index r = first; r < rows; ++r) sum += double(values[r]);
    return rows > first ? sum / double(rows - first) : 0.0;
}

/// Keys lie on both sides of the query: distances count without their sign.
void bothSides(const LayerStats& stats, Index head, HeadFacts& f) {
    const Index width = stats.Nq + stats.Nk - 1;
    if (Index(stats.diagMass.size()) != stats.heads * width) return;
    double mass = 0, local = 0, distance = 0;
    for (Index i = 0; i < width; ++i) {
        const double m = double(stats.diagMass[std::size_t(head * width + i)]);
        const Index apart = std::abs(stats.Nk - 1 - i);
        mass += m;
        distance += m * double(apart);
        if (apart < kLocal) local += m;
    }
    if (!(mass > 0)) return;
    f.distance = distance / mass;
    f.localMass = local / mass;
}

void checkNeedle(const NeedleTruth& truth, Index tokens) {
    const auto inside = [&](const TokenSpan& s) {
        return s.begin >= 0 && s.begin < s.end && s.end <= tokens;
    };
    if (!inside(truth.needle) || !inside(truth.answer) || truth.answer.begin < 1)
        throw Error(Errc::Shape,
                    fmt::format("needle {}..{} or answer {}..{} is outside the prompt of {} tokens",
                                truth.needle.begin, truth.needle.end, truth.answer.begin,
                                truth.answer.end, tokens));
}

}  // namespace

void rowProbabilities(const kernels::Problem& head, kernels::TensorView q, kernels::TensorView k,
                      Index row, float* out) {
    const std::vector<double> scores = rowScores(head, q, k, row);
    std::fill(out, out + head.Nk, 0.0f);
    if (head.visibleBegin(row) >= head.visibleEnd(row)) return;
    const double lse = logDenominator(head, scores);
    for (Index key = 0; key < head.Nk; ++key)
        out[key] = float(std::exp(scores[std::size_t(key)] - lse));
}

RowPeak rowPeak(const kernels::Problem& head, kernels::TensorView q, kernels::TensorView k,
                Index row) {
    const std::vector<double> scores = rowScores(head, q, k, row);
    if (head.visibleBegin(row) >= head.visibleEnd(row)) return {};
    const auto best = std::max_element(scores.begin(), scores.end());  // the first of equal ones
    return {best - scores.begin(), std::exp(*best - logDenominator(head, scores))};
}

TopKeys rowTopKeys(const kernels::Problem& head, kernels::TensorView q, kernels::TensorView k,
                   Index row, Index count) {
    const std::vector<double> scores = rowScores(head, q, k, row);
    TopKeys top{count, std::vector<std::int32_t>(std::size_t(count), -1),
                std::vector<float>(std::size_t(count), 0.0f)};
    std::vector<std::int32_t> keys;
    for (std::size_t key = 0; key < scores.size(); ++key)
        if (scores[key] > -std::numeric_limits<double>::infinity())
            keys.push_back(std::int32_t(key));
    if (keys.empty()) return top;
    const auto found = std::min(keys.size(), std::size_t(count));
    std::partial_sort(keys.begin(), keys.begin() + std::ptrdiff_t(found), keys.end(),
                      [&](std::int32_t a, std::int32_t b) {
                          const double x = scores[std::size_t(a)], y = scores[std::size_t(b)];
                          return x > y || (x == y && a < b);
                      });
    const double lse = logDenominator(head, scores);
    for (std::size_t i = 0; i < found; ++i) {
        top.key[i] = keys[i];
        top.p[i] = float(std::exp(scores[std::size_t(keys[i])] - lse));
    }
    return top;
}

RetrievalScore retrievalScore(std::span<const CopyStep> steps, std::span<const std::int32_t> ids,
                              TokenSpan needle) {
    if (needle.begin < 0 || needle.size() < 1 || needle.end > Index(ids.size()))
        throw Error(Errc::Shape, fmt::format("needle {}..{} is outside the prompt of {} tokens",
                                             needle.begin, needle.end, ids.size()));
    Index hits = 0;
    std::set<Index> positions;
    for (const CopyStep& step : steps) {
        // Looking at the needle is not enough: the token looked at must be the one produced. A head
        // that looks one token behind (induction) scores 0.
        if (!needle.contains(step.argmaxKey)) continue;
        if (ids[std::size_t(step.argmaxKey)] != step.token) continue;
        ++hits;
        positions.insert(step.argmaxKey);
    }
    return {double(positions.size()) / double(needle.size()), double(hits) / double(needle.size())};
}

std::vector<HeadFacts> headFacts(kernels::Backend& backend, const LayerCapture& layer,
                                 const LayerStats& stats, std::span<const std::int32_t> ids,
                                 const std::optional<NeedleTruth>& needle, const Job& job) {
    const kernels::Problem& p = layer.problem;
    if (stats.heads != p.Hq || stats.Nq != p.Nq || stats.Nk != p.Nk)
        throw Error(
            Errc::Shape,
            fmt::format("layer {}: statistics of {} heads x {} rows x {} keys do not belong "
                        "to a capture of {} x {} x {}",
                        layer.layer, stats.heads, stats.Nq, stats.Nk, p.Hq, p.Nq, p.Nk));
    if (needle) {
        if (Index(ids.size()) != p.Nk)
            throw Error(Errc::Shape, fmt::format("layer {}: {} token ids for {} captured keys",
                                                 layer.layer, ids.size(), p.Nk));
        checkNeedle(*needle, p.Nk);
    }
    // Recall of the streaming mask, all heads in one call.
    const kernels::Policy streaming[] = {kernels::Streaming{kStreamSink, kStreamWindow}};
    const kernels::Plan plan = kernels::buildPlan(p, streaming, kernels::PlanMode::Exact);
    std::vector<float> recall(std::size_t(p.Hq * p.Nq));
    backend.lseOnly(p, layer.q, layer.k, plan, recall.data(), job);
    for (Index h = 0; h < p.Hq; ++h)
        for (Index r = 0; r < p.Nq; ++r) {
            float& value = recall[std::size_t(h * p.Nq + r)];
            value = std::isfinite(value) ? std::min(1.0f, std::exp(value - layer.lse(h, r))) : 0.0f;
        }

    std::vector<HeadFacts> facts;
    for (Index h = 0; h < p.Hq; ++h) {
        job.step(double(h) / double(p.Hq), "head facts");
        HeadFacts f;
        f.layer = layer.layer;
        f.head = h;
        f.kvHead = p.kvHead(h);
        const auto mean = [&](const std::vector<float>& values) {
            return values.empty() ? 0.0 : lateMean(values.data() + h * p.Nq, p);
        };
        f.sinkMass = mean(stats.sinkMass);
        f.localMass = mean(stats.localMass);
        f.entropy = mean(stats.entropy);
        f.distance = mean(stats.meanDistance);
        if (!p.causal) bothSides(stats, h, f);
        f.streamingRecall = mean(recall);
        if (needle) {
            const kernels::Problem one = headProblem(layer, h);
            std::vector<CopyStep> steps;
            for (Index t = needle->answer.begin; t < needle->answer.end; ++t) {
                const Index row = t - 1 - (p.Nk - p.Nq);  // the row that predicts token t
                if (row < 0) continue;
                const RowPeak peak = rowPeak(one, headQ(layer, h), headK(layer, h), row);
                steps.push_back({peak.key, ids[std::size_t(t)]});
            }
            f.retrieval = retrievalScore(steps, ids, needle->needle).set;
        }
        f.label = f.retrieval && *f.retrieval >= kRetrievalFrom ? "retrieval"
                  : f.streamingRecall >= kStreamingFrom         ? "streaming"
                                                                : "mixed";
        facts.push_back(std::move(f));
    }
    return facts;
}

}  // namespace sparsight
