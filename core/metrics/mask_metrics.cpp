#include "core/metrics/mask_metrics.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "core/metrics/head_metrics.h"
#include "kernels/plan.h"

namespace sparsight {
namespace {

/// Two float32 evaluations of one row's LSE differ by rounding; more is a mistake.
constexpr double kExcess = 1e-4;

kernels::Plan planFor(const HeadInput& head, const kernels::Policy& policy,
                      kernels::PlanMode mode) {
    return kernels::buildPlan(head.problem, std::span(&policy, 1), mode);
}

/// recall_i from both LSEs; rows that keep nothing give 0.
std::vector<float> recallOf(const HeadInput& head, const std::vector<float>& masked,
                            const float* dense) {
    std::vector<float> recall(masked.size(), 0.0f);
    for (std::size_t r = 0; r < masked.size(); ++r) {
        const double m = double(masked[r]), d = double(dense[r]);
        if (std::isnan(m) || std::isnan(d) || m > 1e30 || d > 1e30)
            throw Error(Errc::Format,
                        fmt::format("layer {}, head {}, row {}: the attention scores are not "
                                    "finite; the captured q or k holds NaN or infinity",
                                    head.layer, head.head, r));
        if (std::isinf(m)) continue;
        const double share = std::exp(m - d);
        if (share > 1 + kExcess)
            throw Error(Errc::Format,
                        fmt::format("layer {}, head {}, row {}: a recall of {:.6f} is above 1; the "
                                    "stored LSE does not belong to the stored q and k",
                                    head.layer, head.head, r, share));
        recall[r] = float(std::min(share, 1.0));
    }
    return recall;
}

/// Recall of the rows that see any key, in row order.
std::vector<float> seeingRows(const kernels::Problem& p, const std::vector<float>& recall) {
    std::vector<float> rows;
    for (Index r = 0; r < p.Nq; ++r)
        if (p.visibleEnd(r) > p.visibleBegin(r)) rows.push_back(recall[std::size_t(r)]);
    return rows;
}

double mean(const std::vector<float>& values) {
    const double sum = std::accumulate(values.begin(), values.end(), 0.0,
                                       [](double s, float v) { return s + double(v); });
    return values.empty() ? 0.0 : sum / double(values.size());
}

/// Linear interpolation between order statistics at rank p (n - 1).
double percentile(const std::vector<float>& sorted, double p) {
    if (sorted.empty()) return 0;
    const double at = p * double(sorted.size() - 1);
    const auto low = std::size_t(at);
    const double a = double(sorted[low]), b = double(sorted[std::min(low + 1, sorted.size() - 1)]);
    return a + (b - a) * (at - double(low));
}

bool sameTiles(const kernels::Plan& a, const kernels::Plan& b) {
    return a.tiles == b.tiles && a.gather == b.gather && a.bits == b.bits;
}

kernels::MutTensorView outputView(const kernels::Problem& p, std::vector<float>& out) {
    out.resize(std::size_t(p.Nq * p.dv));
    return {out.data(), kernels::DType::F32, p.Nq * p.dv, p.Nq * p.dv, p.dv};
}

/// Kept share of the mass that the rows predicting the answer put on the needle; null without mass.
std::optional<double> needleShare(const HeadInput& head, const kernels::Policy& policy,
                                  const NeedleTruth& truth) {
    const kernels::Problem& p = head.problem;
    if (truth.needle.begin < 0 || truth.needle.end > p.Nk || truth.answer.end > p.Nk)
        throw Error(Errc::Shape, fmt::format("the needle {}..{} is outside the {} captured keys",
                                             truth.needle.begin, truth.needle.end, p.Nk));
    std::vector<float> row(std::size_t(p.Nk));
    std::vector<kernels::Range> ranges;
    double all = 0, kept = 0;
    for (Index t = truth.answer.begin; t < truth.answer.end; ++t) {
        const Index r = t - 1 - (p.Nk - p.Nq);  // the row that predicts token t
        if (r < 0) continue;
        rowProbabilities(p, head.q, head.k, r, row.data());
        kernels::keptRanges(policy, p, r, ranges);
        for (Index k = truth.needle.begin; k < truth.needle.end; ++k)
            all += double(row[std::size_t(k)]);
        for (const kernels::Range& range : ranges)
            for (Index k = std::max<Index>(range.begin, truth.needle.begin);
                 k < std::min<Index>(range.end, truth.needle.end); ++k)
                kept += double(row[std::size_t(k)]);
    }
    if (!(all > 0)) return std::nullopt;
    return kept / all;
}

double relativeError(const std::vector<float>& sparse, const float* dense) {
    double error = 0, norm = 0;
    for (std::size_t i = 0; i < sparse.size(); ++i) {
        const double o = double(dense[i]), d = double(sparse[i]) - o;
        error += d * d;
        norm += o * o;
    }
    if (norm > 0) return std::sqrt(error / norm);
    return error > 0 ? std::numeric_limits<double>::infinity() : 0.0;
}

}  // namespace

std::vector<float> denseOutput(kernels::Backend& backend, const HeadInput& head,
                               kernels::TensorView v, const Job& job) {
    std::vector<float> out;
    if (head.problem.dv == 0) return out;
    const auto plan = planFor(head, kernels::Dense{}, kernels::PlanMode::Exact);
    const auto view = outputView(head.problem, out);
    backend.forward(head.problem, head.q, head.k, v, plan, view, nullptr, job);
    return out;
}

std::optional<std::array<double, 3>> topOverlap(const kernels::Problem& p,
                                                const kernels::Policy& policy, const TopKeys& top) {
    if (top.rows() != p.Nq || top.k < kOverlaps.back())
        throw Error(Errc::Shape, fmt::format("top {} keys of {} rows do not belong to a head of {} "
                                             "rows",
                                             top.k, top.rows(), p.Nq));
    std::array<double, 3> sum{};
    std::vector<kernels::Range> ranges;
    Index rows = 0;
    for (Index r = 0; r < p.Nq; ++r) {
        const std::int32_t* keys = top.key.data() + r * top.k;
        if (keys[0] < 0) continue;
        kernels::keptRanges(policy, p, r, ranges);
        ++rows;
        Index seen = 0, kept = 0;
        std::size_t next = 0;
        for (; seen < kOverlaps.back() && keys[seen] >= 0; ++seen) {
            if (seen == kOverlaps[next]) sum[next++] += double(kept) / double(seen);
            // The last range that begins at or before the key.
            const auto after = std::upper_bound(
                ranges.begin(), ranges.end(), keys[seen],
                [](std::int32_t key, const kernels::Range& range) { return key < range.begin; });
            kept += after != ranges.begin() && keys[seen] < std::prev(after)->end;
        }
        for (; next < sum.size(); ++next) sum[next] += double(kept) / double(seen);
    }
    if (rows == 0) return std::nullopt;
    for (double& s : sum) s /= double(rows);
    return sum;
}

MaskMetrics measureMask(kernels::Backend& backend, const HeadInput& head, kernels::TensorView v,
                        const kernels::Policy& policy, const MetricsOptions& options,
                        const Job& job) {
    const kernels::Problem& p = head.problem;
    const kernels::Plan exact = planFor(head, policy, kernels::PlanMode::Exact);
    const kernels::Plan tile = planFor(head, policy, kernels::PlanMode::Tile);
    MaskMetrics m;
    m.layer = head.layer;
    m.head = head.head;
    m.coverage = tile.stats.coverage(0);
    m.density = tile.stats.density(0);
    m.tiles = tile.stats.tiles[0];

    const auto rows = std::size_t(p.Nq);
    std::vector<float> denseLse;
    const float* lse = head.lse;
    if (!lse) {
        denseLse.resize(rows);
        backend.lseOnly(p, head.q, head.k, planFor(head, kernels::Dense{}, exact.mode),
                        denseLse.data(), job);
        lse = denseLse.data();
    }
    job.step(0.2, "recall");
    std::vector<float> masked(rows);
    if (p.dv == 0) m.outputError = std::numeric_limits<double>::quiet_NaN();
    if (options.outputError && p.dv > 0) {  // one pass gives the output and the LSE
        std::vector<float> sparse, dense;
        const float* reference = options.denseOutput;
        if (!reference) {
            dense = denseOutput(backend, head, v, job);
            reference = dense.data();
        }
        const auto view = outputView(p, sparse);
        backend.forward(p, head.q, head.k, v, exact, view, masked.data(), job);
        m.outputError = relativeError(sparse, reference);
    } else {
        backend.lseOnly(p, head.q, head.k, exact, masked.data(), job);
    }
    m.rowRecall = recallOf(head, masked, lse);
    std::vector<float> sorted = seeingRows(p, m.rowRecall);
    m.recall = mean(sorted);
    std::sort(sorted.begin(), sorted.end());
    m.recallMin = percentile(sorted, 0);
    m.recallP1 = percentile(sorted, 0.01);
    m.recallP5 = percentile(sorted, 0.05);

    job.step(0.7, "tile recall");
    if (options.tileRecall) {
        if (sameTiles(exact, tile)) {  // block masks and dense: the tiles are the nominal set
            m.tileRecall = m.recall;
        } else {
            backend.lseOnly(p, head.q, head.k, tile, masked.data(), job);
            m.tileRecall = mean(seeingRows(p, recallOf(head, masked, lse)));
        }
    }
    if (options.top) m.topOverlap = topOverlap(p, policy, *options.top);
    if (options.needle) m.needleRecall = needleShare(head, policy, *options.needle);
    job.step(1.0, "metrics");
    return m;
}

HeadInput headInput(const LayerCapture& layer, const LayerStats* stats, Index head,
                    kernels::Backend& backend) {
    if (head < 0 || head >= layer.problem.Hq)
        throw Error(Errc::NotFound, fmt::format("layer {} has no head {}; its heads are 0..{}",
                                                layer.layer, head, layer.problem.Hq - 1));
    HeadInput in;
    in.problem = headProblem(layer, head);
    in.q = headQ(layer, head);
    in.k = headK(layer, head);
    if (!layer.lse.empty()) in.lse = layer.lse.row(head).data();
    if (stats && !stats->pyramid.empty() && stats->pyramid.front().block == 64) {
        const LayerStats::Level& base = stats->pyramid.front();
        in.blockMass = base.sum.data() + head * base.rows * base.cols;
    }
    in.backend = &backend;
    in.layer = layer.layer;
    in.head = head;
    in.kvHead = layer.problem.kvHead(head);
    return in;
}

}  // namespace sparsight
