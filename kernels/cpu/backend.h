#pragma once

#include <memory>

#include "kernels/backend.h"

namespace sparsight::kernels {

namespace cpu {
struct Simd;
}

/// The vectorised float32 backend on the inner parts of one instruction set.
/// @param id       the kernel's row in the registry
/// @param threads  0 = physical cores
std::unique_ptr<Backend> makeCpuSimd(std::string_view id, const cpu::Simd& simd, int threads);

}  // namespace sparsight::kernels
