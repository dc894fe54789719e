#pragma once

#include <cuda.h>

#include "kernels/cuda/layer.h"

namespace sparsight::kernels::cuda::hopper {

/// A tensor map over (element, token, head, batch) of 16-bit rows, moved in boxes of 64 elements by
/// `boxTokens` tokens in 128-byte swizzle.
/// @throws Error(Device) when the driver refuses it
CUtensorMap makeMap(const Rows& rows, DType type, int width, int tokens, int heads, int batch,
                    int boxTokens = 64);

}  // namespace sparsight::kernels::cuda::hopper
