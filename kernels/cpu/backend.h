#pragma once

#include <memory>

#include "kernels/backend.h"

namespace sparsight::kernels {

/// The vectorised float32 backend, id "cpu-simd". @param threads  0 = physical cores
std::unique_ptr<Backend> makeCpuSimd(int threads);

}  // namespace sparsight::kernels
