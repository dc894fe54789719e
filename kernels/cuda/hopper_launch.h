#pragma once

#include <cuda.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "kernels/cuda/layer.h"

/// How the host reaches the instantiations of the Hopper kernels.
namespace sparsight::kernels::cuda::hopper {

/// What a launch of the forward kernel computes.
enum class Want {
    Output,     ///< O and LSE
    Lse,        ///< LSE alone
    Statistics  ///< LSE and the other row statistics
};

struct ForwardArgs {
    Layer layer;
    DevicePlan plan;
    Rows k, v;  ///< for gathered tiles; the copy engine reads through the maps
    OutRows o;
    RowStatistics rows;
    int* next;       ///< index of the next work item, 0 at the start
    int* odd;        ///< set when a row is not finite or sees nothing
    int wideStores;  ///< outputs are aligned for pairs (1), are the map's (2), or neither (0)
    int gathers;     ///< the plan has gathered tiles
    int inTurn;      ///< the warpgroups issue their products in turn; both walk nearly every tile
};
using Launch = void (*)(const ForwardArgs&, const CUtensorMap& q, const CUtensorMap& k,
                        const CUtensorMap& v, const CUtensorMap& o, int blocks, cudaStream_t);

/// The instantiation for one type and width; `plain` as Layer::plain.
template <class T, int Width>
Launch launchOf(Want want, bool plain);

struct MassArgs {
    Layer layer;
    const float* norm2;  ///< [batch][Hq][pitch], +inf where a row has no say
    Index pitch;         ///< Nq rounded up to whole tiles
    MassStatistics out;  ///< blocks are not written; colMass is
    float* blockPart;    ///< sums of 64 queries x 16 keys, [heads of the slab][query halves][key
                         ///< sixteenths], or null
    float* blockPartMax;
    float* diagPart;       ///< [heads of the slab][key halves][offsets], or null
    int firstHead, heads;  ///< of batch * Hq, this slab
    int* next;             ///< index of the next work item, 0 at the start
};
using MassLaunch = void (*)(const MassArgs&, const CUtensorMap& q, const CUtensorMap& k, int blocks,
                            cudaStream_t);
template <class T, int Width>
MassLaunch massLaunchOf(bool plain, bool diagonals);

}  // namespace sparsight::kernels::cuda::hopper
