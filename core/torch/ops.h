#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

#include <string>

#include "core/model/weights.h"

namespace sparsight {

/// A row-major float32 matrix as LibTorch sees it; it does not own the numbers.
at::Tensor matrix(const float* p, Index rows, Index cols);

/// out = x w^T (+ b); x [rows, in], out [rows, out].
void project(float* out, const float* x, Index rows, const Linear& w);
/// sum += x w^T (+ b).
void projectOnto(float* sum, const float* x, Index rows, const Linear& w);

/// x = kind(x), element by element; the kinds of checkedActivation(). @throws Error(Unsupported)
void activate(float* x, Index count, const std::string& kind);

/// y = norm(x) for `rows` rows of `width` numbers; x may be y.
void applyNorm(NormKind kind, const NormWeight& w, double eps, const float* x, Index rows,
               Index width, float* y);

/// c10::Error as Error: Resources when memory ran out, Device otherwise.
[[noreturn]] void rethrowTorch(const c10::Error& e);

}  // namespace sparsight
