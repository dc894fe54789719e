#pragma once

#include <functional>
#include <string>

#include "core/model/weights.h"

namespace sparsight {

/// sum += down(act(gate x) * up x), or down(act(up x)) without a gate.
/// @param x  [rows][hidden]; may be `sum`
void mlpOnto(const MlpWeights& w, const float* x, Index rows, const std::string& activation,
             float* sum, const Job& job = {});

/// The experts that each row goes to, with their weights.
struct Routing {
    std::vector<Index> expert;  ///< [rows][perToken]
    std::vector<float> weight;  ///< the same shape
};
/// @param logits  [rows][count] of the router; changed
/// @param correction  [count], SigmoidBias only
Routing route(const ExpertsConfig& experts, float* logits, Index rows, const float* correction);

/// sum += the mixture of experts of every row, the shared expert included.
/// @param x       [rows][hidden], normalised
/// @param expert  the weights of one expert; asked for once per expert that some row goes to
/// @param chunk   rows of one product
void runExperts(const ModelConfig& config, const LayerWeights& w, const float* x, Index rows,
                Index chunk, const std::function<MlpWeights(Index)>& expert, float* sum,
                const Job& job);

}  // namespace sparsight
