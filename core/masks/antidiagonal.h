#pragma once

#include <vector>

#include "core/masks/method.h"

namespace sparsight {

/// Antidiagonal: blocks scored by strided antidiagonal sums (Backend::antidiagonal), then per block
/// row the best ones until `threshold` of the row's estimated mass is covered. The threshold is a
/// share of *estimated* mass, not a recall.
/// Source: XAttention (Xu et al., 2025), code `xattn/src/Xattention.py`, `utils.py` (commit
/// e3798877). Selects per query head; prefill only; causal.
class Antidiagonal final : public MaskPolicy {
public:
    static constexpr Param kParams[] = {
        {"stride", Param::Int, 8, 2, 64, "tokens",
         "Step of the antidiagonal; divides the block. Larger is cheaper and coarser."},
        {"threshold", Param::Real, 0.9, 0, 1, "1",
         "Share of the estimated mass of a block row to cover."},
        {"block", Param::Int, 128, 64, 128, "tokens", "Edge of a block.", 64},
        {"released", Param::Flag, 0, 0, 1, "",
         "Select as the released code does: rows of the first chunk keep one or two blocks more."},
    };
    explicit Antidiagonal(const ParamValues& p);
    /// @param chunk  chunk length of the released rule; 0 = releasedChunk(Nk)
    Antidiagonal(Index stride, double threshold, Index block, bool released, Index chunk);
    /// @throws Error(Unsupported) for attention that is not causal
    kernels::Policy select(const HeadInput& head, const Job& job = {}) const override;

private:
    Index m_stride;
    double m_threshold;
    Index m_block;
    bool m_released;
    Index m_chunk = 0;
};

/// The released code's chunk length for n keys: max(2048, min(max(2048, P), 2^28 / P)) with P the
/// smallest power of two >= n.
Index releasedChunk(Index n);

/// Blocks kept in one block row (sheet, step 6), ascending. Forced: column 0 and the diagonal.
///
/// Clean rule, also the released one in later chunks: by descending score (ties: smaller index) the
/// next block is kept while the mass before it, forced blocks included, is < need = threshold *
/// (sum of the row). Released rule in the first chunk: only the diagonal counts as forced, the
/// best other block is always kept, and the running mass lags one block behind; column 0 joins
/// at the end.
/// @param scores    of the blocks 0 .. diagonalEnd - 1
/// @param diagonal  [diagonal, diagonalEnd) are the blocks on the diagonal (one when aligned)
std::vector<std::int32_t> selectBlocks(std::span<const float> scores, Index diagonal,
                                       double threshold, bool firstChunkRule);

}  // namespace sparsight
