#pragma once

#include <cstdint>
#include <variant>
#include <vector>

#include "kernels/problem.h"

namespace sparsight::kernels {

/// Everything that the model's own attention shows.
struct Dense {};

/// The first `sink` keys and the last `window` keys (the query's own included).
struct Streaming {
    Index sink = 0, window = 1;
};

/// CSR over query blocks: q block I keeps the key blocks col[rowPtr[I] .. rowPtr[I+1]), sorted,
/// unique; clipped token by token to what a row may see. `block` is the edge of q and key blocks.
struct BlockList {
    Index block = 64;
    std::vector<std::int32_t> rowPtr, col;
};

/// Key columns and diagonals: row i keeps key j when j is in `cols` or pos(i) - j is in `diags`.
/// Both sorted ascending, unique.
struct VerticalSlash {
    std::vector<std::int32_t> cols, diags;
};

/// Half-open range of keys.
struct Range {
    std::int32_t begin = 0, end = 0;
    bool operator==(const Range&) const = default;
};

/// Groups of consecutive rows that share a list of key ranges: group g holds the rows
/// [g ? rowEnd[g-1] : 0, rowEnd[g]) and keeps ranges[rangePtr[g] .. rangePtr[g+1]) (sorted,
/// disjoint), each clipped to what the row may see. The general form: any mask can be written so.
struct RowRanges {
    std::vector<std::int32_t> rowEnd, rangePtr;
    std::vector<Range> ranges;
};

/// The nominal, token-exact set that a mask method returns for one head (kernels.md 2: M).
using Policy = std::variant<Dense, Streaming, BlockList, VerticalSlash, RowRanges>;

/// The keys that row `row` keeps: sorted, disjoint, not touching, already clipped to what the
/// problem lets the row see. The single definition of the nominal set; planner, metrics and
/// overlays all call it.
/// @param out  replaced; empty when the row keeps nothing
void keptRanges(const Policy& policy, const Problem& problem, Index row, std::vector<Range>& out);

/// |M|, the number of kept (query, key) pairs.
Index keptPairs(const Policy& policy, const Problem& problem);

/// Throws Error(Shape) with a sentence when lists are unsorted, repeat an entry, or point past the
/// problem. Call it where a policy comes from outside.
void validate(const Policy& policy, const Problem& problem);

}  // namespace sparsight::kernels
