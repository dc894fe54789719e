#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace sparsight::text {

/// A token that is cut out of the text before the model sees it.
struct AddedToken {
    std::int32_t id = -1;
    std::string content;
    std::string match;  ///< what is looked for: the content, normalised if `normalized`
    bool singleWord = false, lstrip = false, rstrip = false, normalized = false, special = false;
};

/// A piece of text between, or of, added tokens. `token` is an index into the list given to the
/// matcher, -1 for text between.
struct Cut {
    std::size_t begin = 0, end = 0;
    int token = -1;
};

/// Finds added tokens, leftmost first and longest at the same place.
class AddedTokenMatcher {
public:
    AddedTokenMatcher() = default;
    /// @param tokens  those with an empty `match` are skipped; must outlive nothing (copied)
    /// @param which   indexes of the tokens this matcher looks for
    AddedTokenMatcher(const std::vector<AddedToken>& tokens, const std::vector<int>& which);
    bool empty() const { return m_nodes.size() <= 1; }

    /// Cuts the text into tokens and the text between; no piece is empty. A token that stripped
    /// white space may overlap the next one.
    std::vector<Cut> cut(std::string_view text) const;

private:
    struct Node {
        int firstEdge = -1;
        int token = -1;
    };
    struct Edge {
        unsigned char byte;
        int node, nextEdge;
    };
    int child(int node, unsigned char byte) const;
    /// Longest token that begins at `at`; -1 none. `end` is set behind it.
    int longest(std::string_view text, std::size_t at, std::size_t& end) const;

    std::vector<AddedToken> m_tokens;
    std::vector<Node> m_nodes = std::vector<Node>(1);
    std::vector<Edge> m_edges;
    bool m_first[256] = {};  ///< bytes with which any token begins
};

}  // namespace sparsight::text
