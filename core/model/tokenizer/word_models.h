#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "core/model/tokenizer/vocab.h"

namespace sparsight::text {

/// WordPiece: the longest piece that fits, from the left; a word with any part that fits nothing
/// is one unknown token.
class WordPiece {
public:
    /// @param model  the "model" object of tokenizer.json  @throws Error(Format)
    static WordPiece load(const nlohmann::json& model, const std::string& where);
    /// @throws Error(Format) when the unknown token is needed and not in the vocabulary
    void encode(std::string_view word, std::vector<WordToken>& out) const;
    const Vocab& vocab() const { return m_vocab; }

private:
    Vocab m_vocab;
    std::string m_unknown, m_prefix;
    std::size_t m_maxChars = 100;
    std::size_t m_longest = 0;  ///< bytes of the longest token
};

/// WordLevel: a word is a token, or the unknown one.
class WordLevel {
public:
    static WordLevel load(const nlohmann::json& model, const std::string& where);
    void encode(std::string_view word, std::vector<WordToken>& out) const;
    const Vocab& vocab() const { return m_vocab; }

private:
    Vocab m_vocab;
    std::string m_unknown;
};

}  // namespace sparsight::text
