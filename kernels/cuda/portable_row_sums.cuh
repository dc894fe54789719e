#pragma once

#include "kernels/cuda/portable_tile.cuh"

namespace sparsight::kernels::cuda::portable {

/// What one lane knows of one row, over its own columns: a running maximum, and sums of
/// w = 2^(x - top) and of products with it (kernels.md 7.6).
struct RowSums {
    float top = -kInfinity;  ///< in units of the score tile
    float sum = 0;           ///< w
    float spread = 0;        ///< w (x - top), base 2
    float distance = 0;      ///< w (pos - key)
    float sink = 0, local = 0;

    __device__ void scaleBy(float f) {
        sum *= f;
        distance *= f;
        sink *= f;
        local *= f;
    }
    /// Takes in the sums of other columns of the row.
    __device__ void merge(const RowSums& o, float factor) {
        const float most = fmaxf(top, o.top);
        if (most == -kInfinity) return;
        const float mine = top == -kInfinity ? 0 : (top - most) * factor,
                    other = o.top == -kInfinity ? 0 : (o.top - most) * factor;
        const float a = top == -kInfinity ? 0 : exp2Fast(mine),
                    b = o.top == -kInfinity ? 0 : exp2Fast(other);
        spread = a * fmaf(mine, sum, spread) + b * fmaf(other, o.sum, o.spread);
        sum = a * sum + b * o.sum;
        distance = a * distance + b * o.distance;
        sink = a * sink + b * o.sink;
        local = a * local + b * o.local;
        top = most;
    }
    __device__ RowSums fromLane(int mask) const {
        RowSums o;
        o.top = __shfl_xor_sync(kAllLanes, top, mask);
        o.sum = __shfl_xor_sync(kAllLanes, sum, mask);
        o.spread = __shfl_xor_sync(kAllLanes, spread, mask);
        o.distance = __shfl_xor_sync(kAllLanes, distance, mask);
        o.sink = __shfl_xor_sync(kAllLanes, sink, mask);
        o.local = __shfl_xor_sync(kAllLanes, local, mask);
        return o;
    }
};

/// The rows of a lane before their first step. One by one: nvcc 13.0 gives the members of such an
/// array their default values in its first row only, zero in the others.
template <int kM>
__device__ void clear(RowSums (&rows)[kM][2]) {
#pragma unroll
    for (int m = 0; m < kM; ++m)
#pragma unroll
        for (int h = 0; h < 2; ++h) rows[m][h] = RowSums{};
}

/// Adds one step to a row's sums. The tile holds w afterwards.
template <bool kAll, int kM>
__device__ void addStep(RowSums& row, Tile<kM>& s, int m, int h, float factor, int ahead) {
    float most = row.top;
#pragma unroll
    for (int j = 0; j < 8; ++j) most = fmaxf(most, fmaxf(s[m][j][2 * h], s[m][j][2 * h + 1]));
    const float base = most == -kInfinity ? 0 : most * factor;
    const float back = row.top == -kInfinity ? 0 : fmaf(row.top, factor, -base);
    const float shrink = row.top == -kInfinity ? 0 : exp2Fast(back);
    if (kAll) row.spread = shrink * fmaf(back, row.sum, row.spread);
    row.scaleBy(shrink);
    row.top = most;
    float sum = 0, spread = 0, columns = 0;
#pragma unroll
    for (int j = 0; j < 8; ++j)
#pragma unroll
        for (int b = 0; b < 2; ++b) {
            float& x = s[m][j][2 * h + b];
            const float exponent = fmaf(x, factor, -base);
            x = exp2Fast(exponent);
            sum += x;
            if (kAll) {
                spread = fmaf(x, fmaxf(exponent, -1000.0f), spread);  // 0 where x is hidden
                columns = fmaf(x, float(8 * j + b), columns);
            }
        }
    row.sum += sum;
    if (kAll) {
        row.spread += spread;
        row.distance += fmaf(float(ahead), sum, -columns);
    }
}

}  // namespace sparsight::kernels::cuda::portable
