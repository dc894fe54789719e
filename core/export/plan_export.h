#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "core/plan/attention_plan.h"

namespace sparsight {

/// A format that engineers load.
struct ExportTarget {
    std::string_view id, title;  ///< "minference", "duoattention", "csv"
    bool directory;              ///< writes a directory, not a file
};
std::span<const ExportTarget> exportTargets();

struct ExportResult {
    std::vector<std::filesystem::path> files;
    std::vector<std::string> losses;  ///< per head: "target will use X, the plan says Y"
};
/// Writes the target's files plus the plan and LOSS.md beside them when something is lost.
/// @throws Error(Unsupported) listing what the target cannot express, unless `allowLoss`;
///         Error(NotFound) unknown target (suggests the nearest)
ExportResult exportPlan(const AttentionPlan& plan, const std::string& target,
                        const std::filesystem::path& path, bool allowLoss = false);

/// Reads a MInference JSON, a DuoAttention directory or a CSV back. The format is recognised by
/// content. @throws Error(Format) with the field
AttentionPlan importPlan(const std::filesystem::path& path, const ModelConfig& model);

/// The expanded table: one row per (layer, head) with the method of each phase.
std::string planCsv(const AttentionPlan& plan);

}  // namespace sparsight
