// Targets between the baseline and AVX2, and vectors of unknown length, are not worth their compile
// time.
#define HWY_DISABLED_TARGETS \
    (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3_DL | HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128 | HWY_RVV)

#include "kernels/cpu/simd.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/simd.cpp"
#include <hwy/foreach_target.h>

#include <hwy/contrib/math/math-inl.h>
#include <hwy/highway.h>

// Order matters: the building blocks first.
#include "kernels/cpu/strip-inl.h"

#include "kernels/cpu/capture-inl.h"
#include "kernels/cpu/forward-inl.h"

HWY_BEFORE_NAMESPACE();
namespace sparsight::kernels::cpu {
namespace HWY_NAMESPACE {

const char* targetTitle() {
#if HWY_TARGET == HWY_AVX3
    return "AVX-512";
#elif HWY_TARGET == HWY_AVX2
    return "AVX2";
#elif HWY_TARGET == HWY_SSE2
    return "SSE2";
#elif HWY_TARGET == HWY_NEON
    return "NEON";
#else
    return "baseline";
#endif
}

Simd table() {
    Simd t;
    t.name = targetTitle();
    t.width = kWidth;
    t.packStrip = &packStrip;
    t.forwardTile = &forwardTile;
    t.forwardRows = &forwardRows;
    t.captureRows = &captureRows;
    t.captureKeys = &captureKeys;
    t.render = &render;
    t.antidiagonal = &antidiagonal;
    t.widen = &widen;
    t.finite = &finite;
    return t;
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace sparsight::kernels::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sparsight::kernels::cpu {

float Head::sink() const {
    return problem->sinks ? problem->sinks[head] : -std::numeric_limits<float>::infinity();
}

const Simd* simd([[maybe_unused]] Isa isa) {
    [[maybe_unused]] static const auto supported = hwy::SupportedTargets();
    switch (isa) {
        case Isa::Avx512:
#if HWY_TARGETS & HWY_AVX3
            if (supported & HWY_AVX3) {
                static const Simd set = N_AVX3::table();
                return &set;
            }
#endif
            return nullptr;
        case Isa::Avx2:
#if HWY_TARGETS & HWY_AVX2
            if (supported & HWY_AVX2) {
                static const Simd set = N_AVX2::table();
                return &set;
            }
#endif
            return nullptr;
        case Isa::Baseline:
            break;
    }
    static const Simd set = HWY_STATIC_DISPATCH(table)();
    return &set;
}

}  // namespace sparsight::kernels::cpu
#endif
