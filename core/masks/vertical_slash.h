#pragma once

#include <vector>

#include "core/masks/method.h"

namespace sparsight {

/// Vertical-slash: key columns V and diagonals S that the last `last_q` queries look at most.
///
///     vert[c]  = sum over the probe rows r of P[r, c]          first keep_sink columns: +inf
///     slash[s] = sum over the probe rows r of P[r, pos(r) - s]  distances < keep_local: +inf
///     V = the max(vertical, keep_sink) best columns, S = the max(slash, min(50, keep_local)) best
///         distances; forced ones count. Ties: the smaller index.
///
/// Row i keeps j when j is in V or pos(i) - j is in S. Selects per query head. Prefill only.
/// Source: MInference 1.0 (Jiang et al., 2024), code `minference_forward.py` (commit fb56c917).
/// With slash < keep_local torch's top-k on CUDA keeps whichever of the tied forced distances it
/// meets first (50..99 for 50 of 100); we keep the smallest, so the diagonal is always there.
class VerticalSlashMask final : public MaskPolicy {
public:
    static constexpr Param kParams[] = {
        {"vertical", Param::Int, 1000, 0, 1048576, "columns",
         "Key columns kept for all rows, the forced ones included."},
        {"slash", Param::Int, 6096, 0, 1048576, "diagonals",
         "Distances kept for all rows, the forced ones included."},
        {"last_q", Param::Int, 64, 1, 4096, "tokens",
         "Last queries whose attention picks columns and distances."},
        {"keep_sink", Param::Int, 30, 0, 4096, "columns", "First key columns, always kept."},
        {"keep_local", Param::Int, 100, 1, 4096, "diagonals", "Smallest distances, always kept."},
        {"block", Param::Int, 64, 64, 128, "tokens",
         "Tile edge of the set that the released kernel runs (MInference asserts 64).", 64},
    };
    explicit VerticalSlashMask(const ParamValues& p);
    /// @throws Error(Unsupported) for attention that is not causal
    kernels::Policy select(const HeadInput& head, const Job& job = {}) const override;
    /// What MInference's kernels visit (a prefill with Nq = Nk; none otherwise): see releasedTiles.
    std::optional<kernels::Policy> released(const HeadInput& head,
                                            const Job& job = {}) const override;

private:
    Index m_vertical, m_slash, m_lastQ, m_keepSink, m_keepLocal, m_block;
};

/// The index tables of one query tile as MInference builds them (sheet, step 5).
struct SlashTiles {
    std::vector<std::int32_t> tiles;    ///< first key of each tile, ascending; any alignment
    std::vector<std::int32_t> columns;  ///< single columns outside the tiles, ascending
};
/// Per query tile of `tile` rows: distances become tiles of `tile` keys that are merged greedily
/// from the left, columns that no tile covers stay single. Tiles may reach past n (clip them).
/// @param nominal  columns and distances, ascending
/// @return         ceil(n / tile) entries
std::vector<SlashTiles> releasedTiles(const kernels::VerticalSlash& nominal, Index n, Index tile);
/// The same as a policy: the pairs that the released kernel multiplies, before the causal test.
kernels::RowRanges releasedRanges(const kernels::VerticalSlash& nominal, Index n, Index tile);

/// The `count` indices with the largest scores, ascending; the first `forced` ones rank before all
/// others. Ties: the smaller index. `count` is cut to the number of scores.
std::vector<std::int32_t> largest(std::span<const float> scores, Index count, Index forced);

}  // namespace sparsight
