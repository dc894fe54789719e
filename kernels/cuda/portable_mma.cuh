#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <limits>

#include "kernels/cuda/layer.h"
#include "kernels/cuda/math.cuh"

/// The instructions that the portable kernels are made of: asynchronous copies into shared memory,
/// matrix fragments, products, and the few functions that they need.
namespace sparsight::kernels::cuda::portable {

constexpr int kThreads = 128;  ///< of every block: four warps
constexpr int kWarps = 4;
constexpr int kStep = 64;  ///< streamed rows (columns of a score tile) at a time
constexpr unsigned kAllLanes = 0xffffffffu;
constexpr float kInfinity = std::numeric_limits<float>::infinity();

__device__ inline std::uint32_t sharedAddress(const void* p) {
    return static_cast<std::uint32_t>(__cvta_generic_to_shared(p));
}

/// 16 bytes into shared memory; zeros where there is nothing to copy.
__device__ inline void copyAsync16(std::uint32_t to, const void* from, bool there) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(to), "l"(from),
                 "r"(there ? 16 : 0)
                 : "memory");
}
__device__ inline void commitCopies() {
    asm volatile("cp.async.commit_group;\n" ::: "memory");
}
/// All but the latest `kPending` groups have arrived.
template <int kPending>
__device__ void waitCopies() {
    asm volatile("cp.async.wait_group %0;\n" ::"n"(kPending) : "memory");
}

__device__ inline void loadMatrices(std::uint32_t (&r)[4], std::uint32_t address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];\n"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
}
__device__ inline void loadMatricesTransposed(std::uint32_t (&r)[4], std::uint32_t address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];\n"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
}
__device__ inline float loadShared(std::uint32_t address) {
    float x;
    asm volatile("ld.shared.f32 %0, [%1];\n" : "=f"(x) : "r"(address) : "memory");
    return x;
}

/// tanh without a branch. Absolute error below 2e-7.
__device__ inline float tanhFast(float x) {
    const float a = fabsf(x), y = x * x;
    float inverse;
    asm("rcp.approx.ftz.f32 %0, %1;\n" : "=f"(inverse) : "f"(exp2Fast(2 * kLog2e * a) + 1));
    float r = fmaf(1.57394409e-2f, y, -5.23025580e-2f);
    r = fmaf(r, y, 1.33152470e-1f);
    r = fmaf(r, y, -3.33327681e-1f);
    r = fmaf(r * y, x, x);
    return a < 0.55f ? r : copysignf(fmaf(-2.0f, inverse, 1.0f), x);
}

// ---- Operands of the products. In the fragments of mma.sync lane l = 4 g + t holds rows g and
// g + 8 of the left operand and of the result, and column g of the right one. A k step is 32 bytes
// of a row: 16 elements of a 16-bit type, 8 of float32.

template <class T>
struct Left {
    std::uint32_t r[4];
};
template <class T>
struct Right {
    std::uint32_t r[2];
};
/// float32 as the sum of two TF32 numbers: x = high + low within 2^-23 of x.
template <>
struct Left<float> {
    std::uint32_t high[4], low[4];
};
template <>
struct Right<float> {
    std::uint32_t high[2], low[2];
};

__device__ inline void split(std::uint32_t x, std::uint32_t& high, std::uint32_t& low) {
    high = (x + 0x1000u) & 0xffffe000u;  // to nearest
    low = __float_as_uint(__uint_as_float(x) - __uint_as_float(high));
}

template <class T>
__device__ void setLeft(Left<T>& to, std::uint32_t a, std::uint32_t b, std::uint32_t c,
                        std::uint32_t d) {
    if constexpr (sizeof(T) == 4) {
        split(a, to.high[0], to.low[0]);
        split(b, to.high[1], to.low[1]);
        split(c, to.high[2], to.low[2]);
        split(d, to.high[3], to.low[3]);
    } else {
        to.r[0] = a;
        to.r[1] = b;
        to.r[2] = c;
        to.r[3] = d;
    }
}
template <class T>
__device__ void setRight(Right<T>& to, std::uint32_t a, std::uint32_t b) {
    if constexpr (sizeof(T) == 4) {
        split(a, to.high[0], to.low[0]);
        split(b, to.high[1], to.low[1]);
    } else {
        to.r[0] = a;
        to.r[1] = b;
    }
}

__device__ inline void multiplyTf32(float (&d)[4], const std::uint32_t (&a)[4],
                                    const std::uint32_t (&b)[2]) {
    asm volatile(
        "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
        "{%8,%9}, {%0,%1,%2,%3};\n"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/// d += a b, a 16 x 8 tile.
template <class T>
__device__ void multiply(float (&d)[4], const Left<T>& a, const Right<T>& b) {
    if constexpr (sizeof(T) == 4) {
        multiplyTf32(d, a.low, b.high);
        multiplyTf32(d, a.high, b.low);
        multiplyTf32(d, a.high, b.high);
    } else if constexpr (std::is_same_v<T, __half>) {
        asm volatile(
            "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
            "{%8,%9}, {%0,%1,%2,%3};\n"
            : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
            : "r"(a.r[0]), "r"(a.r[1]), "r"(a.r[2]), "r"(a.r[3]), "r"(b.r[0]), "r"(b.r[1]));
    } else {
        asm volatile(
            "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
            "{%8,%9}, {%0,%1,%2,%3};\n"
            : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
            : "r"(a.r[0]), "r"(a.r[1]), "r"(a.r[2]), "r"(a.r[3]), "r"(b.r[0]), "r"(b.r[1]));
    }
}

/// Two numbers rounded to T, the first in the lower half.
template <class T>
__device__ std::uint32_t pack(float x, float y) {
    std::uint32_t bits;
    if constexpr (std::is_same_v<T, __half>)
        asm("cvt.rn.f16x2.f32 %0, %1, %2;\n" : "=r"(bits) : "f"(y), "f"(x));
    else
        asm("cvt.rn.bf16x2.f32 %0, %1, %2;\n" : "=r"(bits) : "f"(y), "f"(x));
    return bits;
}

}  // namespace sparsight::kernels::cuda::portable
