#pragma once

#include <random>

#include "kernels/policy.h"

/// Random problems and masks for tests; every draw comes from one seeded generator.
struct RandomPolicy {
    std::mt19937 random;
    explicit RandomPolicy(unsigned seed) : random(seed) {}

    sparsight::Index below(sparsight::Index n) {
        return n <= 0 ? 0 : std::uniform_int_distribution<sparsight::Index>(0, n - 1)(random);
    }
    bool chance(double p) { return std::bernoulli_distribution(p)(random); }
    std::vector<std::int32_t> subset(sparsight::Index n, double p) {
        std::vector<std::int32_t> out;
        for (sparsight::Index i = 0; i < n; ++i)
            if (chance(p)) out.push_back(std::int32_t(i));
        return out;
    }

    /// @param kind 0 Dense, 1 Streaming, 2 BlockList, 3 VerticalSlash, 4 RowRanges
    sparsight::kernels::Policy make(int kind, const sparsight::kernels::Problem& p) {
        using namespace sparsight::kernels;
        using sparsight::Index;
        const double densities[] = {0.0, 0.02, 0.2, 0.6, 1.0};
        const double density = densities[below(5)];
        if (kind == 1) {
            const Index sinks[] = {0, 1, 4, 64, 130}, windows[] = {0, 1, 17, 128, 300};
            return Streaming{sinks[below(5)], windows[below(5)]};
        }
        if (kind == 2) {
            BlockList list;
            list.block = chance(0.5) ? 64 : 128;
            list.rowPtr.push_back(0);
            for (Index r = 0; r < (p.Nq + list.block - 1) / list.block; ++r) {
                const auto cols = subset((p.Nk + list.block - 1) / list.block, density);
                list.col.insert(list.col.end(), cols.begin(), cols.end());
                list.rowPtr.push_back(std::int32_t(list.col.size()));
            }
            return list;
        }
        if (kind == 3) return VerticalSlash{subset(p.Nk, density / 4), subset(p.Nk, density / 8)};
        if (kind == 4) {
            RowRanges ranges;
            ranges.rangePtr.push_back(0);
            const Index longest = chance(0.5) ? 1 : 90;
            const Index gap = chance(0.5) ? 3 : 100;
            for (Index row = 0; row < p.Nq;) {
                row = std::min(p.Nq, row + 1 + below(longest));
                ranges.rowEnd.push_back(std::int32_t(row));
                if (!chance(0.1)) {
                    for (Index key = below(gap); key < p.Nk;) {
                        const Index end = std::min(p.Nk, key + below(40));
                        ranges.ranges.push_back({std::int32_t(key), std::int32_t(end)});
                        key = end + below(gap);
                        if (density < 0.1 && chance(0.7)) break;
                    }
                }
                ranges.rangePtr.push_back(std::int32_t(ranges.ranges.size()));
            }
            return ranges;
        }
        return Dense{};
    }
};
