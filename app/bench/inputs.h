#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <vector>

#include "app/bench/bench.h"

/// What the operations of the benchmark are run on and how their results are checked.
namespace sparsight::bench {

/// Normal random numbers in any type.
std::vector<unsigned char> randomTensor(Index count, kernels::DType type, unsigned seed);

/// Tokens of the layers on which results are compared with float64: ragged on purpose.
constexpr Index kCheckedTokens = 1501;

kernels::Problem problemOf(const Shape& shape);

/// Inputs and outputs of one layer in host memory.
struct Layer {
    kernels::Problem problem;
    std::vector<unsigned char> qData, kData, vData, oData;
    std::vector<float> lse;
    kernels::TensorView q, k, v;
    kernels::MutTensorView o;

    explicit Layer(const Shape& s, unsigned seed = 1);
    Layer(const Layer&) = delete;
    Layer& operator=(const Layer&) = delete;
};

/// Made when first asked for: a table of operations costs nothing until one runs.
template <class T, class Make>
auto lazy(Make make) {
    return [make, made = std::shared_ptr<T>()]() mutable -> T& {
        if (!made) made = make();
        return *made;
    };
}

/// ||a - b|| / ||b||
double distance(const float* a, const float* b, Index count);

/// Wall clock, milliseconds.
double timed(const std::function<void()>& run);

/// Masks for a problem: one, or one per head.
using Policies = std::function<std::vector<kernels::Policy>(const kernels::Problem&)>;

Policies everyHead(kernels::Policy policy);
/// Blocks at random, the diagonal one always, so many that the density is `density`.
/// @param perHead  other blocks for every head
Policies randomBlocks(Index block, double density, bool perHead = false);
/// `columns` random columns and `slashes` random diagonals, half of the latter the nearest ones.
Policies randomVerticalSlash(Index columns, Index slashes, bool perHead = false);

/// A layer with the plan of one mask.
struct Planned {
    Layer layer;
    kernels::Plan plan;
    Planned(const Shape& s, const Policies& policies, kernels::PlanMode mode)
        : layer(s), plan(kernels::buildPlan(layer.problem, policies(layer.problem), mode)) {}
};
/// Mean over the heads.
double densityOf(const kernels::Plan& plan);

void forward(kernels::Backend& backend, Planned& x);

/// Largest relative distance per head between our output and the reference's on a small layer of
/// the same widths, with ragged lengths.
double forwardError(kernels::Backend& backend, Shape s, const Policies& policies,
                    kernels::PlanMode mode);
/// Limit of that on this device ("cpu" or "cuda").
double errorLimitOf(kernels::DType type, bool gpu = false);

/// Largest relative distance of any statistic of capture on a small layer.
double captureError(kernels::Backend& backend, Shape s, bool keyPass, bool topK);

/// Results of capture in host memory.
struct Captured {
    kernels::CaptureSpec spec;
    std::vector<float> lse, rowMax, entropy, distance, sink, local, sum, max, columns, diagonals;
    std::vector<std::int32_t> topKeys;
    std::vector<float> top;
    kernels::CaptureOut out;

    Captured(const kernels::Problem& p, bool keyPass, bool topK);
};

/// Both products of a forward pass over `pairs` pairs of each head.
double productFlops(const Shape& s, double pairs);
/// Visible pairs of one head.
double pairsOf(const Shape& s);

}  // namespace sparsight::bench
