#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <span>
#include <vector>

#include "kernels/plan/columns.h"

/// Makes the tiles of one q tile from runs and lists of keys.
namespace sparsight::kernels::planner {

/// What a set of rows sees of a set of keys.
struct Sight {
    bool any = false;     ///< at least one visible pair
    bool causal = false;  ///< some pair lies behind the diagonal
    bool window = false;  ///< some pair lies before the layer's window
};

/// The tiles of one q tile before they get their place in the plan.
struct Draft {
    std::vector<KvTile> tiles;  ///< Gather: `a` counts from the q tile's own first key
    std::vector<std::int32_t> gather;
    std::vector<std::int32_t> block;  ///< per tile, index into `blocks` or -1
    std::vector<Block> blocks;
    Index nominal = 0, quarters = 0;

    void clear() {
        tiles.clear();
        gather.clear();
        block.clear();
        blocks.clear();
        nominal = quarters = 0;
    }
};

/// The rows of one q tile.
struct Rows {
    Index begin = 0, end = 0;
    Index halfBegin(int half) const { return std::min(end, begin + half * kHalf); }
    Index halfEnd(int half) const { return std::min(end, begin + (half + 1) * kHalf); }
};

/// Quarters of a tile: bit 2 * columnHalf + rowHalf, as in KvTile::own.
inline Index quartersOf(const KvTile& tile) {
    if (tile.kind == Gather) return 2 * std::popcount(unsigned(tile.own | tile.own >> 2) & 3u);
    return std::popcount(unsigned(tile.own));
}

class Drafter {
public:
    Drafter(const Problem& problem, PlanMode mode) : m_p(problem), m_mode(mode) {}

    void start(Rows rows) {
        m_rows = rows;
        m_draft.clear();
        m_lo = m_p.visibleBegin(rows.begin);
        m_hi = m_p.visibleEnd(rows.end - 1);
    }
    Draft& draft() { return m_draft; }
    Rows rows() const { return m_rows; }
    Index lo() const { return m_lo; }
    Index hi() const { return m_hi; }

    Sight sight(Index rowBegin, Index rowEnd, Index keyBegin, Index keyEnd) const {
        Sight s;
        if (rowBegin >= rowEnd || keyBegin >= keyEnd) return s;
        s.causal = keyEnd > m_p.visibleEnd(rowBegin);
        s.window = keyBegin < m_p.visibleBegin(rowEnd - 1);
        if (!s.causal && !s.window) {
            s.any = true;
            return s;
        }
        // Both ends of a row's sight grow with the row: the first row that reaches keyBegin
        // decides.
        const Index row = m_p.causal ? std::max(rowBegin, keyBegin - (m_p.Nk - m_p.Nq)) : rowBegin;
        s.any = row < rowEnd && m_p.visibleBegin(row) < keyEnd;
        return s;
    }

    /// A tile whose nominal set is all that its rows see, in the quarters of `own`.
    void visibleTile(KvTile tile) {
        trim(tile);
        std::uint8_t own = 0;
        for (int q = 0; q < 4; ++q) {
            if (!(tile.own >> q & 1)) continue;
            const Rows r{m_rows.halfBegin(q & 1), m_rows.halfEnd(q & 1)};
            const Range k = keys(tile, q >> 1);
            const Sight s = sight(r.begin, r.end, k.begin, k.end);
            if (!s.any) continue;
            own = std::uint8_t(own | 1 << q);
            tile.mask |= (s.causal ? MaskCausal : 0u) | (s.window ? MaskWindow : 0u);
            if (!s.causal && !s.window) {
                m_draft.nominal += (r.end - r.begin) * (k.end - k.begin);
            } else {
                for (Index row = r.begin; row < r.end; ++row)
                    m_draft.nominal +=
                        std::max<Index>(0, std::min<Index>(k.end, m_p.visibleEnd(row)) -
                                               std::max<Index>(k.begin, m_p.visibleBegin(row)));
            }
        }
        tile.own = own;
        put(tile);
    }

    /// Key rows [a, a + valid) of which row r keeps source.columnsFrom(a)(r), clipped to its sight.
    template <class Source>
    void keptRun(Index a, Index valid, const Source& source) {
        KvTile tile;
        tile.a = std::int32_t(a);
        tile.valid = std::uint16_t(valid);
        trim(tile);
        if (tile.valid == 0) return;
        if (source.keepsAll(a, a + tile.valid)) {
            visibleTile(tile);
            return;
        }
        kept(tile, source.columnsFrom(a),
             [&](Index begin, Index end) { return between(begin - a, end - a); });
    }

    /// The listed keys (at most 128, ascending) of which row r keeps source.has(r, key).
    template <class Source>
    void keptGather(std::span<const std::int32_t> keys, const Source& source) {
        KvTile tile;
        tile.kind = Gather;
        tile.a = std::int32_t(m_draft.gather.size());
        tile.valid = std::uint16_t(keys.size());
        m_draft.gather.insert(m_draft.gather.end(), keys.begin(), keys.end());
        const auto clip = [&](Index begin, Index end) {
            const auto at = [&](Index key) {
                return std::lower_bound(keys.begin(), keys.end(), std::int32_t(key)) - keys.begin();
            };
            return between(at(begin), at(end));
        };
        kept(
            tile,
            [&](Index row) {
                if constexpr (Source::kGatheredAreKept) {
                    return below(Index(keys.size()));
                } else {
                    Columns c;
                    for (std::size_t i = 0; i < keys.size(); ++i)
                        if (source.has(row, keys[i]))
                            (i < 64 ? c.low : c.high) |= std::uint64_t(1) << (i & 63);
                    return c;
                }
            },
            clip);
    }

    /// Key run [begin, end) cut into tiles from the left.
    template <class Source>
    void cutFromLeft(Index begin, Index end, const Source& source) {
        for (Index a = begin; a < end; a += kTile) keptRun(a, std::min(kTile, end - a), source);
    }
    /// The same from the right, so that the diagonal lies in one tile.
    template <class Source>
    void cutFromRight(Index begin, Index end, const Source& source) {
        Index a = begin;
        if (const Index rest = (end - begin) % kTile) {
            keptRun(a, rest, source);
            a += rest;
        }
        for (; a < end; a += kTile) keptRun(a, kTile, source);
    }

    /// Where the tiles of the dense plan begin: on the grid of 64 keys.
    Index denseBegin() const { return m_lo / kHalf * kHalf; }

private:
    /// Cuts off the columns that no row of the q tile sees.
    void trim(KvTile& tile) const {
        const Index last = tile.kind == Pair64 ? Index(tile.b) - kHalf : Index(tile.a);
        tile.valid = std::uint16_t(std::clamp<Index>(m_hi - last, 0, tile.valid));
    }
    /// The keys of one column half of a Run128 or Pair64.
    static Range keys(const KvTile& tile, int half) {
        const std::int32_t begin = half == 0             ? tile.a
                                   : tile.kind == Pair64 ? tile.b
                                                         : tile.a + std::int32_t(kHalf);
        return {begin,
                begin + std::int32_t(std::clamp<Index>(tile.valid - half * kHalf, 0, kHalf))};
    }

    /// @param rowColumns  row -> the columns that it keeps, before the clip to what it sees; asked
    ///                    for every row in turn
    /// @param clip        (begin, end) -> the columns whose keys lie in [begin, end)
    template <class RowColumns, class Clip>
    void kept(KvTile tile, RowColumns rowColumns, const Clip& clip) {
        const Columns all = below(tile.valid);
        const auto seenBy = [&](Index row) {
            return clip(m_p.visibleBegin(row), m_p.visibleEnd(row)) & all;
        };
        // Both ends of a row's sight grow with the row.
        const bool inside =
            (clip(m_p.visibleBegin(m_rows.end - 1), m_p.visibleEnd(m_rows.begin)) & all) == all;
        Block nominal{};
        Columns any[2];
        for (Index row = m_rows.begin; row < m_rows.end; ++row) {
            const Index i = row - m_rows.begin;
            const Columns c = rowColumns(row) & (inside ? all : seenBy(row));
            nominal[std::size_t(2 * i)] = c.low;
            nominal[std::size_t(2 * i + 1)] = c.high;
            any[i / kHalf] = any[i / kHalf] | c;
        }
        m_draft.nominal += countBits(nominal);
        tile.own = std::uint8_t((any[0].low ? 1 : 0) | (any[1].low ? 2 : 0) |
                                (any[0].high ? 4 : 0) | (any[1].high ? 8 : 0));
        if (tile.own == 0) return;

        Columns owned[2];
        for (int half = 0; half < 2; ++half) {
            owned[half] = {tile.own >> half & 1 ? all.low : 0, tile.own >> half & 4 ? all.high : 0};
            if (inside || !(tile.own >> half & 5)) continue;
            const Columns first = clip(0, m_p.visibleEnd(m_rows.halfBegin(half)));
            const Columns last = clip(m_p.visibleBegin(m_rows.halfEnd(half) - 1), m_p.Nk);
            if (!((first & owned[half]) == owned[half])) tile.mask |= MaskCausal;
            if (!((last & owned[half]) == owned[half])) tile.mask |= MaskWindow;
        }
        if (m_mode == PlanMode::Exact) {
            const auto isNominal = [&](const auto& tested) {
                for (Index row = m_rows.begin; row < m_rows.end; ++row) {
                    const Index i = row - m_rows.begin;
                    const Columns own{nominal[std::size_t(2 * i)], nominal[std::size_t(2 * i + 1)]};
                    if (!(own == (tested(row) & owned[i / kHalf]))) return false;
                }
                return true;
            };
            if (isNominal([&](Index row) { return inside ? all : seenBy(row); })) {
                // the tests of the model's own attention suffice
            } else if (!m_p.causal && isNominal([&](Index row) {
                           const Index begin = m_p.visibleBegin(row);
                           return clip(begin, std::max(begin, m_p.position(row) + 1));
                       })) {
                tile.mask |= MaskCausal;
            } else {
                tile.mask = MaskExact;
                m_draft.blocks.push_back(nominal);
            }
        }
        put(tile);
    }

    void put(KvTile tile) {
        if (tile.own == 0) return;
        if (tile.valid < kTile) tile.mask |= MaskTail;
        m_draft.quarters += quartersOf(tile);
        m_draft.block.push_back(tile.mask & MaskExact ? std::int32_t(m_draft.blocks.size()) - 1
                                                      : -1);
        m_draft.tiles.push_back(tile);
    }

    const Problem& m_p;
    PlanMode m_mode;
    Rows m_rows;
    Index m_lo = 0, m_hi = 0;
    Draft m_draft;
};

}  // namespace sparsight::kernels::planner
