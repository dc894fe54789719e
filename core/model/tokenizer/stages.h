#pragma once

#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <variant>
#include <vector>

#include "core/model/tokenizer.h"
#include "core/model/tokenizer/added_tokens.h"
#include "core/model/tokenizer/bpe.h"
#include "core/model/tokenizer/precompiled.h"
#include "core/model/tokenizer/regex.h"
#include "core/model/tokenizer/unicode.h"
#include "core/model/tokenizer/unigram.h"
#include "core/model/tokenizer/word_models.h"

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
    /// Where it begins in the original.
    Index start() const { return spans == nullptr || text.empty() ? origin : spans[0].begin; }
};

/// Keeps changed texts alive while their chunks are in use.
using Arena = std::deque<Normalized>;

/// A copy to change: the text with a span per byte.
Normalized unpack(const Chunk& chunk);

// --- Normalizers: each changes a piece of text as a whole.

struct LowercaseNormalizer {};
struct StripNormalizer {
    bool left, right;
};
struct StripAccentsNormalizer {};
struct ReplaceNormalizer {
    Regex pattern;
    std::string content;
};
struct PrependNormalizer {
    std::string content;
};
struct NmtNormalizer {};
struct BertNormalizer {
    bool cleanText, spaceChinese, stripAccents, lowercase;
};
struct ByteLevelNormalizer {};
struct PrecompiledNormalizer {
    std::shared_ptr<const CharsMap> map;
};
using Normalizer = std::variant<Form, LowercaseNormalizer, StripNormalizer, StripAccentsNormalizer,
                                ReplaceNormalizer, PrependNormalizer, NmtNormalizer, BertNormalizer,
                                ByteLevelNormalizer, PrecompiledNormalizer>;

/// The chunk itself when nothing changes.
Chunk normalize(const Normalizer& stage, const Chunk& chunk, Arena& arena);

/// Every match becomes `content`, whose bytes all get the range of the match's last character.
void replaceMatches(Normalized& n, const std::vector<std::pair<std::size_t, std::size_t>>& matches,
                    std::string_view content);
/// Adds text at the front of text that is not empty; it gets the first character's range.
void prepend(Normalized& n, std::string_view content);

// --- Pre-tokenizers: each cuts chunks into smaller ones.

enum class Behavior { Removed, Isolated, MergedWithPrevious, MergedWithNext, Contiguous };

struct SplitStage {
    Regex pattern;
    Behavior behavior;
    bool invert;
};
/// Cuts by a property of single characters.
struct CharSplitStage {
    enum class Kind { WhiteSpace, Punctuation, Digits, Delimiter } kind;
    Behavior behavior;
    char32_t delimiter = 0;
};
/// Runs of word characters, and of what is neither word nor white space.
struct WhitespaceStage {};
struct ScriptsStage {};
struct FixedLengthStage {
    std::size_t length;
};
struct MetaspaceStage {
    enum class Prepend { Always, First, Never } prepend;
    std::string replacement;
    Regex spaces, pattern;  ///< a space; the replacement
    bool split;
};
struct ByteLevelStage {
    bool addPrefixSpace;
    std::optional<Regex> pattern;  ///< GPT-2's, with use_regex
    bool spell = true;  ///< false: leave raw bytes, for a model that takes them (encodeBytes)
};
using PreTokenizer = std::variant<SplitStage, CharSplitStage, WhitespaceStage, ScriptsStage,
                                  FixedLengthStage, MetaspaceStage, ByteLevelStage>;

/// No chunk of the result is empty.
std::vector<Chunk> preTokenize(const PreTokenizer& stage, const std::vector<Chunk>& chunks,
                               Arena& arena);

// --- Models.

using Model = std::variant<Bpe, Unigram, WordPiece, WordLevel>;
const Vocab& vocabOf(const Model& model);

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
/// cls A sep, and for a pair: sep B sep (RoBERTa, all types 0) or B sep (BERT, type 1).
struct ClsSepStage {
    bool roberta, trimOffsets, addPrefixSpace;
    std::int32_t cls, sep;
    std::string clsToken, sepToken;
};
using PostProcessor = std::variant<TemplateStage, TrimStage, ClsSepStage>;

/// @param texts  1 or 2 (a pair); stages change it in turn, the result is the concatenation
void postProcess(const PostProcessor& stage, std::vector<Encoding>& texts, bool addSpecial);

// --- Decoders: each changes the list of tokens; in the end they are joined.

struct ByteLevelDecoder {};
struct MetaspaceDecoder {
    char32_t replacement;
    bool dropFirst;  ///< the first token's replacement characters vanish
};
struct WordPieceDecoder {
    std::string prefix;
    bool cleanup;
};
struct BpeDecoder {
    std::string suffix;
};
struct CtcDecoder {
    std::string pad, delimiter;
    bool cleanup;
};
struct ByteFallbackDecoder {};
struct FuseDecoder {};
struct StripDecoder {
    char32_t content;
    std::size_t start, stop;
};
struct ReplaceDecoder {
    Regex pattern;
    std::string content;
};
using Decoder =
    std::variant<ByteLevelDecoder, MetaspaceDecoder, WordPieceDecoder, BpeDecoder, CtcDecoder,
                 ByteFallbackDecoder, FuseDecoder, StripDecoder, ReplaceDecoder>;

std::vector<std::string> decodeTokens(const Decoder& stage, std::vector<std::string> tokens);

}  // namespace text

struct Tokenizer::Impl {
    std::vector<text::Normalizer> normalizers;
    std::vector<text::AddedToken> added;
    std::unordered_map<std::int32_t, std::size_t> addedIndex;  ///< id -> place in `added`
    std::unordered_set<std::string> specials;  ///< contents of the special added tokens
    text::AddedTokenMatcher rawMatcher, normalizedMatcher;
    std::vector<text::PreTokenizer> preTokenizers;
    text::Model model;
    bool rawBytes = false;  ///< words reach the model as bytes (Bpe::encodeBytes)
    std::vector<text::PostProcessor> postProcessors;
    std::vector<text::Decoder> decoders;
    bool spaced = false;  ///< the file has no decoder (not even an empty Sequence): tokens are
                          ///< joined by spaces
    std::vector<std::string> notes;
    std::string kind;  ///< "byte-level BPE"

    const text::Vocab& vocab() const { return text::vocabOf(model); }
    const text::AddedToken* addedById(std::int32_t id) const;
};

/// From the parsed tokenizer.json. @param where  for messages
std::shared_ptr<const Tokenizer::Impl> loadTokenizer(const nlohmann::json& file,
                                                     const std::string& where);

}  // namespace sparsight
