#pragma once

#include <span>
#include <vector>

#include "core/capture/layer_capture.h"
#include "kernels/policy.h"

namespace sparsight {

/// What a mask keeps, read off a head's stored statistics in milliseconds: for a slider that moves.
struct MaskEstimate {
    double recall = 0;   ///< mean over the rows that see a key
    double density = 0;  ///< executed tile area / valid tile area, as the planner counts it
    bool exact =
        false;  ///< recall is a sum of stored masses; else blocks were split by area or mass
};

/// Recall from block, column and diagonal masses, density from the planner's tiles.
///
/// Blocks of 64 or 128 are sums of the pyramid: exact. A sink and a window are sums of columns and
/// diagonals, less what both hold. Columns and slashes likewise; of each block they are taken to
/// share what the shares of their own masses say. Any other mask: every block's mass by the share
/// of its pairs that is kept.
///
/// @param problem  of the head alone
/// @param head     query head, its index in `stats`
/// @throws Error(Shape) when the statistics lack a pyramid of 64 or belong to other tokens
MaskEstimate estimateMask(const kernels::Problem& problem, const LayerStats& stats, Index head,
                          const kernels::Policy& policy);

/// Recall against density of the heaviest blocks of every head (oracle-blocks, block 64: the upper
/// bound of all block methods), each head at the same density, the diagonal always kept.
struct BlockCurve {
    std::vector<double> density;            ///< as asked
    std::vector<double> recall;             ///< [density] mean over the heads
    std::vector<std::vector<float>> heads;  ///< [layer and head in order][density] recall
};
/// One layer's share of the model.
struct BlockMasses {
    kernels::Problem problem;  ///< of any head: visibility is all that is read
    const LayerStats* stats = nullptr;
};
/// @param threads  0 = physical cores
BlockCurve blockCurve(std::span<const BlockMasses> layers, std::span<const double> densities,
                      int threads = 0, const Job& job = {});

}  // namespace sparsight
