#pragma once

#include "kernels/cuda/layer.h"

/// Block, column and diagonal mass on Hopper: key-stationary, 128 keys of a block stay while the
/// queries that see them stream past.
namespace sparsight::kernels::cuda::hopper {

/// Whether captureMass can compute this: blocks of a multiple of 64 tokens.
bool massFits(const MassStatistics& out);

/// 16-bit types, `width` 64, 128 or 256, a positive scale. Every wanted entry is written.
/// @param norm2  [batch][Hq][pitch] base-2 LSE with the sink, +inf for rows without a say (those
///               that see no key and those from Nq on)
/// @param pitch  Nq rounded up to whole tiles
void captureMass(const Layer& layer, DType type, int width, Rows q, Rows k, const float* norm2,
                 Index pitch, const MassStatistics& out, cudaStream_t stream);

}  // namespace sparsight::kernels::cuda::hopper
