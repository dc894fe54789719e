#pragma once

#include <vector>

#include "core/model/runner.h"

namespace sparsight {

/// A token and the share of the model's softmax that it gets, in [0, 1].
struct TokenGuess {
    std::int32_t id = 0;
    double probability = 0;
};

/// The k largest of softmax(logits), largest first, of equal ones the lower id; fewer when there
/// are not as many logits. Sums in double.
std::vector<TokenGuess> largestProbabilities(std::span<const float> logits, Index k);

/// What a model says about each token of a text, or of its decoder's text: a decoder which token
/// comes next, a masked language model (BERT, RoBERTa) which token stands there. One whole pass,
/// then the output matrix in pieces of a few rows.
/// @return by row the k likeliest tokens, likeliest first
/// @throws Error(Unsupported) when the model's outputs are no tokens (classes of an image, CLIP);
///         as ModelRunner::pass, Cancelled
std::vector<std::vector<TokenGuess>> nextTokens(ModelRunner& model, const ModelInput& input,
                                                const AttentionFn& attention, Index k,
                                                const Job& job = {});

/// A model that fills places instead of going on: its guesses are for the token itself.
bool fillsPlaces(const ModelConfig& config);

}  // namespace sparsight
