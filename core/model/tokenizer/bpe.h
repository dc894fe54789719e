#pragma once

#include <array>
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "kernels/base/view.h"

namespace sparsight::text {

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

/// One token of a word: its id and how many of the word's bytes it takes.
struct WordToken {
    std::int32_t id;
    std::uint32_t bytes;
};

/// Byte-level BPE: a word is its bytes, each with an id of its own, merged pair by pair, lowest
/// rank first, leftmost on ties. Immutable after load.
class Bpe {
public:
    /// @param model  the "model" object of tokenizer.json
    /// @param where  for messages
    /// @throws Error(Unsupported) naming the option, Error(Format)
    static Bpe load(const nlohmann::json& model, const std::string& where);

    /// Appends the tokens of one pre-token. O(n log n).
    /// A byte that the vocabulary does not have becomes the unknown token, or nothing without one.
    void encode(std::string_view word, std::vector<WordToken>& out) const;

    Index size() const { return Index(m_count); }       ///< entries of the vocabulary
    std::int32_t idOf(const std::string& token) const;  ///< -1 when not in the vocabulary
    /// nullptr when no token has the id.
    const std::string* token(std::int32_t id) const;

private:
    std::unordered_map<std::string, std::int32_t> m_vocab;  ///< as spelled in the file
    std::unordered_map<std::string, std::int32_t> m_whole;  ///< by raw bytes, for ignore_merges
    std::vector<std::string> m_tokens;
    std::vector<bool> m_known;
    std::size_t m_count = 0;
    std::array<std::int32_t, 256> m_byte{};
    MergeTable m_merges;
    bool m_ignoreMerges = false, m_fuseUnknown = false;
    std::int32_t m_unknown = -1;
};

/// The printable character that stands for a byte in byte-level vocabularies, and back (-1: none).
char32_t byteToChar(unsigned char byte);
int charToByte(char32_t c);
/// The bytes that a token stands for; a token with any other character is its own UTF-8 text.
std::string tokenBytes(std::string_view token);

}  // namespace sparsight::text
