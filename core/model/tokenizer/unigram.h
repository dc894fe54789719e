#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "core/model/tokenizer/vocab.h"

namespace sparsight::text {

/// Unigram language model: the pieces of a word are those with the largest sum of log
/// probabilities (Viterbi over bytes, in double; on ties the longer piece that began earlier).
class Unigram {
public:
    /// @param model  the "model" object of tokenizer.json  @throws Error(Format)
    static Unigram load(const nlohmann::json& model, const std::string& where);

    /// Appends the pieces of one pre-token. Neighbouring unknown characters are one piece.
    /// @throws Error(Format) when a character is unknown and the model has no unknown token
    void encode(std::string_view word, std::vector<WordToken>& out) const;

    const Vocab& vocab() const { return m_vocab; }

private:
    struct Node {  // children lie side by side, sorted by byte
        std::uint32_t firstChild = 0;
        std::uint16_t children = 0;
        unsigned char byte = 0;
        std::int32_t id = -1;
    };
    void buildTrie(const std::vector<std::string>& tokens);
    const Node* child(const Node& node, unsigned char byte) const;

    Vocab m_vocab;
    std::vector<double> m_scores;
    std::vector<Node> m_nodes;
    std::vector<std::int32_t> m_byteIds;
    double m_unknownScore = 0;
    std::int32_t m_unknown = -1;
    bool m_byteFallback = false;
};

}  // namespace sparsight::text
