#pragma once

#include <vector>

#include "core/masks/method.h"

namespace sparsight {

/// Oracle blocks: the heaviest blocks of the head's own attention until the wanted density is
/// reached; the diagonal is always kept. The upper bound of every block method at this density: it
/// needs the attention that it is meant to save, so nothing can ship it.
class OracleBlocks final : public MaskPolicy {
public:
    static constexpr Param kParams[] = {
        {"density", Param::Real, 0.1, 0, 1, "1",
         "Executed tile area / valid tile area to reach; the diagonal is kept even above it."},
        {"block", Param::Int, 64, 64, 128, "tokens", "Edge of a block.", 64},
    };
    explicit OracleBlocks(const ParamValues& p);
    /// Reads head.blockMass, or captures it when null.
    kernels::Policy select(const HeadInput& head, const Job& job = {}) const override;

private:
    double m_density;
    Index m_block;
};

/// A head's blocks in the order in which the oracle takes them: the diagonal first (by row), then
/// by descending mass (ties: smaller row, then smaller column). Blocks without a valid pair are
/// left out.
struct OracleOrder {
    struct Block {
        std::int32_t row, col;
        double mass;     ///< sum of P in the block
        Index quarters;  ///< valid 64 x 64 quarters: what the block costs
        Index pairs;     ///< valid pairs
    };
    Index block = 64;
    Index rows = 0;
    Index forced = 0;    ///< the first `forced` blocks are the diagonal
    Index quarters = 0;  ///< of all blocks: density 1
    Index pairs = 0;
    std::vector<Block> blocks;
};
OracleOrder oracleOrder(const HeadInput& head, Index block, const Job& job = {});
/// How many blocks of the order reach the density: at least the diagonal.
Index oracleCount(const OracleOrder& order, double density);
/// The first `count` blocks as a policy.
kernels::BlockList oracleList(const OracleOrder& order, Index count);

}  // namespace sparsight
