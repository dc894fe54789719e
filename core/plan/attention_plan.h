#pragma once

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
};
PlanModel planModel(const ModelConfig& config);

/// A Sparsight plan v1 (docs/plan-format; JSON schema in handoff.md 3): which method each head runs
/// in which phase. Later rules win; heads not covered take `base`.
struct AttentionPlan {
    struct Rule {
        std::vector<Index> layers;  ///< empty = all
        std::vector<Index> qHeads;  ///< empty = all
        std::vector<Index> kvHeads; ///< exclusive with qHeads
        std::vector<Phase> phases;  ///< empty = the plan's
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
    };
    std::string uuid, parentUuid, name, createdUtc;
    PlanModel model;
    std::vector<Phase> phases{Phase::Prefill, Phase::Decode};
    MethodSpec base{"dense", {}};
    std::vector<Rule> rules;
    std::vector<Evidence> evidence;

    /// The method of one head; dense when the plan does not bind `phase`.
    MethodSpec at(Index layer, Index head, Phase phase, Index length) const;
};

/// One rule for all heads, both phases; `retrieval-heads` is expanded into base a-shape + dense
/// rules. @param scores [L*Hq] retrieval scores when known (else heads= or table= must be given)
AttentionPlan uniformPlan(const PlanModel& model, const MethodSpec& method,
                          const std::vector<double>& scores = {});

/// @throws Error(Format) naming the field; unknown keys are refused
AttentionPlan parsePlan(const std::string& json, const std::string& origin = "plan");
std::string toJson(const AttentionPlan& plan);       ///< indented
std::string canonicalJson(const AttentionPlan& plan); ///< sorted keys, no spaces: what is hashed
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
AttentionFn plannedAttention(const AttentionPlan& plan, kernels::Backend& backend, PlanUse* use = nullptr,
                             const Job& job = {});

}  // namespace sparsight
