#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/base/view.h"

namespace sparsight::kernels {

enum class DType : std::uint8_t { F32, F16, BF16 };

inline Index bytesOf(DType t) { return t == DType::F32 ? 4 : 2; }
inline const char* nameOf(DType t) {
    return t == DType::F32 ? "f32" : t == DType::F16 ? "f16" : "bf16";
}

/// A read-only [batch, head, token, d] tensor: strides in elements, last dimension contiguous.
struct TensorView {
    const void* p = nullptr;
    DType t = DType::F32;
    Index sb = 0, sh = 0, sn = 0;

    /// The same tensor seen from head `h` on.
    TensorView head(Index h) const {
        return {static_cast<const char*>(p) + h * sh * bytesOf(t), t, sb, sh, sn};
    }
    /// The same tensor seen from token `n` on.
    TensorView from(Index n) const {
        return {static_cast<const char*>(p) + n * sn * bytesOf(t), t, sb, sh, sn};
    }
};

struct MutTensorView {
    void* p = nullptr;
    DType t = DType::F32;
    Index sb = 0, sh = 0, sn = 0;
};

inline float halfToFloat(std::uint16_t h) {
    const std::uint32_t sign = std::uint32_t(h & 0x8000u) << 16;
    std::uint32_t exponent = (h >> 10) & 0x1fu, mantissa = h & 0x3ffu, bits;
    if (exponent == 0x1f) {
        bits = sign | 0x7f800000u | (mantissa << 13);
    } else if (exponent != 0) {
        bits = sign | ((exponent + 112) << 23) | (mantissa << 13);
    } else if (mantissa == 0) {
        bits = sign;
    } else {  // subnormal: shift up to a leading one
        exponent = 113;
        while (!(mantissa & 0x400u)) {
            mantissa <<= 1;
            --exponent;
        }
        bits = sign | (exponent << 23) | ((mantissa & 0x3ffu) << 13);
    }
    float f;
    std::memcpy(&f, &bits, 4);
    return f;
}

inline float bfloatToFloat(std::uint16_t b) {
    const std::uint32_t bits = std::uint32_t(b) << 16;
    float f;
    std::memcpy(&f, &bits, 4);
    return f;
}

/// Round to nearest even; NaN stays NaN, too large becomes infinity.
inline std::uint16_t floatToHalf(float f) {
    std::uint32_t x;
    std::memcpy(&x, &f, 4);
    const std::uint16_t sign = std::uint16_t((x >> 16) & 0x8000u);
    x &= 0x7fffffffu;
    if (x > 0x7f800000u) return std::uint16_t(sign | 0x7e00u);
    if (x >= 0x47800000u) return std::uint16_t(sign | 0x7c00u);  // 65536 and up; 65520.. rounds below
    if (x < 0x38800000u) {                                      // subnormal half
        if (x < 0x33000000u) return sign;
        const std::uint32_t shift = 126u - (x >> 23);
        const std::uint32_t mantissa = (x & 0x7fffffu) | 0x800000u;
        std::uint32_t half = mantissa >> shift;
        const std::uint32_t rest = mantissa & ((1u << shift) - 1), mid = 1u << (shift - 1);
        if (rest > mid || (rest == mid && (half & 1u))) ++half;
        return std::uint16_t(sign | half);
    }
    std::uint32_t half = (x - 0x38000000u) >> 13;
    const std::uint32_t rest = x & 0x1fffu;
    if (rest > 0x1000u || (rest == 0x1000u && (half & 1u))) ++half;
    return std::uint16_t(sign | half);
}

inline std::uint16_t floatToBfloat(float f) {
    std::uint32_t x;
    std::memcpy(&x, &f, 4);
    if ((x & 0x7fffffffu) > 0x7f800000u) return std::uint16_t((x >> 16) | 0x40u);
    return std::uint16_t((x + 0x7fffu + ((x >> 16) & 1u)) >> 16);
}

/// Element `i` of an array of type `t`, widened.
inline float loadFloat(const void* p, DType t, Index i) {
    if (t == DType::F32) return static_cast<const float*>(p)[i];
    const std::uint16_t bits = static_cast<const std::uint16_t*>(p)[i];
    return t == DType::F16 ? halfToFloat(bits) : bfloatToFloat(bits);
}

inline void storeFloat(void* p, DType t, Index i, float f) {
    if (t == DType::F32) static_cast<float*>(p)[i] = f;
    else static_cast<std::uint16_t*>(p)[i] = t == DType::F16 ? floatToHalf(f) : floatToBfloat(f);
}

}  // namespace sparsight::kernels
