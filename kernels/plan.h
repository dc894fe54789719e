#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/policy.h"

namespace sparsight::kernels {

inline constexpr Index kTile = 128;  ///< rows of a q tile and key rows of a KvTile

enum TileKind : std::uint8_t {
    Run128,  ///< key rows a .. a+127, any start
    Pair64,  ///< key rows a .. a+63 and b .. b+63
    Gather   ///< the keys gather[a .. a+valid)
};

/// Flags of KvTile::mask; 0 = every pair of the tile counts. The pair of query row i and column c
/// (key j = tileKey(plan, tile, c)) is executed when c < valid, the `own` bit of the row half and
/// column half of the pair is set, and every flagged test holds. No other test is implied: a tile
/// without MaskCausal executes j > pos(i) too, and MaskCausal may stand in a problem that is not
/// causal (a streaming window ends at the query).
enum TileMask : std::uint32_t {
    MaskCausal = 1,  ///< test j <= pos(i)
    MaskWindow = 2,  ///< test j >= Problem::visibleBegin(i), the layer's own window
    MaskTail = 4,    ///< valid < kTile
    MaskExact = 8    ///< test the tile's bits (Plan::bits); they hold every other limit, so that
                     ///< neither MaskCausal nor MaskWindow stands beside it
};

/// 128 key columns for one q tile (kernels.md 4).
struct KvTile {
    std::int32_t a = 0, b = 0;
    std::uint16_t valid = kTile;  ///< columns in use
    std::uint8_t kind = Run128;
    std::uint8_t own =
        0xf;  ///< bits 0-1: which 64-row half uses the first 64 columns; 2-3: the second 64
    std::uint32_t mask = 0;
    bool operator==(const KvTile&) const = default;
};
static_assert(sizeof(KvTile) == 16);

struct WorkItem {
    std::int32_t head = 0, qtile = 0, first = 0, count = 0;  ///< tiles [first, first + count)
};

/// Exact: the executed set is the nominal one, by masks inside tiles (recall, outputError, eval).
/// Tile: the nominal set rounded up to tiles, as production kernels run it.
enum class PlanMode : std::uint8_t { Exact, Tile };

/// Areas per head. Density = executed / valid tile area, the latter being what the dense plan of
/// the same problem executes, counted in 64 x 64 quarters; a Gather tile counts 128 keys. So
/// dense = 1. Coverage = nominal kept pairs / valid pairs.
struct PlanStats {
    std::vector<Index> nominalPairs;      ///< [Hq]
    std::vector<Index> executedQuarters;  ///< [Hq]
    std::vector<Index> tiles;             ///< [Hq] KvTiles
    Index validPairs = 0;                 ///< of one head
    Index validQuarters = 0;              ///< of one head

    double coverage(Index h) const {
        return validPairs ? double(nominalPairs[std::size_t(h)]) / double(validPairs) : 0.0;
    }
    double density(Index h) const {
        return validQuarters ? double(executedQuarters[std::size_t(h)]) / double(validQuarters)
                             : 0.0;
    }
};

/// KV tile lists per (head, 128-row q tile). Work holds every (head, q tile) once, those without
/// tiles too (count 0): the query heads of one key/value head together, the largest cost first among
/// them, and the key/value head with the largest item first. The tiles of an item stand in ascending
/// position (of the first key). Each (row, key) pair is in at most one tile of the item. Heads with
/// equal policies share their tiles: their items name the same [first, first + count).
struct Plan {
    PlanMode mode = PlanMode::Exact;
    std::vector<KvTile> tiles;
    std::vector<std::int32_t> gather;
    std::vector<WorkItem> work;
    /// For a tile with MaskExact: kTile x kTile bits, row-major, two uint64 a row, starting at
    /// bits[bitsOffset[tile]]; -1 for other tiles. Bit c % 64 of word 2 * (row % kTile) + c / 64 is
    /// column c. Equal blocks are stored once. No tile of Tile mode has bits.
    std::vector<std::int32_t> bitsOffset;
    std::vector<std::uint64_t> bits;
    PlanStats stats;
};

/// The key of column `column` < tile.valid.
inline Index tileKey(const Plan& plan, const KvTile& tile, Index column) {
    switch (tile.kind) {
        case Gather:
            return plan.gather[std::size_t(tile.a + column)];
        case Pair64:
            return column < kTile / 2 ? tile.a + column : tile.b + column - kTile / 2;
        default:
            return tile.a + column;
    }
}

/// Compiles one policy per query head into tile lists.
/// @param perHead  Hq policies (or one, used for all heads)
/// @throws Error(Shape) for a policy that does not fit the problem
Plan buildPlan(const Problem& problem, std::span<const Policy> perHead, PlanMode mode);

/// The pairs that `plan` executes in row `row` of head `head`, as sorted disjoint ranges: the
/// executed set E (used for tile recall and by tests).
void executedRanges(const Plan& plan, const Problem& problem, Index head, Index row,
                    std::vector<Range>& out);

}  // namespace sparsight::kernels
