#pragma once

#include <cuda.h>

#include "kernels/cuda/layer.h"

namespace sparsight::kernels::cuda::hopper {

/// A tensor map over (element, token, head, batch) of 16-bit rows, read in boxes of 64 elements by
/// 64 tokens in 128-byte swizzle.
/// @throws Error(Device) when the driver refuses it
CUtensorMap makeMap(const Rows& rows, DType type, int width, int tokens, int heads, int batch);

}  // namespace sparsight::kernels::cuda::hopper
