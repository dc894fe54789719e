#include "core/masks/vertical_slash.h"

#include <algorithm>
#include <numeric>

namespace sparsight {
namespace {

/// MInference never goes below 50 distances (`max(slash_size, 50)`); with fewer forced ones we
/// follow those.
constexpr Index kLeastSlash = 50;

}  // namespace

std::vector<std::int32_t> largest(std::span<const float> scores, Index count, Index forced) {
    std::vector<std::int32_t> order(scores.size());
    std::iota(order.begin(), order.end(), 0);
    count = std::clamp<Index>(count, 0, Index(scores.size()));
    const auto before = [&](std::int32_t a, std::int32_t b) {
        const bool forcedA = a < forced, forcedB = b < forced;
        if (forcedA != forcedB) return forcedA;
        const float sa = scores[std::size_t(a)], sb = scores[std::size_t(b)];
        if (!forcedA && sa != sb) return sa > sb;
        return a < b;
    };
    std::nth_element(order.begin(), order.begin() + count, order.end(), before);
    order.resize(std::size_t(count));
    std::sort(order.begin(), order.end());
    return order;
}

VerticalSlashMask::VerticalSlashMask(const ParamValues& p)
    : m_vertical(Index(p.numbers.at("vertical"))),
      m_slash(Index(p.numbers.at("slash"))),
      m_lastQ(Index(p.numbers.at("last_q"))),
      m_keepSink(Index(p.numbers.at("keep_sink"))),
      m_keepLocal(Index(p.numbers.at("keep_local"))),
      m_block(Index(p.numbers.at("block"))) {}

kernels::Policy VerticalSlashMask::select(const HeadInput& head, const Job& job) const {
    if (!head.problem.causal)
        throw Error(Errc::Unsupported,
                    "vertical-slash: distances to earlier keys need causal attention; choose a "
                    "block method for this head");
    // The probe is the last rows as a problem of their own. Bottom-right alignment keeps their
    // positions, and relBias needs no shift: j - i + Nq - 1 is the same number in both problems.
    kernels::Problem probe = head.problem;
    probe.Nq = std::min(m_lastQ, head.problem.Nq);
    probe.sinks = nullptr;  // the rule's softmax is over keys only
    const auto q = head.q.from(head.problem.Nq - probe.Nq);
    std::vector<float> vert(std::size_t(probe.Nk), 0.0f), slash(std::size_t(probe.Nk), 0.0f);
    kernels::CaptureOut out;
    out.colMass = vert.data();
    out.diagMass = slash.data();
    head.backend->capture(probe, q, head.k, {}, out, job);
    return kernels::VerticalSlash{
        largest(vert, std::max(m_vertical, m_keepSink), m_keepSink),
        largest(slash, std::max(m_slash, std::min(kLeastSlash, m_keepLocal)), m_keepLocal)};
}

std::optional<kernels::Policy> VerticalSlashMask::released(const HeadInput& head,
                                                           const Job& job) const {
    if (head.problem.Nq != head.problem.Nk) return std::nullopt;
    const auto nominal = std::get<kernels::VerticalSlash>(select(head, job));
    return releasedRanges(nominal, head.problem.Nk, m_block);
}

std::vector<SlashTiles> releasedTiles(const kernels::VerticalSlash& nominal, Index n, Index tile) {
    std::vector<SlashTiles> result(std::size_t((n + tile - 1) / tile));
    for (std::size_t row = 0; row < result.size(); ++row) {
        // e is the end of the query tile, not clipped to n. A distance s asks for the keys
        // [e - s - tile, e - s), moved right to 0 where they would start before it.
        const Index e = (Index(row) + 1) * tile;
        std::vector<kernels::Range> runs;
        for (auto s = nominal.diags.rbegin(); s != nominal.diags.rend(); ++s) {
            if (*s >= e) continue;
            const Index end = std::max(e - *s, tile);
            if (runs.empty() || end > runs.back().end + tile) {
                runs.push_back({std::int32_t(end - tile), std::int32_t(end)});
            } else if (end > runs.back().end) {  // grows by a whole tile, maybe past `end`
                runs.back().end += std::int32_t(tile);
            }
        }
        SlashTiles& out = result[row];
        for (const kernels::Range& r : runs)
            for (Index k = r.begin; k < r.end; k += tile) out.tiles.push_back(std::int32_t(k));
        auto run = runs.begin();
        for (const std::int32_t c : nominal.cols) {
            while (run != runs.end() && c >= run->end) ++run;
            if (run == runs.end()) break;  // right of the last tile: the kernel never gets there
            if (c < run->begin) out.columns.push_back(c);
        }
    }
    return result;
}

kernels::RowRanges releasedRanges(const kernels::VerticalSlash& nominal, Index n, Index tile) {
    kernels::RowRanges out;
    out.rangePtr.push_back(0);
    Index row = 0;
    for (const SlashTiles& tiles : releasedTiles(nominal, n, tile)) {
        auto column = tiles.columns.begin();
        const std::size_t first = out.ranges.size();
        const auto add = [&](Index begin, Index end) {
            end = std::min(end, n);
            if (begin >= end) return;
            if (out.ranges.size() > first && out.ranges.back().end == begin)
                out.ranges.back().end = std::int32_t(end);
            else
                out.ranges.push_back({std::int32_t(begin), std::int32_t(end)});
        };
        for (const std::int32_t t : tiles.tiles) {
            for (; column != tiles.columns.end() && *column < t; ++column)
                add(*column, *column + 1);
            add(t, t + tile);
        }
        row = std::min(row + tile, n);
        out.rowEnd.push_back(std::int32_t(row));
        out.rangePtr.push_back(std::int32_t(out.ranges.size()));
    }
    return out;
}

}  // namespace sparsight
