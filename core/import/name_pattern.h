#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/base/view.h"

namespace sparsight {

/// What the numbers of a tensor's name say; -1 = the pattern has no such place.
struct NameMatch {
    Index layer = -1, head = -1;
};

/// A tensor name with places for numbers: "layer.{layer}.q", "l{layer}/h{head}/k", "q".
/// @throws Error(Usage) in checkPattern() for an unknown place or two places side by side
void checkPattern(std::string_view pattern);
/// @return empty when the name is not of that form
std::optional<NameMatch> matchName(std::string_view pattern, std::string_view name);

/// The parts of an attention layer that a file may hold.
enum class Part : std::uint8_t { Q, K, V, Lse, Sinks, InputIds, Attention };
constexpr int kParts = 7;
const char* partName(Part part);  ///< q, k, v, lse, sinks, input_ids, attention

/// What the words of a name suggest.
struct NameGuess {
    Part part;
    std::string pattern;  ///< with {layer} and {head} in place of the numbers that say so
};
/// Empty when no word of the name is known, or when it is that of a model's weight.
///
///     "layer.3.q"            -> Q, "layer.{layer}.q"
///     "dec/l0_h12_keys"      -> K, "dec/l{layer}_h{head}_keys"
///     "p0.L2.query_states"   -> Q, "p0.L{layer}.query_states"
std::optional<NameGuess> guessName(std::string_view name);

/// The pattern of one part's names made those of another, in every spelling that is known:
/// "dec/l{layer}_queries" to K gives dec/l{layer}_k, .._key, .._keys. Empty without a known word.
std::vector<std::string> patternsOf(Part part, std::string_view otherPattern);

}  // namespace sparsight
