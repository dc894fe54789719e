#pragma once

namespace sparsight::kernels::cuda {

/// 2^x to about 2 ulp; 0 below 2^-126 and for -inf.
__device__ inline float exp2Fast(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;\n" : "=f"(y) : "f"(x));
    return y;
}
/// The larger of the two; NaN if one is.
__device__ inline float maxOrNaN(float a, float b) {
    float y;
    asm("max.NaN.f32 %0, %1, %2;\n" : "=f"(y) : "f"(a), "f"(b));
    return y;
}

}  // namespace sparsight::kernels::cuda
