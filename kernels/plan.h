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

/// Flags of KvTile::mask; 0 = every pair of the tile counts.
enum TileMask : std::uint32_t {
    MaskCausal = 1,  ///< test j <= pos(i)
    MaskWindow = 2,  ///< test the lower end of what the row may see or keeps
    MaskTail = 4,    ///< only the first `valid` columns count
    MaskExact = 8    ///< test the nominal set (bits of the tile, see Plan::bits)
};

/// 128 key columns for one q tile (kernels.md 4).
struct KvTile {
    std::int32_t a = 0, b = 0;
    std::uint16_t valid = kTile;  ///< columns in use
    std::uint8_t kind = Run128;
    std::uint8_t own = 0xf;  ///< bits 0-1: which 64-row half uses the first 64 columns; 2-3: the second 64
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
        return validQuarters ? double(executedQuarters[std::size_t(h)]) / double(validQuarters) : 0.0;
    }
};

/// KV tile lists per (head, 128-row q tile). Work is sorted by cost, largest first; the tiles of an
/// item stand in ascending position. Each (row, key) pair is in at most one tile.
struct Plan {
    PlanMode mode = PlanMode::Exact;
    std::vector<KvTile> tiles;
    std::vector<std::int32_t> gather;
    std::vector<WorkItem> work;
    /// For a tile with MaskExact: kTile x kTile bits, row-major, two uint64 a row, starting at
    /// bits[bitsOffset[tile]]; -1 for other tiles. Empty in Tile mode where no tile needs it.
    std::vector<std::int32_t> bitsOffset;
    std::vector<std::uint64_t> bits;
    PlanStats stats;
};

/// Compiles one policy per query head into tile lists.
/// @param perHead  Hq policies (or one, used for all heads)
/// @throws Error(Shape) for a policy that does not fit the problem
Plan buildPlan(const Problem& problem, std::span<const Policy> perHead, PlanMode mode);

/// The pairs that `plan` executes in row `row` of head `head`, as sorted disjoint ranges: the
/// executed set E (used for tile recall and by tests).
void executedRanges(const Plan& plan, const Problem& problem, Index head, Index row,
                    std::vector<Range>& out);

}  // namespace sparsight::kernels
