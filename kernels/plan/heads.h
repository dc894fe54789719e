#pragma once

#include <algorithm>
#include <span>
#include <string>
#include <vector>

#include "kernels/base/error.h"
#include "kernels/plan.h"

/// Which policies of a plan are planned: each one once.
namespace sparsight::kernels::planner {

inline bool same(const Policy& x, const Policy& y) {
    if (x.index() != y.index()) return false;
    return std::visit(
        [&](const auto& a) {
            using T = std::decay_t<decltype(a)>;
            const T& b = std::get<T>(y);
            if constexpr (std::is_same_v<T, Dense>)
                return true;
            else if constexpr (std::is_same_v<T, Streaming>)
                return a.sink == b.sink && a.window == b.window;
            else if constexpr (std::is_same_v<T, BlockList>)
                return a.block == b.block && a.rowPtr == b.rowPtr && a.col == b.col;
            else if constexpr (std::is_same_v<T, VerticalSlash>)
                return a.cols == b.cols && a.diags == b.diags;
            else
                return a.rowEnd == b.rowEnd && a.rangePtr == b.rangePtr && a.ranges == b.ranges;
        },
        x);
}

/// The policies of the heads, equal ones once, in the order of their first head.
struct DistinctPolicies {
    std::vector<const Policy*> policies;
    std::vector<std::size_t> source;  ///< [Hq] head -> entry of policies

    /// @throws Error(Shape) for a number of policies or a policy that does not fit the problem
    DistinctPolicies(const Problem& problem, std::span<const Policy> perHead) {
        if (perHead.size() != 1 && Index(perHead.size()) != problem.Hq)
            throw Error(Errc::Shape, "plan: " + std::to_string(perHead.size()) + " masks for " +
                                         std::to_string(problem.Hq) +
                                         " query heads; give one mask, or one per head");
        if (problem.Nq < 0 || problem.Nk < 0 || problem.Nq + problem.Nk > INT32_MAX)
            throw Error(Errc::Shape, "plan: " + std::to_string(problem.Nq) + " queries on " +
                                         std::to_string(problem.Nk) + " keys are out of range");
        for (const Policy& policy : perHead) validate(policy, problem);

        for (const Policy& policy : perHead) {
            const auto known = std::find_if(policies.begin(), policies.end(),
                                            [&](const Policy* p) { return same(*p, policy); });
            source.push_back(std::size_t(known - policies.begin()));
            if (known == policies.end()) policies.push_back(&policy);
        }
        if (perHead.size() == 1) source.assign(std::size_t(problem.Hq), 0);
    }
};

}  // namespace sparsight::kernels::planner
