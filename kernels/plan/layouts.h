#pragma once

#include <algorithm>
#include <array>
#include <span>
#include <vector>

#include "kernels/plan/drafter.h"

/// One layout per policy: which runs and lists of keys make up a q tile.
namespace sparsight::kernels::planner {

// ---- one layout per policy; each drafts the q tile that the drafter stands at

inline void layDense(Drafter& d) {
    for (Index a = d.denseBegin(); a < d.hi(); a += kTile) {
        KvTile tile;
        tile.a = std::int32_t(a);
        d.visibleTile(tile);
    }
}

/// A source tells which keys a row keeps, before the clip to what it sees: columnsFrom(a)(row) is
/// the 128 keys from `a` on (asked for every row of the q tile in turn), has(row, key) one key of a
/// gather (all of them when kGatheredAreKept), keepsAll a run that every row of the q tile keeps;
/// lay() drafts the q tile.
struct StreamingSource {
    static constexpr bool kGatheredAreKept = false;
    const Problem& p;
    Index sink, window;
    Rows rows;

    StreamingSource(const Problem& problem, const Streaming& s)
        : p(problem),
          sink(std::min(s.sink, problem.Nk)),
          window(std::min(s.window, problem.Nk + problem.Nq)) {}

    Index windowBegin(Index row) const { return p.position(row) - window + 1; }
    auto columnsFrom(Index a) const {
        return [this, a, sinks = below(sink - a)](Index row) {
            return sinks | between(windowBegin(row) - a, p.position(row) + 1 - a);
        };
    }
    bool keepsAll(Index begin, Index end) const {
        if (end <= sink) return true;
        return begin >= windowBegin(rows.end - 1) && end <= p.position(rows.begin) + 1;
    }
    void lay(Drafter& d) {
        rows = d.rows();
        const Index sinkEnd = std::min(sink, d.hi());
        const Index begin = std::max(windowBegin(rows.begin), d.lo());
        const Index end = window > 0 ? std::min(p.position(rows.end - 1) + 1, d.hi()) : 0;
        if (begin >= end) {
            d.cutFromLeft(d.lo(), sinkEnd, *this);
        } else if (begin > sinkEnd || sinkEnd <= d.lo()) {
            d.cutFromLeft(d.lo(), sinkEnd, *this);
            d.cutFromRight(begin, end, *this);
        } else {
            d.cutFromLeft(d.lo(), std::max(sinkEnd, end), *this);
        }
    }
};

struct SlashSource {
    static constexpr bool kGatheredAreKept = true;
    const Problem& p;
    const VerticalSlash& vs;
    KeyBits columnSet, slashSet;  ///< slash offset s is member Nk-1-s, so that keys ascend
    Rows rows;
    std::vector<std::int32_t> gather;

    SlashSource(const Problem& problem, const VerticalSlash& policy)
        : p(problem), vs(policy), columnSet(problem.Nk), slashSet(problem.Nk) {
        for (const auto c : vs.cols) columnSet.set(c);
        for (const auto s : vs.diags) slashSet.set(p.Nk - 1 - s);
    }
    /// From one row to the next the diagonals move on by one key.
    auto columnsFrom(Index a) const {
        const Index first = p.Nk - 1 + a - p.position(rows.begin);
        return [verticals = columnSet.columns(a), diagonals = slashSet.columns(first),
                coming = slashSet.columns(first - kTile)](Index) mutable {
            const Columns now = verticals | diagonals;
            diagonals = {diagonals.low << 1 | coming.high >> 63,
                         diagonals.high << 1 | diagonals.low >> 63};
            coming = {coming.low << 1, coming.high << 1 | coming.low >> 63};
            return now;
        };
    }
    bool keepsAll(Index, Index) const { return false; }
    bool has(Index, Index) const { return true; }
    void lay(Drafter& d) {
        rows = d.rows();
        const Index first = p.position(rows.begin), last = p.position(rows.end - 1);
        gather.clear();
        auto column = std::lower_bound(vs.cols.begin(), vs.cols.end(), std::int32_t(d.lo()));
        const auto columnsUpTo = [&](Index key) {
            for (; column != vs.cols.end() && Index(*column) < key; ++column)
                gather.push_back(*column);
        };
        // Diagonals ascend, so their runs descend.
        for (auto s = vs.diags.rbegin(); s != vs.diags.rend();) {
            Index begin = std::max(first - Index(*s), d.lo());
            Index end = std::min(last - Index(*s) + 1, d.hi());
            ++s;
            if (begin >= end) continue;
            for (; s != vs.diags.rend() && first - Index(*s) <= end; ++s)
                end = std::max(end, std::min(last - Index(*s) + 1, d.hi()));
            columnsUpTo(begin);
            while (column != vs.cols.end() && Index(*column) < end) ++column;
            d.cutFromLeft(begin, end, *this);
        }
        columnsUpTo(d.hi());
        for (std::size_t g = 0; g < gather.size(); g += std::size_t(kTile))
            d.keptGather(
                std::span(gather).subspan(g, std::min(std::size_t(kTile), gather.size() - g)),
                *this);
    }
};

struct RangeSource {
    static constexpr bool kGatheredAreKept = false;
    const Problem& p;
    const RowRanges& groups;
    KeyBits all;                     ///< keys that any row of the q tile keeps
    std::vector<KeyBits> groupKeys;  ///< of the groups that the q tile meets
    std::array<std::uint8_t, std::size_t(kTile)> groupOf{};
    Rows rows;
    std::vector<std::int32_t> gather;

    RangeSource(const Problem& problem, const RowRanges& policy)
        : p(problem), groups(policy), all(problem.Nk) {}

    const KeyBits& keysOf(Index row) const {
        return groupKeys[groupOf[std::size_t(row - rows.begin)]];
    }
    auto columnsFrom(Index a) const {
        return [this, a](Index row) { return keysOf(row).columns(a); };
    }
    bool has(Index row, Index key) const { return keysOf(row).has(key); }
    bool keepsAll(Index, Index) const { return false; }
    void lay(Drafter& d) {
        rows = d.rows();
        all.clear();
        std::size_t used = 0;
        auto g = std::size_t(
            std::upper_bound(groups.rowEnd.begin(), groups.rowEnd.end(), std::int32_t(rows.begin)) -
            groups.rowEnd.begin());
        for (Index row = rows.begin; row < rows.end; ++g, ++used) {
            const Index end = std::min(rows.end, Index(groups.rowEnd[g]));
            if (used == groupKeys.size()) groupKeys.emplace_back(p.Nk);
            KeyBits& keys = groupKeys[used];
            keys.clear();
            const Index lo = p.visibleBegin(row), hi = p.visibleEnd(end - 1);
            for (auto i = groups.rangePtr[g]; i < groups.rangePtr[g + 1]; ++i) {
                const Range& r = groups.ranges[std::size_t(i)];
                const Index from = std::max<Index>(r.begin, lo), to = std::min<Index>(r.end, hi);
                if (from >= to) continue;
                keys.set(from, to);
                all.set(from, to);
            }
            for (; row < end; ++row) groupOf[std::size_t(row - rows.begin)] = std::uint8_t(used);
        }
        // A run where at least half of 128 keys are wanted; the keys between runs are gathered.
        gather.clear();
        for (Index key = all.next(d.lo()); key >= 0 && key < d.hi();) {
            const Columns ahead = all.columns(key);
            if (ahead.count() >= kHalf) {
                const Index width = ahead.high ? 128 - std::countl_zero(ahead.high)
                                               : 64 - std::countl_zero(ahead.low);
                d.keptRun(key, width, *this);
                key += width;
            } else {
                gather.push_back(std::int32_t(key));
                ++key;
            }
            if (key >= p.Nk) break;
            key = all.next(key);
        }
        for (std::size_t i = 0; i < gather.size(); i += std::size_t(kTile))
            d.keptGather(
                std::span(gather).subspan(i, std::min(std::size_t(kTile), gather.size() - i)),
                *this);
    }
};

/// 64-blocks in pairs of equal owners first, what is left by position.
inline void layBlocks64(Drafter& d, const BlockList& list) {
    struct Piece {
        std::int32_t key;
        std::uint8_t own;
    };
    const auto pair = [&](const Piece& x, const Piece* y) {
        KvTile tile;
        tile.a = x.key;
        tile.own = x.own;
        tile.valid = std::uint16_t(y ? kTile : kHalf);
        if (y) {
            tile.own = std::uint8_t(x.own | y->own << 2);
            if (y->key != x.key + kHalf) {  // neighbours are a run
                tile.kind = Pair64;
                tile.b = y->key;
            }
        }
        d.visibleTile(tile);
    };
    const auto row = std::size_t(d.rows().begin / kHalf);
    const auto span = [&](std::size_t r) {
        return r + 1 < list.rowPtr.size()
                   ? std::span(list.col).subspan(std::size_t(list.rowPtr[r]),
                                                 std::size_t(list.rowPtr[r + 1] - list.rowPtr[r]))
                   : std::span<const std::int32_t>();
    };
    const auto upper = span(row), lower = span(row + 1);
    std::array<Piece, 4> waiting{};
    std::array<bool, 4> waits{};
    for (std::size_t u = 0, l = 0; u < upper.size() || l < lower.size();) {
        const std::int32_t col = u == upper.size()   ? lower[l]
                                 : l == lower.size() ? upper[u]
                                                     : std::min(upper[u], lower[l]);
        Piece piece{col * std::int32_t(kHalf), 0};
        const Index end = std::min(Index(piece.key) + kHalf, d.hi());
        for (int half = 0; half < 2; ++half) {
            const auto& side = half ? lower : upper;
            auto& at = half ? l : u;
            if (at == side.size() || side[at] != col) continue;
            ++at;
            const Rows rows = d.rows();
            if (d.sight(rows.halfBegin(half), rows.halfEnd(half), piece.key, end).any)
                piece.own = std::uint8_t(piece.own | 1 << half);
        }
        if (piece.own == 0) continue;
        if (waits[piece.own]) {
            pair(waiting[piece.own], &piece);
        } else {
            waiting[piece.own] = piece;
        }
        waits[piece.own] = !waits[piece.own];
    }
    std::vector<Piece> left;
    for (std::size_t own = 1; own < 4; ++own)
        if (waits[own]) left.push_back(waiting[own]);
    std::sort(left.begin(), left.end(),
              [](const Piece& x, const Piece& y) { return x.key < y.key; });
    for (std::size_t i = 0; i < left.size(); i += 2)
        pair(left[i], i + 1 < left.size() ? &left[i + 1] : nullptr);
}

inline void layBlocks128(Drafter& d, const BlockList& list) {
    const auto row = std::size_t(d.rows().begin / kTile);
    if (row + 1 >= list.rowPtr.size()) return;
    for (auto i = list.rowPtr[row]; i < list.rowPtr[row + 1]; ++i) {
        const Index key = Index(list.col[std::size_t(i)]) * kTile;
        if (key >= d.hi()) break;
        KvTile tile;
        tile.a = std::int32_t(key);
        d.visibleTile(tile);
    }
}

}  // namespace sparsight::kernels::planner
