#pragma once

#include "kernels/cuda/layer.h"

/// Attention on Hopper (compute capability 9.0): wgmma on tiles that the copy engine brings, a
/// producer warp and two consumer warpgroups per block, work taken longest first.
namespace sparsight::kernels::cuda::hopper {

/// Backend::forward; with `o.p` null Backend::lseOnly, and with `rows.beyondLse()` the other row
/// statistics too. 16-bit types, `width` 64, 128 or 256, a positive scale.
/// @param rows  only `lse` is used when `o.p` is given
/// @param odd   set to 1 when the results of some row are not finite, or a row sees no key. NaN in
///              Q, K or V always shows so where it is seen, infinity in Q (without a cap) and V
///              too; of K it can hide behind a weight of 0
void forward(const Layer& layer, DType type, int width, Rows q, Rows k, Rows v,
             const DevicePlan& plan, OutRows o, const RowStatistics& rows, int* odd,
             cudaStream_t stream);

}  // namespace sparsight::kernels::cuda::hopper
