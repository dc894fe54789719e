#pragma once

#include "kernels/cuda/layer.h"

/// Small kernels around the attention kernels: inputs into their stored form, NaN and infinity out
/// of the inputs and into the results that they belong to.
namespace sparsight::kernels::cuda {

/// Copies [batch][heads][tokens] rows of `width` elements of type `from` at any strides (device
/// pointers) into dense rows of `padded` elements of type `to`, zeros behind the width. Rows whose
/// entry of `bad` (dense [batch][heads][tokens], or null) is set become zero.
void packRows(const void* p, DType from, Index sb, Index sh, Index sn, int width, void* out,
              DType to, int padded, int batch, int heads, int tokens, const std::uint8_t* bad,
              cudaStream_t stream);

/// Marks the rows that hold NaN or infinity. @param bad [batch][heads][tokens], every entry is
/// written @param any set to 1 when one is; not cleared
void findBadRows(const Rows& rows, DType type, int width, int batch, int heads, int tokens,
                 std::uint8_t* bad, int* any, cudaStream_t stream);

/// Which input rows hold NaN or infinity, as findBadRows marks them; null = none.
struct BadRows {
    const std::uint8_t *q = nullptr, *k = nullptr, *v = nullptr;
};

/// Puts NaN into O and LSE of the rows that a bad row of Q, K or V (O only) reaches under the plan.
/// @param o  dense or strided as forward wrote it, `o.p` null = LSE only
void poisonForward(const Layer& layer, const DevicePlan& plan, const BadRows& bad, OutRows o,
                   float* lse, cudaStream_t stream);

/// The same for the row statistics of the dense attention.
void poisonRows(const Layer& layer, const BadRows& bad, const RowStatistics& rows,
                cudaStream_t stream);

/// Counts the rows whose LSE is NaN or whose O holds NaN or infinity into `count` (added to).
/// @param lse [batch][Hq][Nq], or null
void countNonFinite(const Layer& layer, const float* lse, OutRows o, int* count,
                    cudaStream_t stream);

/// Base-2 LSE with the sink: norm2[head][pitch], head < batch * Hq.
/// @param hidden  written for rows that see no key and for rows Nq .. pitch-1
void makeNorms(const Layer& layer, const float* lse, Index pitch, float hidden, float* norm2,
               cudaStream_t stream);

}  // namespace sparsight::kernels::cuda
