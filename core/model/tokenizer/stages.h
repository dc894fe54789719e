#pragma once

#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <variant>
#include <vector>

#include "core/model/tokenizer.h"
#include "core/model/tokenizer/added_tokens.h"
#include "core/model/tokenizer/bpe.h"
#include "core/model/tokenizer/regex.h"
#include "core/model/tokenizer/unicode.h"

namespace sparsight {

namespace text {

/// A stretch of text on its way to the model, with where its bytes come from.
struct Chunk {
    std::string_view text;
    Index origin = 0;             ///< byte in the original, when `spans` is null: text unchanged
    const Span* spans = nullptr;  ///< one per byte of text
    Chunk slice(std::size_t begin, std::size_t end) const {
        return {text.substr(begin, end - begin), origin + Index(begin),
                spans == nullptr ? nullptr : spans + begin};
    }
};

/// Keeps changed texts alive while their chunks are in use.
using Arena = std::deque<Normalized>;

// --- Pre-tokenizers: each cuts chunks into smaller ones.

enum class Behavior { Removed, Isolated, MergedWithPrevious, MergedWithNext, Contiguous };

struct SplitStage {
    Regex pattern;
    Behavior behavior;
    bool invert;
};
struct DigitsStage {
    bool individual;
};
/// Must be the last: behind it the text is bytes.
struct ByteLevelStage {
    bool addPrefixSpace;
    std::optional<Regex> pattern;  ///< GPT-2's, with use_regex
};
using PreTokenizer = std::variant<SplitStage, DigitsStage, ByteLevelStage>;

std::vector<Chunk> preTokenize(const PreTokenizer& stage, const std::vector<Chunk>& chunks,
                               Arena& arena);

// --- Post-processors: work on a list of encodings (one or two texts), offsets in code points
// (their byteBegin holds the number of the text until the end).

struct TemplatePiece {
    int sequence = -1;  ///< 0 = A, 1 = B, -1 = special tokens
    std::vector<std::int32_t> ids;
    std::vector<std::string> tokens;
    std::uint8_t typeId = 0;
};
struct TemplateStage {
    std::vector<TemplatePiece> single, pair;
};
/// Takes the white space out of the offsets.
struct TrimStage {
    bool addPrefixSpace;
};
struct RobertaStage {
    bool trimOffsets, addPrefixSpace;
    std::int32_t cls, sep;
    std::string clsToken, sepToken;
};
using PostProcessor = std::variant<TemplateStage, TrimStage, RobertaStage>;

/// @param texts  1 or 2 (a pair); stages change it in turn, the result is the concatenation
void postProcess(const PostProcessor& stage, std::vector<Encoding>& texts, bool addSpecial);

}  // namespace text

struct Tokenizer::Impl {
    std::vector<text::Form> normalizers;
    std::vector<text::AddedToken> added;
    std::unordered_map<std::int32_t, std::size_t> addedIndex;  ///< id -> place in `added`
    text::AddedTokenMatcher rawMatcher, normalizedMatcher;
    std::vector<text::PreTokenizer> preTokenizers;
    text::Bpe model;
    std::vector<text::PostProcessor> postProcessors;
    bool byteLevelDecoder = false;

    const text::AddedToken* addedById(std::int32_t id) const;
};

/// From the parsed file. @param where  for messages
std::shared_ptr<const Tokenizer::Impl> loadTokenizer(const nlohmann::json& file,
                                                     const std::string& where);

}  // namespace sparsight
