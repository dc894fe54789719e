// Targets between the baseline and AVX2, and vectors of unknown length, are not worth their compile
// time.
#define HWY_DISABLED_TARGETS \
    (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3_DL | HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128 | HWY_RVV)

#include "kernels/cpu/simd.h"

#include <algorithm>
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

HWY_EXPORT(table);

float Head::sink() const {
    return problem->sinks ? problem->sinks[head] : -std::numeric_limits<float>::infinity();
}

const Simd& simd() {
    static const Simd best = HWY_DYNAMIC_DISPATCH(table)();
    return best;
}

}  // namespace sparsight::kernels::cpu
#endif
