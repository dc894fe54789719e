#pragma once

#include <array>
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "core/model/tokenizer/vocab.h"

namespace sparsight::text {

/// As "merges" of a BPE model: two tokens merge when the vocabulary has the two together, the
/// lowest id of such products first (tiktoken).
inline constexpr const char* kMergesByRank = "by rank";

/// Hash table from a pair of ids to the rank and the product of their merge: open addressing, as a
/// lookup per pair of neighbours is what tokenizing costs.
class MergeTable {
public:
    struct Merge {
        std::int32_t rank = -1, product = -1;
    };
    explicit MergeTable(std::size_t expected = 0);
    void set(std::int32_t left, std::int32_t right, Merge merge);
    /// nullptr when the two do not merge.
    const Merge* find(std::int32_t left, std::int32_t right) const;

private:
    struct Slot {
        std::uint64_t key = kEmpty;
        Merge merge;
    };
    static constexpr std::uint64_t kEmpty = ~std::uint64_t{0};
    std::size_t slotOf(std::uint64_t key) const;

    std::vector<Slot> m_slots;
};

/// Byte-pair encoding: a word is its characters, each with an id of its own, merged pair by pair,
/// lowest rank first, leftmost on ties. Immutable after load.
class Bpe {
public:
    /// @param model  the "model" object of tokenizer.json; its merges may be kMergesByRank
    /// @param where  for messages
    /// @throws Error(Unsupported) naming the option, Error(Format)
    static Bpe load(const nlohmann::json& model, const std::string& where);

    /// Appends the tokens of one pre-token. O(n log n).
    /// A character that the vocabulary does not have becomes its bytes' tokens (byte_fallback), the
    /// unknown token, or nothing: then what follows it is counted from where it was.
    /// @throws Error(Format) when the unknown token is needed and not in the vocabulary
    void encode(std::string_view word, std::vector<WordToken>& out) const;

    /// True when every byte has a token of its own, so that encodeBytes() can be used.
    bool byteLevel() const { return m_allBytes; }
    /// The same for a word of raw bytes that the vocabulary spells in the byte-level alphabet.
    void encodeBytes(std::string_view word, std::vector<WordToken>& out) const;

    const Vocab& vocab() const { return m_vocab; }
    bool byteFallback() const { return m_byteFallback; }

private:
    struct Symbol;
    void mergeByRank();
    void merge(std::vector<Symbol>& symbols, std::vector<WordToken>& out) const;

    Vocab m_vocab;
    /// By raw bytes, for ignore_merges.
    std::unordered_map<std::string, std::int32_t, StringHash, std::equal_to<>> m_whole;
    std::array<std::int32_t, 256> m_byte{};  ///< ids of the byte-level alphabet
    std::vector<std::int32_t> m_fallback;    ///< ids of <0x00> ... <0xFF>
    MergeTable m_merges;
    std::string m_prefix, m_suffix, m_unknown;  ///< empty: none
    bool m_ignoreMerges = false, m_fuseUnknown = false, m_byteFallback = false, m_allBytes = false;
};

}  // namespace sparsight::text
