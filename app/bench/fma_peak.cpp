#define HWY_DISABLED_TARGETS \
    (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3_DL | HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128 | HWY_RVV)

#include "app/bench/fma_peak.h"

#include <chrono>
#include <vector>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "app/bench/fma_peak.cpp"
#include <hwy/foreach_target.h>

#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace sparsight::bench {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

/// Twelve chains hide the latency of two FMA units and fit sixteen registers.
/// @return flops done; `sink` keeps the compiler from dropping them
double chains(long rounds, float* sink) {
    using D = hn::CappedTag<float, 16>;
    const D d;
    using V = hn::Vec<D>;
    const V a = hn::Set(d, 0.999999f), b = hn::Set(d, 1e-6f);
    V c0 = hn::Set(d, sink[0]), c1 = hn::Add(c0, b), c2 = hn::Add(c1, b), c3 = hn::Add(c2, b),
      c4 = hn::Add(c3, b), c5 = hn::Add(c4, b), c6 = hn::Add(c5, b), c7 = hn::Add(c6, b),
      c8 = hn::Add(c7, b), c9 = hn::Add(c8, b), c10 = hn::Add(c9, b), c11 = hn::Add(c10, b);
    for (long i = 0; i < rounds; ++i) {
        c0 = hn::MulAdd(c0, a, b), c1 = hn::MulAdd(c1, a, b), c2 = hn::MulAdd(c2, a, b);
        c3 = hn::MulAdd(c3, a, b), c4 = hn::MulAdd(c4, a, b), c5 = hn::MulAdd(c5, a, b);
        c6 = hn::MulAdd(c6, a, b), c7 = hn::MulAdd(c7, a, b), c8 = hn::MulAdd(c8, a, b);
        c9 = hn::MulAdd(c9, a, b), c10 = hn::MulAdd(c10, a, b), c11 = hn::MulAdd(c11, a, b);
    }
    c0 = hn::Add(hn::Add(hn::Add(c0, c1), hn::Add(c2, c3)),
                 hn::Add(hn::Add(c4, c5), hn::Add(c6, c7)));
    c0 = hn::Add(c0, hn::Add(hn::Add(c8, c9), hn::Add(c10, c11)));
    sink[0] = hn::GetLane(hn::SumOfLanes(d, c0));
    return double(rounds) * 12 * 2 * double(hn::Lanes(d));
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace sparsight::bench
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sparsight::bench {

HWY_EXPORT(chains);

double fmaPeak(kernels::ThreadPool& pool, double milliseconds) {
    using Clock = std::chrono::steady_clock;
    const int threads = pool.threads();
    std::vector<double> rate(std::size_t(threads) * 8, 0.0);
    // One task a thread; each stops by its own clock, so that no waiting is counted.
    pool.run(threads, [&](Index task, kernels::TaskContext&) {
        float sink = 1;
        double flops = 0, seconds = 0;
        const auto start = Clock::now();
        do {
            flops += HWY_DYNAMIC_DISPATCH(chains)(20000, &sink);
            seconds = std::chrono::duration<double>(Clock::now() - start).count();
        } while (seconds * 1e3 < milliseconds);
        rate[std::size_t(task) * 8] = flops / seconds + (sink == 0.123f ? 1.0 : 0.0);
    });
    double sum = 0;
    for (const double r : rate) sum += r;
    return sum / 1e9;
}

}  // namespace sparsight::bench
#endif
