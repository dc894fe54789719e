#include "kernels/plan.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <string>
#include <unordered_map>

#include "kernels/base/error.h"

namespace sparsight::kernels {
namespace {

constexpr Index kHalf = kTile / 2;

/// The 128 columns of one tile row.
struct Columns {
    std::uint64_t low = 0, high = 0;

    Columns operator&(const Columns& o) const { return {low & o.low, high & o.high}; }
    Columns operator|(const Columns& o) const { return {low | o.low, high | o.high}; }
    bool operator==(const Columns&) const = default;
    Index count() const { return std::popcount(low) + std::popcount(high); }
};

std::uint64_t wordBelow(Index n) {
    return n <= 0 ? 0 : n >= 64 ? ~std::uint64_t(0) : (std::uint64_t(1) << n) - 1;
}
/// Columns 0 .. n-1.
Columns below(Index n) {
    return {wordBelow(n), wordBelow(n - 64)};
}
/// Columns begin .. end-1.
Columns between(Index begin, Index end) {
    const Columns b = below(begin), e = below(end);
    return {e.low & ~b.low, e.high & ~b.high};
}

/// A set of keys as bits; reads past both ends give zeros.
class KeyBits {
public:
    explicit KeyBits(Index keys) : m_words(std::size_t((keys + 63) / 64)) {}

    void set(Index key) { m_words[std::size_t(key >> 6)] |= std::uint64_t(1) << (key & 63); }
    void set(Index begin, Index end) {
        while (begin < end) {
            const Index word = begin >> 6, stop = std::min(end, (word + 1) * 64);
            m_words[std::size_t(word)] |= wordBelow(stop - word * 64) & ~wordBelow(begin & 63);
            begin = stop;
        }
    }
    void clear() { std::fill(m_words.begin(), m_words.end(), 0); }
    bool has(Index key) const { return (m_words[std::size_t(key >> 6)] >> (key & 63)) & 1; }
    /// The first member >= key, or -1.
    Index next(Index key) const {
        for (auto w = std::size_t(key >> 6); w < m_words.size(); ++w, key = Index(w) * 64) {
            const std::uint64_t rest = m_words[w] & ~wordBelow(key & 63);
            if (rest) return Index(w) * 64 + std::countr_zero(rest);
        }
        return -1;
    }
    /// Members key .. key+127; key may be negative.
    Columns columns(Index key) const {
        const Index word = key >> 6, shift = key & 63;
        const std::uint64_t a = at(word), b = at(word + 1);
        if (shift == 0) return {a, b};
        return {a >> shift | b << (64 - shift), b >> shift | at(word + 2) << (64 - shift)};
    }

private:
    std::uint64_t at(Index word) const {
        return word < 0 || word >= Index(m_words.size()) ? 0 : m_words[std::size_t(word)];
    }
    std::vector<std::uint64_t> m_words;
};

using Block = std::array<std::uint64_t, 2 * std::size_t(kTile)>;

Index countPlain(const Block& block) {
    Index n = 0;
    for (const std::uint64_t word : block) n += std::popcount(word);
    return n;
}
#if defined(__x86_64__) && defined(__GNUC__)
/// The baseline of the architecture lacks the instruction.
__attribute__((target("popcnt"))) Index countByInstruction(const Block& block) {
    Index n = 0;
    for (const std::uint64_t word : block) n += __builtin_popcountll(word);
    return n;
}
Index countBits(const Block& block) {
    static const bool has = __builtin_cpu_supports("popcnt");
    return has ? countByInstruction(block) : countPlain(block);
}
#else
Index countBits(const Block& block) {
    return countPlain(block);
}
#endif

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
Index quartersOf(const KvTile& tile) {
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

    /// @param rowColumns  row -> the columns that it keeps, before the clip to what it sees
    /// @param clip        (begin, end) -> the columns whose keys lie in [begin, end)
    template <class RowColumns, class Clip>
    void kept(KvTile tile, const RowColumns& rowColumns, const Clip& clip) {
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

// ---- one layout per policy; each drafts the q tile that the drafter stands at

void layDense(Drafter& d) {
    for (Index a = d.denseBegin(); a < d.hi(); a += kTile) {
        KvTile tile;
        tile.a = std::int32_t(a);
        d.visibleTile(tile);
    }
}

/// A source tells which keys a row keeps, before the clip to what it sees: columnsFrom(a)(row) is
/// the 128 keys from `a` on, has(row, key) one key of a gather (all of them when kGatheredAreKept),
/// keepsAll a run that every row of the q tile keeps; lay() drafts the q tile.
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
    std::vector<std::int32_t> gather;

    SlashSource(const Problem& problem, const VerticalSlash& policy)
        : p(problem), vs(policy), columnSet(problem.Nk), slashSet(problem.Nk) {
        for (const auto c : vs.cols) columnSet.set(c);
        for (const auto s : vs.diags) slashSet.set(p.Nk - 1 - s);
    }
    auto columnsFrom(Index a) const {
        return [this, at = p.Nk - 1 + a, verticals = columnSet.columns(a)](Index row) {
            return verticals | slashSet.columns(at - p.position(row));
        };
    }
    bool keepsAll(Index, Index) const { return false; }
    bool has(Index, Index) const { return true; }
    void lay(Drafter& d) {
        const Index first = p.position(d.rows().begin), last = p.position(d.rows().end - 1);
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
void layBlocks64(Drafter& d, const BlockList& list) {
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

void layBlocks128(Drafter& d, const BlockList& list) {
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

/// Tiles by position; gathers stand at their first key.
void sortTiles(Draft& draft) {
    const auto position = [&](std::size_t t) {
        const KvTile& tile = draft.tiles[t];
        return tile.kind == Gather ? draft.gather[std::size_t(tile.a)] : tile.a;
    };
    std::vector<std::size_t> order(draft.tiles.size());
    for (std::size_t t = 0; t < order.size(); ++t) order[t] = t;
    const auto less = [&](std::size_t x, std::size_t y) { return position(x) < position(y); };
    if (std::is_sorted(order.begin(), order.end(), less)) return;
    std::stable_sort(order.begin(), order.end(), less);
    std::vector<KvTile> tiles;
    std::vector<std::int32_t> block;
    for (const std::size_t t : order) {
        tiles.push_back(draft.tiles[t]);
        block.push_back(draft.block[t]);
    }
    draft.tiles.swap(tiles);
    draft.block.swap(block);
}

/// Hundredths of a full tile (kernels.md 5).
Index costOf(std::span<const KvTile> tiles) {
    Index cost = 150;
    for (const KvTile& tile : tiles)
        cost += (tile.kind == Gather ? 115 : 100) + (tile.mask ? 10 : 0);
    return cost;
}

bool same(const Policy& x, const Policy& y) {
    if (x.index() != y.index()) return false;
    return std::visit(
        [&](const auto& a) {
            using T = std::decay_t<decltype(a)>;
            const T& b = std::get<T>(y);
            if constexpr (std::is_same_v<T, Dense>)
                return true;
            else if constexpr (std::is_same_v<T, Streaming>)
                return a.sink == b.sink && a.window == b.window;
            else if constexpr (std::is_same_v<T, BlockList>)
                return a.block == b.block && a.rowPtr == b.rowPtr && a.col == b.col;
            else if constexpr (std::is_same_v<T, VerticalSlash>)
                return a.cols == b.cols && a.diags == b.diags;
            else
                return a.rowEnd == b.rowEnd && a.rangePtr == b.rangePtr && a.ranges == b.ranges;
        },
        x);
}

/// Writes the tiles of whole heads into a plan.
class Builder {
public:
    struct Head {
        std::vector<WorkItem> items;  ///< one per q tile
        std::vector<Index> cost;
        Index nominal = 0, quarters = 0, tiles = 0;
    };

    Builder(const Problem& problem, Plan& plan)
        : m_p(problem), m_plan(plan), m_drafter(problem, plan.mode) {
        const Index qtiles = (problem.Nq + kTile - 1) / kTile;
        for (Index q = 0; q < qtiles; ++q) {
            start(q);
            layDense(m_drafter);
            m_denseQuarters.push_back(m_drafter.draft().quarters);
            plan.stats.validPairs += m_drafter.draft().nominal;
            plan.stats.validQuarters += m_denseQuarters.back();
        }
    }

    Head operator()(const Dense&) {
        return head([&] { layDense(m_drafter); });
    }
    Head operator()(const BlockList& list) {
        return head([&] {
            list.block == kHalf ? layBlocks64(m_drafter, list) : layBlocks128(m_drafter, list);
        });
    }
    Head operator()(const Streaming& s) { return sourced(StreamingSource(m_p, s)); }
    Head operator()(const VerticalSlash& vs) { return sourced(SlashSource(m_p, vs)); }
    Head operator()(const RowRanges& ranges) { return sourced(RangeSource(m_p, ranges)); }

private:
    void start(Index q) { m_drafter.start({q * kTile, std::min((q + 1) * kTile, m_p.Nq)}); }

    template <class Source>
    Head sourced(Source source) {
        return head([&] {
            source.lay(m_drafter);
            const auto q = std::size_t(m_drafter.rows().begin / kTile);
            if (m_drafter.draft().quarters <= m_denseQuarters[q]) return;
            // Runs at free places may touch more quarters than the grid of the dense plan has.
            m_drafter.draft().clear();
            m_drafter.cutFromLeft(m_drafter.denseBegin(), m_drafter.hi(), source);
        });
    }

    template <class Lay>
    Head head(const Lay& lay) {
        Head out;
        for (Index q = 0; q < Index(m_denseQuarters.size()); ++q) {
            start(q);
            lay();
            Draft& draft = m_drafter.draft();
            sortTiles(draft);
            const auto first = m_plan.tiles.size();
            commit(draft);
            out.items.push_back({0, std::int32_t(q), std::int32_t(first),
                                 std::int32_t(m_plan.tiles.size() - first)});
            out.cost.push_back(costOf(draft.tiles));
            out.nominal += draft.nominal;
            out.quarters += draft.quarters;
            out.tiles += Index(draft.tiles.size());
        }
        return out;
    }

    void commit(const Draft& draft) {
        const auto base = std::int32_t(m_plan.gather.size());
        m_plan.gather.insert(m_plan.gather.end(), draft.gather.begin(), draft.gather.end());
        for (std::size_t t = 0; t < draft.tiles.size(); ++t) {
            KvTile tile = draft.tiles[t];
            if (tile.kind == Gather) tile.a += base;
            m_plan.tiles.push_back(tile);
            m_plan.bitsOffset.push_back(
                draft.block[t] < 0 ? -1 : store(draft.blocks[std::size_t(draft.block[t])]));
        }
    }

    /// Equal blocks are stored once: those of a streaming head repeat for every q tile.
    std::int32_t store(const Block& block) {
        std::uint64_t hash = 0x9e3779b97f4a7c15u;
        for (const std::uint64_t word : block)
            hash = (std::rotl(hash, 7) ^ word) * 0xff51afd7ed558ccdu;
        const auto [at, isNew] = m_known.try_emplace(hash, std::int32_t(m_plan.bits.size()));
        if (!isNew &&
            std::memcmp(&m_plan.bits[std::size_t(at->second)], block.data(), sizeof(Block)) == 0)
            return at->second;
        if (m_plan.bits.size() + block.size() > std::size_t(INT32_MAX))
            throw Error(Errc::Resources,
                        "plan: the token masks inside tiles need more than 16 GB; plan fewer heads "
                        "at a time or use tile mode");
        const auto offset = std::int32_t(m_plan.bits.size());
        m_plan.bits.insert(m_plan.bits.end(), block.begin(), block.end());
        return offset;
    }

    const Problem& m_p;
    Plan& m_plan;
    Drafter m_drafter;
    std::vector<Index> m_denseQuarters;  ///< of each q tile
    std::unordered_map<std::uint64_t, std::int32_t> m_known;
};

}  // namespace

Plan buildPlan(const Problem& problem, std::span<const Policy> perHead, PlanMode mode) {
    if (perHead.size() != 1 && Index(perHead.size()) != problem.Hq)
        throw Error(Errc::Shape, "plan: " + std::to_string(perHead.size()) + " masks for " +
                                     std::to_string(problem.Hq) +
                                     " query heads; give one mask, or one per head");
    if (problem.Nq < 0 || problem.Nk < 0 || problem.Nq + problem.Nk > INT32_MAX)
        throw Error(Errc::Shape, "plan: " + std::to_string(problem.Nq) + " queries on " +
                                     std::to_string(problem.Nk) + " keys are out of range");
    for (const Policy& policy : perHead) validate(policy, problem);

    Plan plan;
    plan.mode = mode;
    Builder builder(problem, plan);
    std::vector<std::size_t> source;  // head -> entry of heads
    std::vector<Builder::Head> heads;
    std::vector<const Policy*> planned;
    for (const Policy& policy : perHead) {
        const auto known = std::find_if(planned.begin(), planned.end(),
                                        [&](const Policy* p) { return same(*p, policy); });
        source.push_back(std::size_t(known - planned.begin()));
        if (known != planned.end()) continue;
        planned.push_back(&policy);
        heads.push_back(std::visit(builder, policy));
    }

    struct Costed {
        Index cost;
        WorkItem item;
    };
    std::vector<Costed> work;
    for (Index h = 0; h < problem.Hq; ++h) {
        const Builder::Head& head =
            heads[source[perHead.size() == 1 ? std::size_t(0) : std::size_t(h)]];
        for (std::size_t i = 0; i < head.items.size(); ++i) {
            work.push_back({head.cost[i], head.items[i]});
            work.back().item.head = std::int32_t(h);
        }
        plan.stats.nominalPairs.push_back(head.nominal);
        plan.stats.executedQuarters.push_back(head.quarters);
        plan.stats.tiles.push_back(head.tiles);
    }
    // Stable: equal costs stay by head, so that few K/V heads are in use at a time.
    std::stable_sort(work.begin(), work.end(),
                     [](const Costed& x, const Costed& y) { return x.cost > y.cost; });
    for (const Costed& w : work) plan.work.push_back(w.item);
    return plan;
}

void executedRanges(const Plan& plan, const Problem& problem, Index head, Index row,
                    std::vector<Range>& out) {
    out.clear();
    const Index local = row % kTile;
    const int half = local < kHalf ? 0 : 1;
    const Index position = problem.position(row), from = problem.visibleBegin(row);
    std::vector<Range> found;
    for (const WorkItem& item : plan.work) {
        if (item.head != head || item.qtile != row / kTile) continue;
        for (Index t = item.first; t < Index(item.first) + item.count; ++t) {
            const KvTile& tile = plan.tiles[std::size_t(t)];
            const std::uint64_t* bits =
                tile.mask & MaskExact
                    ? &plan.bits[std::size_t(plan.bitsOffset[std::size_t(t)] + 2 * local)]
                    : nullptr;
            for (Index c = 0; c < tile.valid; ++c) {
                if (!(tile.own >> (2 * (c / kHalf) + half) & 1)) continue;
                const Index key = tileKey(plan, tile, c);
                if (tile.mask & MaskCausal && key > position) continue;
                if (tile.mask & MaskWindow && key < from) continue;
                if (bits && !(bits[c / kHalf] >> (c % kHalf) & 1)) continue;
                if (!found.empty() && found.back().end == key) {
                    ++found.back().end;
                } else {
                    found.push_back({std::int32_t(key), std::int32_t(key + 1)});
                }
            }
        }
    }
    std::sort(found.begin(), found.end(),
              [](const Range& x, const Range& y) { return x.begin < y.begin; });
    for (const Range& r : found) {
        if (!out.empty() && r.begin <= out.back().end) {
            out.back().end = std::max(out.back().end, r.end);
        } else {
            out.push_back(r);
        }
    }
}

}  // namespace sparsight::kernels
