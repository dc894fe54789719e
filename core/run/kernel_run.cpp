#include "core/run/kernel_run.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <numeric>

#include "core/metrics/mask_metrics.h"

namespace sparsight {
namespace {

using Clock = std::chrono::steady_clock;

double msSince(Clock::time_point start) {
    return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

double median(std::vector<double> values) {
    std::sort(values.begin(), values.end());
    const std::size_t mid = values.size() / 2;
    return values.size() % 2 ? values[mid] : 0.5 * (values[mid - 1] + values[mid]);
}

double spread(const std::vector<double>& values) {
    const auto [least, most] = std::minmax_element(values.begin(), values.end());
    return (*most - *least) / median(values);
}

/// The chosen heads of one layer gathered into a problem of their own: K and V are viewed per head,
/// so a choice of heads runs as that many one-head calls only when it is not the whole layer.
struct Work {
    const RunLayer* run;
    std::vector<Index> heads;
    bool whole;
    std::vector<kernels::Policy> policies;  ///< of the chosen heads
};

struct Buffers {
    std::vector<float> out;
    kernels::MutTensorView view(const kernels::Problem& p) {
        out.resize(std::size_t(p.Hq * p.Nq * p.dv));
        return {out.data(), kernels::DType::F32, p.Hq * p.Nq * p.dv, p.Nq * p.dv, p.dv};
    }
};

struct Spent {
    double forwardMs = 0;  ///< of the kernels where the backend measures them, copies apart
    double planMs = 0;
};

/// One pass over the chosen heads, dense or under their masks.
Spent forwardAll(kernels::Backend& backend, const Work& work, bool sparse, kernels::PlanMode mode,
                 Buffers& buffers, const Job& job, std::string* kernel = nullptr) {
    const LayerCapture& layer = *work.run->layer;
    const kernels::Policy dense[] = {kernels::Dense{}};
    Spent spent;
    const auto forward = [&](const kernels::Problem& p, kernels::TensorView q,
                             kernels::TensorView k, kernels::TensorView v,
                             std::span<const kernels::Policy> masks) {
        const auto start = Clock::now();
        const kernels::Report report = backend.forwardMasks(p, q, k, v, sparse ? masks : dense,
                                                            mode, buffers.view(p), nullptr, job);
        spent.planMs += report.planMs;
        spent.forwardMs += report.kernelMs > 0 ? report.kernelMs : msSince(start) - report.planMs;
        if (kernel) *kernel = report.kernel;
    };
    if (work.whole) {
        forward(layer.problem, layer.q, layer.k, layer.v, work.policies);
        return spent;
    }
    for (std::size_t i = 0; i < work.heads.size(); ++i) {
        const Index h = work.heads[i];
        forward(headProblem(layer, h), headQ(layer, h), headK(layer, h), headV(layer, h),
                std::span(&work.policies[i], 1));
    }
    return spent;
}

}  // namespace

KernelRun runKernels(kernels::Backend& backend, const std::vector<RunLayer>& layers,
                     const MethodSpec& method, int repeats, bool exact, const Job& job) {
    if (repeats < 5) throw Error(Errc::Usage, "run: at least 5 repeats are needed for a median");
    for (const RunLayer& run : layers)
        if (run.layer->problem.dv == 0)
            throw Error(Errc::Unsupported,
                        "layer " + std::to_string(run.layer->layer) +
                            " was imported without values (V): a kernel that multiplies by V "
                            "cannot be run on it; import the file again with its v");
    const auto policy = makePolicy(method);
    const auto mode = exact ? kernels::PlanMode::Exact : kernels::PlanMode::Tile;
    KernelRun result;
    result.repeats = repeats;
    result.threads = backend.threads();
    result.device = backend.device();

    // Selection is timed apart, over all heads; it is repeated as often as the kernels below.
    std::vector<Work> works(layers.size());
    std::vector<double> selectMs(std::size_t(repeats), 0.0);
    double executed = 0, valid = 0, errorSquares = 0, squares = 0;
    for (std::size_t l = 0; l < layers.size(); ++l) {
        Work& work = works[l];
        work.run = &layers[l];
        const LayerCapture& layer = *layers[l].layer;
        const Index headCount = layer.problem.Hq;
        work.heads = layers[l].heads;
        if (work.heads.empty()) {
            work.heads.resize(std::size_t(headCount));
            std::iota(work.heads.begin(), work.heads.end(), Index(0));
        }
        work.whole = Index(work.heads.size()) == headCount;
        std::vector<kernels::Policy>& policies = work.policies;
        policies.resize(work.heads.size());
        for (int r = 0; r < repeats; ++r) {
            job.step(0.3 * (double(l) * repeats + r) / double(layers.size() * std::size_t(repeats)),
                     "selecting");
            const auto start = Clock::now();
            for (std::size_t i = 0; i < work.heads.size(); ++i) {
                const Index h = work.heads[i];
                HeadInput head = headInput(layer, layers[l].stats.get(), h, backend);
                if (std::size_t(h) < layers[l].retrieval.size())
                    head.retrievalScore = layers[l].retrieval[std::size_t(h)];
                policies[i] = policy->select(head, job);
            }
            selectMs[std::size_t(r)] += msSince(start);
        }
        const kernels::Policy denseOnly[] = {kernels::Dense{}};
        for (std::size_t i = 0; i < work.heads.size(); ++i) {
            const auto plan = kernels::buildPlan(headProblem(layer, work.heads[i]),
                                                 std::span(&policies[i], 1), mode);
            executed += double(plan.stats.executedQuarters[0]);
            valid += double(plan.stats.validQuarters);
        }
        // Output error of the nominal set, head by head: memory of one head.
        for (std::size_t i = 0; i < work.heads.size(); ++i) {
            job.check();
            const Index h = work.heads[i];
            const kernels::Problem p = headProblem(layer, h);
            Buffers a, b;
            const auto exactPlan =
                kernels::buildPlan(p, std::span(&policies[i], 1), kernels::PlanMode::Exact);
            const auto densePlan = kernels::buildPlan(p, denseOnly, kernels::PlanMode::Exact);
            backend.forward(p, headQ(layer, h), headK(layer, h), headV(layer, h), densePlan,
                            a.view(p), nullptr, job);
            backend.forward(p, headQ(layer, h), headK(layer, h), headV(layer, h), exactPlan,
                            b.view(p), nullptr, job);
            for (std::size_t e = 0; e < a.out.size(); ++e) {
                const double d = double(b.out[e]) - double(a.out[e]);
                errorSquares += d * d;
                squares += double(a.out[e]) * double(a.out[e]);
            }
        }
    }
    result.density = valid > 0 ? executed / valid : 0;
    result.outputError = squares > 0 ? std::sqrt(errorSquares / squares) : 0;

    std::vector<double> denseMs, sparseMs;
    Buffers buffers;
    for (int r = -1; r < repeats; ++r) {  // round -1 warms up
        job.step(0.3 + 0.7 * double(r + 1) / double(repeats + 1), "timing dense and sparse");
        double dense = 0, sparse = 0, plan = 0;
        for (const Work& work : works) {
            dense += forwardAll(backend, work, false, mode, buffers, job).forwardMs;
            const Spent spent = forwardAll(backend, work, true, mode, buffers, job, &result.kernel);
            sparse += spent.forwardMs;
            plan += spent.planMs;
        }
        if (r < 0) continue;
        selectMs[std::size_t(r)] += plan;
        denseMs.push_back(dense);
        sparseMs.push_back(sparse);
    }
    result.denseMs = median(denseMs);
    result.sparseMs = median(sparseMs);
    result.selectMs = median(selectMs);
    result.denseSpread = spread(denseMs);
    result.sparseSpread = spread(sparseMs);
    result.speedup = result.denseMs / (result.sparseMs + result.selectMs);
    return result;
}

}  // namespace sparsight
