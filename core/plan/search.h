#pragma once

#include "core/metrics/mask_metrics.h"
#include "core/plan/attention_plan.h"

namespace sparsight {

/// One head's options: (density, recall) of candidate methods, measured on a capture.
struct HeadOptions {
    Index layer = 0, head = 0;
    std::vector<CurvePoint> points;
};

/// Per head the least density that reaches the exact mean recall; dense where none does.
AttentionPlan planForRecall(const PlanModel& model, const std::vector<HeadOptions>& heads, double recall);
/// Greedy by slope on each head's convex hull (probes.md 9) until the mean density is used up.
AttentionPlan planForDensity(const PlanModel& model, const std::vector<HeadOptions>& heads, double density);

}  // namespace sparsight
