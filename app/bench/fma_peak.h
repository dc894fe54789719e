#pragma once

#include "kernels/cpu/thread_pool.h"

namespace sparsight::bench {

/// Runs independent chains of fused multiply-adds in registers on every thread of the pool, in the
/// widest vectors that the kernels would use here, for about `milliseconds`.
/// @return GFLOP/s of all threads together: the ceiling that no float32 kernel passes
double fmaPeak(kernels::ThreadPool& pool, double milliseconds);

}  // namespace sparsight::bench
