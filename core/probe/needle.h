#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "core/capture/layer_capture.h"
#include "core/model/tokenizer.h"

namespace sparsight {

/// `niah[:tokens=1500,depth=0.5,seed=1,haystack=FILE]`. Deterministic from the seed.
struct NeedleSpec {
    Index tokens = 1500;  ///< everything: special tokens, haystack, needle, question, answer
    double depth = 0.5;   ///< share of the haystack's sentences before the needle
    std::uint64_t seed = 1;
    std::string haystack;  ///< text file; empty = built-in prose
};
/// @throws Error(Usage) naming the bad key or value
NeedleSpec parseProbe(std::string_view text);
std::string toString(const NeedleSpec& spec);

/// A prompt that hides a pass key and asks for it, in the wording that the sample model was
/// trained on.
struct NeedlePrompt {
    std::string text;  ///< up to and including the question; the model is to continue with " 41857"
    std::string answer;  ///< gold answer with its leading space; the full stop is not asked for
                         ///< (nor was it when the sample was measured)
    std::vector<std::int32_t> promptIds;  ///< with the tokenizer's special tokens
    std::vector<std::int32_t> ids;        ///< promptIds + the answer's tokens
    std::string fullText;                 ///< text + answer: what `ids` spell
    Encoding encoding;                    ///< of fullText (ids equal `ids`)
    NeedleTruth truth;                    ///< spans in `ids`
};
/// Length: spec.tokens or at most 0.5 % below.
/// @throws Error(Usage) too short for a needle; Error(NotFound) haystack file
NeedlePrompt makeNeedlePrompt(const NeedleSpec& spec, const Tokenizer& tokenizer,
                              const Job& job = {});

/// The row that writes the needle's first token: where a retrieval head looks at the needle (an
/// answer may begin with a lone space, which no needle holds).
Index copyingRow(std::span<const std::int32_t> ids, const NeedleTruth& truth);

/// Built-in prose of a template grammar (subject, verb, object, place): no numbers, no famous text.
/// @param index  sentence number, any; the same (seed, index) gives the same sentence
std::string proseSentence(std::uint64_t seed, std::uint64_t index);

}  // namespace sparsight
