#include "core/metrics/mask_estimate.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernels/cpu/thread_pool.h"
#include "kernels/plan.h"

namespace sparsight {
namespace {

constexpr Index kBlock = 64;

/// The 64-token blocks of one head, with what is visible of them.
struct Blocks {
    const kernels::Problem& p;
    const float* mass;  ///< [rows][cols]
    Index rows, cols;

    Blocks(const kernels::Problem& problem, const LayerStats& stats, Index head) : p(problem) {
        if (stats.pyramid.empty() || stats.pyramid.front().block != kBlock || stats.Nq != p.Nq ||
            stats.Nk != p.Nk)
            throw Error(Errc::Shape,
                        "mask estimate: the statistics hold no block masses of these tokens");
        const LayerStats::Level& base = stats.pyramid.front();
        rows = base.rows;
        cols = base.cols;
        mass = base.sum.data() + head * rows * cols;
    }
    Index rowEnd(Index block) const { return std::min((block + 1) * kBlock, p.Nq); }
    Index colEnd(Index block) const { return std::min((block + 1) * kBlock, p.Nk); }
    Index firstCol(Index block) const { return p.visibleBegin(block * kBlock) / kBlock; }
    /// Behind the last column block that the row block sees.
    Index endCol(Index block) const {
        return (p.visibleEnd(rowEnd(block) - 1) + kBlock - 1) / kBlock;
    }
    double all() const { return std::accumulate(mass, mass + rows * cols, 0.0); }
    Index pairs(Index row, Index col) const {
        const Index q0 = row * kBlock, q1 = rowEnd(row), k0 = col * kBlock, k1 = colEnd(col);
        if (p.visibleEnd(q0) >= k1 && p.visibleBegin(q1 - 1) <= k0) return (q1 - q0) * (k1 - k0);
        Index sum = 0;
        for (Index q = q0; q < q1; ++q)
            sum +=
                std::max<Index>(0, std::min(k1, p.visibleEnd(q)) - std::max(k0, p.visibleBegin(q)));
        return sum;
    }
};

/// Kept mass of a mask, summed over all rows.
struct KeptMass {
    const Blocks& blocks;
    const LayerStats& stats;
    Index head;
    bool& exact;

    const kernels::Problem& p() const { return blocks.p; }
    const float* columns() const { return stats.colMass.data() + head * stats.Nk; }
    const float* diagonals() const { return stats.diagMass.data() + head * stats.Nk; }

    double operator()(const kernels::Dense&) const { return blocks.all(); }

    double operator()(const kernels::Streaming& s) const {
        exact = false;
        if (!p().causal || stats.diagMass.empty() || stats.colMass.empty())
            return byArea([&](Index row, auto add) {
                const Index at = p().position(row);
                add(Index(0), std::min(s.sink, at - s.window + 1));
                add(at - s.window + 1, at + 1);
            });
        // Rows at positions below the window keep all that they see.
        const Index whole = std::clamp<Index>(s.window - (p().Nk - p().Nq), 0, p().Nq);
        double kept = 0;
        for (Index d = 0; d < std::min(s.window, p().Nk); ++d) kept += double(diagonals()[d]);
        const Index sink = std::min(s.sink, p().Nk);
        for (Index c = 0; c < sink; ++c) kept += double(columns()[c]);
        return kept - sinkMassOf(whole, sink);
    }

    double operator()(const kernels::BlockList& list) const {
        const Index scale = list.block / kBlock;
        double kept = 0;
        for (std::size_t r = 0; r + 1 < list.rowPtr.size(); ++r)
            for (auto i = list.rowPtr[r]; i < list.rowPtr[r + 1]; ++i) {
                const Index row = Index(r) * scale, col = Index(list.col[std::size_t(i)]) * scale;
                for (Index y = row; y < std::min(row + scale, blocks.rows); ++y)
                    for (Index x = col; x < std::min(col + scale, blocks.cols); ++x)
                        kept += double(blocks.mass[y * blocks.cols + x]);
            }
        return kept;
    }

    double operator()(const kernels::VerticalSlash& vs) const {
        exact = false;
        if (!p().causal || stats.diagMass.empty() || stats.colMass.empty()) {
            std::vector<kernels::Range> ranges;
            return byArea([&](Index row, auto add) {
                kernels::keptRanges(vs, p(), row, ranges);
                for (const kernels::Range& r : ranges) add(Index(r.begin), Index(r.end));
            });
        }
        double kept = 0;
        std::vector<double> chosen(std::size_t(blocks.cols), 0.0), whole(chosen.size(), 0.0);
        for (Index c = 0; c < p().Nk; ++c) whole[std::size_t(c / kBlock)] += double(columns()[c]);
        for (const auto c : vs.cols) {
            kept += double(columns()[c]);
            chosen[std::size_t(c / kBlock)] += double(columns()[c]);
        }
        // A block at distance b (in blocks) holds the offsets (b-1) 64 .. (b+1) 64, the middle ones
        // most: their masses are weighted by how much of each lies in such a block.
        const Index bands = blocks.cols + 1;
        std::vector<double> slashes(std::size_t(bands), 0.0), offsets(slashes.size(), 0.0);
        const auto spread = [&](Index s, double mass, std::vector<double>& to) {
            const Index band = s / kBlock;
            const double share = double(s % kBlock) / double(kBlock);
            to[std::size_t(band)] += mass * (1 - share);
            if (band + 1 < bands) to[std::size_t(band + 1)] += mass * share;
        };
        for (Index s = 0; s < p().Nk; ++s) spread(s, double(diagonals()[s]), offsets);
        for (const auto s : vs.diags) {
            kept += double(diagonals()[s]);
            spread(s, double(diagonals()[s]), slashes);
        }
        const auto ratio = [](double part, double sum) { return sum > 0 ? part / sum : 0.0; };
        const Index shift = (p().Nk - p().Nq) / kBlock;
        for (Index r = 0; r < blocks.rows; ++r)
            for (Index c = blocks.firstCol(r); c < blocks.endCol(r); ++c) {
                const auto band = std::size_t(std::clamp<Index>(r + shift - c, 0, bands - 1));
                kept -= double(blocks.mass[r * blocks.cols + c]) *
                        ratio(chosen[std::size_t(c)], whole[std::size_t(c)]) *
                        ratio(slashes[band], offsets[band]);
            }
        return kept;
    }

    double operator()(const kernels::RowRanges& groups) const {
        exact = false;
        std::size_t g = 0;
        return byArea([&](Index row, auto add) {
            while (row >= Index(groups.rowEnd[g])) ++g;
            for (auto i = groups.rangePtr[g]; i < groups.rangePtr[g + 1]; ++i)
                add(Index(groups.ranges[std::size_t(i)].begin),
                    Index(groups.ranges[std::size_t(i)].end));
        });
    }

private:
    /// Mass of the first `sink` keys in the first `rows` rows.
    double sinkMassOf(Index rows, Index sink) const {
        double sum = 0;
        if (sink == 4 && !stats.sinkMass.empty()) {
            for (Index r = 0; r < rows; ++r)
                sum += double(stats.sinkMass[std::size_t(head * stats.Nq + r)]);
            return sum;
        }
        for (Index c = 0; c * kBlock < sink; ++c) {
            double part = 0, whole = 0;
            for (Index k = c * kBlock; k < blocks.colEnd(c); ++k) {
                whole += double(columns()[k]);
                if (k < sink) part += double(columns()[k]);
            }
            if (!(whole > 0)) continue;
            for (Index r = 0; r * kBlock < rows; ++r)
                sum += double(blocks.mass[r * blocks.cols + c]) * part / whole *
                       double(std::min(rows, blocks.rowEnd(r)) - r * kBlock) /
                       double(blocks.rowEnd(r) - r * kBlock);
        }
        return sum;
    }

    /// @param rowKeys  (row, add) calls add(begin, end) for disjoint ranges of keys, any order
    template <class RowKeys>
    double byArea(const RowKeys& rowKeys) const {
        std::vector<double> kept(std::size_t(blocks.cols));
        double sum = 0;
        for (Index r = 0; r < blocks.rows; ++r) {
            std::fill(kept.begin(), kept.end(), 0.0);
            for (Index row = r * kBlock; row < blocks.rowEnd(r); ++row) {
                const Index lo = p().visibleBegin(row), hi = p().visibleEnd(row);
                rowKeys(row, [&](Index begin, Index end) {
                    begin = std::max(begin, lo);
                    end = std::min(end, hi);
                    while (begin < end) {
                        const Index stop = std::min(end, (begin / kBlock + 1) * kBlock);
                        kept[std::size_t(begin / kBlock)] += double(stop - begin);
                        begin = stop;
                    }
                });
            }
            for (Index c = blocks.firstCol(r); c < blocks.endCol(r); ++c) {
                const double k = kept[std::size_t(c)];
                if (k > 0)
                    sum += double(blocks.mass[r * blocks.cols + c]) *
                           std::min(1.0, k / double(std::max<Index>(1, blocks.pairs(r, c))));
            }
        }
        return sum;
    }
};

}  // namespace

MaskEstimate estimateMask(const kernels::Problem& problem, const LayerStats& stats, Index head,
                          const kernels::Policy& policy) {
    const Blocks blocks(problem, stats, head);
    MaskEstimate estimate;
    estimate.exact = !problem.sinks;
    const double kept = std::visit(KeptMass{blocks, stats, head, estimate.exact}, policy);
    // With learned sinks the keys hold less than 1 a row, and recall is a share of that.
    const double dense = blocks.all();
    estimate.recall = dense > 0 ? std::clamp(kept / dense, 0.0, 1.0) : 0.0;
    estimate.density = kernels::buildPlan(problem, std::span(&policy, 1), kernels::PlanMode::Tile)
                           .stats.density(0);
    return estimate;
}

BlockCurve blockCurve(std::span<const BlockMasses> layers, std::span<const double> densities,
                      int threads, const Job& job) {
    struct Place {
        const BlockMasses* layer;
        Index head;
    };
    std::vector<Place> places;
    for (const BlockMasses& layer : layers)
        for (Index h = 0; h < layer.stats->heads; ++h) places.push_back({&layer, h});
    BlockCurve curve;
    curve.density.assign(densities.begin(), densities.end());
    curve.heads.resize(places.size());
    kernels::ThreadPool pool(threads > 0 ? threads : kernels::physicalCores());
    std::vector<std::vector<float>> scratch(std::size_t(pool.threads()));
    pool.run(
        Index(places.size()),
        [&](Index task, kernels::TaskContext& context) {
            context.check();
            const Place& place = places[std::size_t(task)];
            const kernels::Problem& p = place.layer->problem;
            const Blocks blocks(p, *place.layer->stats, place.head);
            // Free blocks by mass; the diagonal's are kept from the start.
            std::vector<float>& free = scratch[std::size_t(context.worker())];
            free.clear();
            double kept = 0, all = 0;
            Index forced = 0;
            for (Index r = 0; r < blocks.rows; ++r) {
                const Index first = p.position(r * kBlock), last = p.position(blocks.rowEnd(r) - 1);
                for (Index c = blocks.firstCol(r); c < blocks.endCol(r); ++c) {
                    const float mass = blocks.mass[r * blocks.cols + c];
                    all += double(mass);
                    if (c >= std::max<Index>(first, 0) / kBlock && c <= last / kBlock) {
                        kept += double(mass);
                        ++forced;
                    } else {
                        free.push_back(mass);
                    }
                }
            }
            const double count = double(forced) + double(free.size());
            std::vector<float>& out = curve.heads[std::size_t(task)];
            // Densities in ascending order share the selection: each takes up where the last ended.
            std::vector<std::size_t> order(densities.size());
            std::iota(order.begin(), order.end(), std::size_t(0));
            std::sort(order.begin(), order.end(),
                      [&](std::size_t x, std::size_t y) { return densities[x] < densities[y]; });
            out.resize(densities.size());
            std::size_t done = 0;
            for (const std::size_t d : order) {
                const double wanted = std::ceil(densities[d] * count - 1e-9) - double(forced);
                const auto target = std::size_t(std::clamp(wanted, 0.0, double(free.size())));
                if (target > done) {
                    const auto begin = free.begin() + std::ptrdiff_t(done);
                    const auto end = free.begin() + std::ptrdiff_t(target);
                    if (target < free.size())
                        std::nth_element(begin, end, free.end(), std::greater<float>());
                    kept = std::accumulate(begin, end, kept);
                    done = target;
                }
                out[d] = float(all > 0 ? std::min(1.0, kept / all) : 0.0);
            }
        },
        job);
    for (std::size_t d = 0; d < densities.size(); ++d) {
        double sum = 0;
        for (const auto& head : curve.heads) sum += double(head[d]);
        curve.recall.push_back(places.empty() ? 0.0 : sum / double(places.size()));
    }
    return curve;
}

}  // namespace sparsight
