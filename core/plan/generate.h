#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "core/model/tokenizer.h"
#include "core/plan/attention_plan.h"

namespace sparsight {

struct GenerateResult {
    std::vector<std::int32_t> ids;  ///< new tokens only
    std::string text;               ///< new text only
    double prefillSeconds = 0, decodeSeconds = 0;
    std::vector<std::string> notes;
};
/// Greedy decoding (argmax, lowest index on ties) after a prefill; stops at an eos token.
/// @param plan null = dense
GenerateResult generate(ModelRunner& model, kernels::Backend& backend, const Tokenizer& tokenizer,
                        std::span<const std::int32_t> prompt, Index maxNew, const AttentionPlan* plan,
                        const std::function<void(const std::string&)>& onText = {}, const Job& job = {});

/// Dense against planned on the same tokens, teacher-forced (probes.md 8).
struct EvalResult {
    double meanKL = 0;         ///< nats, dense || planned, over all rows but the last
    double p99KL = 0, maxKL = 0;
    double top1Agreement = 0;
    double nllDense = 0, nllPlan = 0;  ///< mean, nats per token
    std::optional<bool> needleDense, needlePlan;  ///< every answer token is the argmax
    double density = 1;
    double secondsDense = 0, secondsPlan = 0;
    Index tokens = 0;
    std::vector<std::string> notes;
};
/// @param ids  prompt (with the answer's tokens at the end for a needle)
/// The rows that predict the answer run as decode steps (one token at a time) so that a plan's
/// decode rules are judged as well.
EvalResult evaluatePlan(ModelRunner& model, kernels::Backend& backend, std::span<const std::int32_t> ids,
                        const std::optional<NeedleTruth>& needle, const AttentionPlan& plan,
                        const Job& job = {});

}  // namespace sparsight
