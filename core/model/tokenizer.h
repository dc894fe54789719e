#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/base/view.h"

namespace sparsight {

/// Half-open span of the text; code points (as the Python library reports) and bytes.
struct TokenOffset {
    Index begin = 0, end = 0;
    Index byteBegin = 0, byteEnd = 0;
};

struct Encoding {
    std::vector<std::int32_t> ids;
    std::vector<std::string> tokens;    ///< as the vocabulary spells them ("Ġthe")
    std::vector<TokenOffset> offsets;   ///< tokens added by the post-processor: all zero
    std::vector<std::uint8_t> special;  ///< 1 for tokens added by the post-processor
    std::vector<std::uint8_t> typeIds;
    std::vector<std::int32_t> words;  ///< number of the pre-token; -1: added by the post-processor
};

/// A Hugging Face tokenizer.json: added tokens, normalizer, pre-tokenizer, model, post-processor,
/// decoder. Immutable, safe in parallel.
class Tokenizer {
public:
    /// @param path  a tokenizer.json, a SentencePiece or tiktoken .model, a .tiktoken, or a
    ///        directory; of a directory the first that it has of tokenizer.json, tokenizer.model
    ///        (spiece.model, sentencepiece.bpe.model), vocab.json + merges.txt, *.tiktoken
    /// @throws Error(Unsupported) naming the component that is not understood; Error(Format),
    ///         Error(NotFound)
    static std::shared_ptr<const Tokenizer> load(const std::filesystem::path& path);

    /// @param text  UTF-8. @throws Error(Format) when it is not
    Encoding encode(std::string_view text, bool addSpecial = true) const;
    Encoding encodePair(std::string_view a, std::string_view b, bool addSpecial = true) const;
    std::string decode(std::span<const std::int32_t> ids, bool skipSpecial = true) const;
    /// The token's own text for labels, as it stands inside a text (" the"): bytes decoded, lossy.
    std::string tokenText(std::int32_t id) const;
    Index vocabSize() const;      ///< with added tokens
    std::string summary() const;  ///< "byte-level BPE, 4096 tokens"
    /// What of the file is not as it says, or not applied; plain sentences for the user.
    const std::vector<std::string>& notes() const;

    struct Impl;
    explicit Tokenizer(std::shared_ptr<const Impl> impl) : m_impl(std::move(impl)) {}

private:
    std::shared_ptr<const Impl> m_impl;
};

}  // namespace sparsight
