#include "core/torch/ops.h"

#include <ATen/ops/addmm.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/silu.h>

#include <cmath>

#include "kernels/base/error.h"

namespace sparsight {

at::Tensor matrix(const float* p, Index rows, Index cols) {
    return at::from_blob(const_cast<float*>(p), {rows, cols}, at::kFloat);
}

namespace {
at::Tensor vector(const Weight& w) {
    return at::from_blob(const_cast<float*>(w.data), {w.count()}, at::kFloat);
}
}  // namespace

void project(float* out, const float* x, Index rows, const Linear& w) {
    at::Tensor y = matrix(out, rows, w.w.rows);
    const at::Tensor m = matrix(w.w.data, w.w.rows, w.w.cols), in = matrix(x, rows, w.w.cols);
    if (w.b.given())
        at::addmm_out(y, vector(w.b), in, m.t());
    else
        at::mm_out(y, in, m.t());
}

void projectOnto(float* sum, const float* x, Index rows, const Linear& w) {
    at::Tensor y = matrix(sum, rows, w.w.rows);
    y.addmm_(matrix(x, rows, w.w.cols), matrix(w.w.data, w.w.rows, w.w.cols).t());
    if (w.b.given()) y.add_(vector(w.b));
}

void activate(float* values, Index count, const std::string& kind) {
    at::Tensor x = matrix(values, 1, count);
    if (kind == "silu")
        at::silu_(x);
    else if (kind == "gelu")
        at::gelu_(x, "none");
    else if (kind == "gelu_new" || kind == "gelu_pytorch_tanh" || kind == "gelu_fast")
        at::gelu_(x, "tanh");
    else if (kind == "quick_gelu")
        x.mul_(at::sigmoid(x.mul(1.702)));
    else if (kind == "relu")
        at::relu_(x);
    else if (kind == "relu2")
        at::relu_(x).square_();
    else
        throw Error(Errc::Unsupported, "hidden_act \"" + kind + "\" is not supported");
}

namespace {

/// Sum of f(x) in four parts, so that it becomes vector code.
template <class F>
double sumOf(const float* x, Index width, F f) {
    double sum[4] = {};
    Index c = 0;
    for (; c + 4 <= width; c += 4)
        for (Index a = 0; a < 4; ++a) sum[a] += f(double(x[c + a]));
    for (; c < width; ++c) sum[0] += f(double(x[c]));
    return sum[0] + sum[1] + sum[2] + sum[3];
}

}  // namespace

void applyNorm(NormKind kind, const NormWeight& weight, double eps, const float* x, Index rows,
               Index width, float* y) {
    const float *w = weight.w.data, *b = weight.b.data;
    for (Index i = 0; i < rows; ++i, x += width, y += width) {
        const double mean = kind == NormKind::Layer
                                ? sumOf(x, width, [](double v) { return v; }) / double(width)
                                : 0.0;
        const double square =
            sumOf(x, width, [mean](double v) { return (v - mean) * (v - mean); }) / double(width);
        const float inverse = float(1.0 / std::sqrt(square + eps)), m = float(mean);
        switch (kind) {
            case NormKind::Rms:
                for (Index c = 0; c < width; ++c) y[c] = w[c] * (x[c] * inverse);
                break;
            case NormKind::RmsOnePlus:
                for (Index c = 0; c < width; ++c) y[c] = (1.0f + w[c]) * (x[c] * inverse);
                break;
            case NormKind::Layer:
                for (Index c = 0; c < width; ++c) y[c] = (x[c] - m) * inverse * w[c] + b[c];
                break;
        }
    }
}

void rethrowTorch(const c10::Error& e) {
    const std::string what = e.what_without_backtrace();
    const bool memory = what.find("allocate") != std::string::npos ||
                        what.find("out of memory") != std::string::npos ||
                        what.find("ALLOC_FAILED") != std::string::npos;
    throw Error(memory ? Errc::Resources : Errc::Device, "LibTorch: " + what);
}

}  // namespace sparsight
