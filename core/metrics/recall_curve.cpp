#include <algorithm>
#include <cmath>

#include "core/masks/oracle_blocks.h"
#include "core/metrics/mask_metrics.h"

namespace sparsight {
namespace {

/// `count` values from `from` to `to`, evenly spaced in the logarithm.
std::vector<double> logSteps(double from, double to, int count) {
    std::vector<double> steps;
    for (int i = 0; i < count; ++i)
        steps.push_back(from * std::pow(to / from, double(i) / double(count - 1)));
    return steps;
}

MethodSpec with(MethodSpec spec, const std::string& name, double value) {
    spec.params.numbers[name] = value;
    return spec;
}

/// The specs to try: budgets whose densities spread from about half a percent to 60 percent.
std::vector<MethodSpec> sweep(const MethodSpec& base, const kernels::Problem& p, int points) {
    const Method& m = method(base.id);
    const ParamValues standard = complete(m, base.params);
    const std::string budget(m.budgetParam);
    std::vector<MethodSpec> specs;
    if (budget.empty()) return {base};
    const double n = double(p.Nk);
    const auto tokens = [&](double value, const Param& param) {
        return std::clamp(std::round(value), param.least, param.most);
    };
    const auto param = [&](const std::string& name) -> const Param& {
        return *std::find_if(m.params.begin(), m.params.end(),
                             [&](const Param& q) { return q.name == name; });
    };
    if (base.id == "vertical-slash") {
        // A share x of all distances and, in the method's own ratio, of all columns.
        const double slash = standard.numbers.at("slash");
        const double ratio = slash > 0 ? standard.numbers.at("vertical") / slash : 0;
        for (const double x : logSteps(0.002, 0.6, points)) {
            MethodSpec spec = with(base, "slash", tokens(x * n, param("slash")));
            specs.push_back(with(spec, "vertical", tokens(ratio * x * n, param("vertical"))));
        }
    } else if (param(budget).unit == std::string_view("tokens")) {
        // A causal window of x n keys covers 1 - (1 - x)^2 of the triangle.
        for (const double x : logSteps(0.0025, 0.37, points))
            specs.push_back(with(base, budget, tokens(x * n, param(budget))));
    } else {
        // A share of the mass: densities spread when its complement is spaced in the logarithm.
        for (const double rest : logSteps(1.0, 0.01, points))
            specs.push_back(with(base, budget, std::round((1 - rest) * 1e4) / 1e4));
    }
    return specs;
}

/// Recall is a sum of block masses here, so one sort gives the whole curve. With learned sinks P
/// does not sum to 1 over the keys and the measured way is taken.
std::vector<CurvePoint> oracleCurve(const HeadInput& head, const MethodSpec& base, int points,
                                    const Job& job) {
    const ParamValues params = complete(method(base.id), base.params);
    const OracleOrder order = oracleOrder(head, Index(params.numbers.at("block")), job);
    Index seeing = 0;
    for (Index r = 0; r < head.problem.Nq; ++r)
        seeing += head.problem.visibleEnd(r) > head.problem.visibleBegin(r);
    std::vector<CurvePoint> curve;
    Index done = 0, quarters = 0, pairs = 0;
    double mass = 0;
    for (const double density : logSteps(0.005, 0.6, points)) {
        const Index count = oracleCount(order, density);
        for (; done < count; ++done) {
            const auto& b = order.blocks[std::size_t(done)];
            quarters += b.quarters;
            pairs += b.pairs;
            mass += b.mass;
        }
        CurvePoint point;
        point.density = double(quarters) / double(std::max<Index>(order.quarters, 1));
        point.coverage = double(pairs) / double(std::max<Index>(order.pairs, 1));
        point.recall = std::min(1.0, mass / double(std::max<Index>(seeing, 1)));
        // Rounded down by less than one block, so that the spec selects these very blocks.
        point.spec = with(base, "density", std::floor(point.density * 1e7) / 1e7);
        curve.push_back(std::move(point));
    }
    return curve;
}

}  // namespace

std::vector<CurvePoint> recallCurve(kernels::Backend& backend, const HeadInput& head,
                                    kernels::TensorView v, const MethodSpec& base, int points,
                                    const Job& job) {
    if (points < 2) throw Error(Errc::Usage, "recall curve: at least 2 points are needed");
    std::vector<CurvePoint> curve;
    if (base.id == "oracle-blocks" && !head.problem.sinks) {
        curve = oracleCurve(head, base, points, job);
    } else {
        MetricsOptions options;
        options.outputError = options.tileRecall = false;
        const auto specs = sweep(base, head.problem, points);
        for (std::size_t i = 0; i < specs.size(); ++i) {
            job.step(double(i) / double(specs.size()), base.id);
            const auto policy = makePolicy(specs[i])->select(head, job);
            const MaskMetrics m = measureMask(
                backend, head, v, policy, options,
                job.part(double(i) / double(specs.size()), double(i + 1) / double(specs.size())));
            curve.push_back({m.density, m.coverage, m.recall, specs[i]});
        }
    }
    std::stable_sort(curve.begin(), curve.end(), [](const CurvePoint& a, const CurvePoint& b) {
        return a.density != b.density ? a.density < b.density : a.recall > b.recall;
    });
    curve.erase(std::unique(curve.begin(), curve.end(),
                            [](const CurvePoint& a, const CurvePoint& b) {
                                return std::abs(a.density - b.density) < 1e-9;
                            }),
                curve.end());
    return curve;
}

}  // namespace sparsight
