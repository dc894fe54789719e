#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/model/tokenizer/regex.h"
#include "core/model/tokenizer/unicode.h"

namespace sparsight::text {

/// The character map of SentencePiece: a double-array trie from byte sequences to replacements.
class CharsMap {
public:
    /// @param bytes  u32 length of the trie in bytes, its u32 units, then NUL-terminated texts
    /// @throws Error(Format)
    CharsMap(std::string_view bytes, const std::string& where);

    /// The text as changed characters; `changed` tells whether any was. Per grapheme cluster: one
    /// shorter than 6 bytes is replaced whole by what its shortest prefix maps to, else each
    /// character is looked up alone.
    std::vector<Moving> apply(std::string_view text, bool& changed) const;

private:
    /// Where in m_texts the shortest prefix of `key` leads; -1: nowhere.
    std::int64_t find(std::string_view key) const;

    std::vector<std::uint32_t> m_units;
    std::string m_texts;
    Regex m_cluster;
};

/// @throws Error(Format)
std::string decodeBase64(std::string_view text, const std::string& where);
std::string encodeBase64(std::string_view bytes);

}  // namespace sparsight::text
