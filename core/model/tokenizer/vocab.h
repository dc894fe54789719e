#pragma once

#include <cstdint>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "kernels/base/view.h"

namespace sparsight::text {

struct StringHash {
    using is_transparent = void;
    std::size_t operator()(std::string_view s) const { return std::hash<std::string_view>{}(s); }
};

/// Tokens and their ids, both ways. Movable, not copyable.
class Vocab {
public:
    Vocab() = default;
    Vocab(Vocab&&) = default;
    Vocab& operator=(Vocab&&) = default;
    Vocab(const Vocab&) = delete;
    Vocab& operator=(const Vocab&) = delete;

    /// From {"token": id}. @param where  for messages  @throws Error(Format) on ids that are no ids
    static Vocab fromObject(const nlohmann::json& object, const std::string& where);
    /// From the tokens in order. Of equal ones the last gives its id, all keep their names.
    static Vocab fromList(const std::vector<std::string>& tokens);

    Index size() const { return m_size; }
    std::int32_t idOf(std::string_view token) const;  ///< -1 when not in the vocabulary
    const std::string* token(std::int32_t id) const;  ///< nullptr when no token has the id
    std::int32_t ids() const { return std::int32_t(m_tokens.size()); }  ///< largest id + 1

private:
    using Map = std::unordered_map<std::string, std::int32_t, StringHash, std::equal_to<>>;
    Map m_ids;
    std::vector<const std::string*> m_tokens;  ///< the map's keys
    Index m_size = 0;
};

/// One token of a word: its id and the bytes of the word that it stands for. `surface`: it is
/// shown as those bytes, not as the vocabulary spells it (unknown pieces of Unigram).
struct WordToken {
    std::int32_t id = -1;
    std::uint32_t begin = 0, end = 0;
    bool surface = false;
};

/// The token "<0xAB>" of a byte.
std::string byteToken(unsigned char byte);
/// The ids of all "<0xAB>", -1 where the vocabulary lacks one.
std::vector<std::int32_t> byteTokens(const Vocab& vocab);

}  // namespace sparsight::text
