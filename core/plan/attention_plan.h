#pragma once

#include <array>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/capture/layer_capture.h"
#include "core/masks/method.h"
#include "core/model/runner.h"

namespace sparsight {

enum class Phase { Prefill, Decode };

struct PlanModel {
    std::string name, arch;
    Index layers = 0, heads = 0, kvHeads = 0, headDim = 0;
    std::string configSha256;
    std::string weightsSha256;  ///< empty = not stated
};
PlanModel planModel(const ModelConfig& config);

/// A Sparsight plan v1 (docs/plan-format; JSON schema in handoff.md 3): which method each head runs
/// in which phase. Later rules win; heads not covered take `base`.
struct AttentionPlan {
    struct Rule {
        std::vector<Index> layers;   ///< empty = all
        std::vector<Index> qHeads;   ///< empty = all
        std::vector<Index> kvHeads;  ///< exclusive with qHeads
        std::vector<Phase> phases;   ///< empty = the plan's
        std::optional<Index> minLength, maxLength;
        MethodSpec pattern;
        std::optional<double> score;
        std::string why;
    };
    struct Evidence {
        std::string metric;
        double value = 0;
        Index n = 0;
        std::optional<Index> length, layer, head;
        std::string data;
        std::optional<std::array<double, 2>> interval;  ///< confidence interval
    };
    struct Producer {
        std::string name = "sparsight", version = "0.1.0", commit;
    };
    std::string uuid, parentUuid, name, createdUtc;
    PlanModel model;
    std::vector<Phase> phases{Phase::Prefill, Phase::Decode};
    MethodSpec base{"dense", {}};
    std::vector<Rule> rules;
    std::vector<Evidence> evidence;
    Producer producer;
    std::string version = "1.0.0";         ///< of the format
    std::vector<Index> calibratedLengths;  ///< prompt lengths that the plan was made for
    std::optional<Index> minPlanLength, maxPlanLength;  ///< prompt lengths that it is meant for

    /// The method of one head; dense when the plan does not bind `phase`.
    /// @param length  keys that the rows may see (Nk), for rules with a length bound
    MethodSpec at(Index layer, Index head, Phase phase, Index length) const;
    /// The same without a copy; the reference lives as long as the plan.
    const MethodSpec& methodAt(Index layer, Index head, Phase phase, Index length) const;
};

/// A plan with a fresh uuid and the present time; base dense, no rules.
AttentionPlan newPlan(const PlanModel& model, std::string name = {});
/// The method with every parameter filled in; empty texts are left out. Two specs make the same
/// mask when their completed forms are equal.
MethodSpec completed(const MethodSpec& spec);
/// A plan that says exactly what the tables say. @param prefill, decode [L * Hq]; an empty decode
/// table leaves the decode phase unbound, an empty prefill table the prefill phase
/// @param scores  [L * Hq] kept in the rules where given; NaN = none
AttentionPlan planFromTables(const PlanModel& model, std::string name,
                             const std::vector<MethodSpec>& prefill,
                             const std::vector<MethodSpec>& decode,
                             const std::vector<double>& scores = {});

/// One rule for all heads, both phases; `retrieval-heads` is expanded into base a-shape + dense
/// rules. @param scores [L*Hq] retrieval scores when known (else heads= or table= must be given)
AttentionPlan uniformPlan(const PlanModel& model, const MethodSpec& method,
                          const std::vector<double>& scores = {});

/// @throws Error(Format) naming the field; unknown keys are refused
AttentionPlan parsePlan(const std::string& json, const std::string& origin = "plan");
std::string toJson(const AttentionPlan& plan);         ///< indented
std::string canonicalJson(const AttentionPlan& plan);  ///< sorted keys, no spaces: what is hashed
AttentionPlan readPlan(const std::filesystem::path& file);
void writePlan(const AttentionPlan& plan, const std::filesystem::path& file);  ///< temp + rename
/// @throws Error(Shape) when the plan's model has other layers or heads
void checkFits(const AttentionPlan& plan, const ModelConfig& config);

/// What a plan cost while it ran.
struct PlanUse {
    double densitySum = 0;  ///< over prefill heads
    Index heads = 0;
    std::vector<std::string> notes;  ///< e.g. "vertical-slash has no decode rule: dense in decode"
    double density() const { return heads ? densitySum / double(heads) : 1.0; }
};

/// Attention in which every head runs its own method, selected on the fly from that layer's Q and
/// K; token-exact masks. `plan`, `backend` and `use` must outlive the function.
AttentionFn plannedAttention(const AttentionPlan& plan, kernels::Backend& backend,
                             PlanUse* use = nullptr, const Job& job = {});

}  // namespace sparsight
