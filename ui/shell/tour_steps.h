#pragma once

#include <QString>
#include <array>
#include <filesystem>
#include <memory>
#include <vector>

#include "core/plan/generate.h"
#include "core/probe/needle.h"

namespace sparsight::ui {

/// What the tour's steps share: the model, four needle prompts and the plans. Used in the long
/// lane.
struct TourWorld {
    std::filesystem::path directory;
    std::shared_ptr<const Tokenizer> tokenizer;
    std::shared_ptr<ModelRunner> model;
    std::vector<NeedlePrompt> prompts;
};

/// Loads the model on first use and makes the prompts (seeds seed .. seed + 3).
void prepareTour(TourWorld& world, const std::filesystem::path& directory, std::uint64_t seed,
                 const Job& job);

/// Dense and greedy: does the model continue with the answer?
struct Asked {
    int answered = 0, of = 0;
    QString said;  ///< after the first prompt
    double seconds = 0;
};
Asked askModel(TourWorld& world, kernels::Backend& backend, const AttentionPlan* plan,
               const Job& job);

/// A plan judged on all prompts, teacher-forced.
struct Judged {
    int answeredDense = 0, answeredPlan = 0, of = 0;
    double nllDense = 0, nllPlan = 0, density = 0;  ///< means over the prompts
    QString said;                                   ///< under the plan, after the first prompt
};
Judged judgePlan(TourWorld& world, kernels::Backend& backend, const AttentionPlan& plan,
                 const Job& job);

/// Export to MInference's JSON and back.
struct RoundTrip {
    std::filesystem::path file;
    Index heads = 0, different = 0;  ///< rows of the per-head prefill table that came back changed
    int losses = 0;                  ///< what the target cannot say
    Asked answers;                   ///< with the plan that was read back
};
RoundTrip roundTrip(TourWorld& world, kernels::Backend& backend, const AttentionPlan& plan,
                    const std::filesystem::path& folder, const Job& job);

}  // namespace sparsight::ui
