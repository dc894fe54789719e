#include "core/model/tokenizer/added_tokens.h"

#include <algorithm>

#include "core/model/tokenizer/unicode.h"

namespace sparsight::text {
namespace {

/// Where the white space at the end of `text` begins.
std::size_t spaceAtEnd(std::string_view text) {
    while (!text.empty()) {
        const CodePoint p = lastCodePoint(text);
        if (!isWhiteSpace(p.value)) break;
        text.remove_suffix(p.bytes);
    }
    return text.size();
}

/// How many bytes of white space `text` begins with.
std::size_t spaceAtStart(std::string_view text) {
    std::size_t n = 0;
    while (n < text.size()) {
        const CodePoint p = codePointAt(text, n);
        if (!isWhiteSpace(p.value)) break;
        n += p.bytes;
    }
    return n;
}

}  // namespace

AddedTokenMatcher::AddedTokenMatcher(const std::vector<AddedToken>& tokens,
                                     const std::vector<int>& which)
    : m_tokens(tokens) {
    for (const int t : which) {
        const std::string& match = tokens[std::size_t(t)].match;
        if (match.empty()) continue;
        m_first[static_cast<unsigned char>(match[0])] = true;
        int node = 0;
        for (const char c : match) {
            const auto byte = static_cast<unsigned char>(c);
            int next = child(node, byte);
            if (next < 0) {
                next = int(m_nodes.size());
                m_nodes.push_back({});
                m_edges.push_back({byte, next, m_nodes[std::size_t(node)].firstEdge});
                m_nodes[std::size_t(node)].firstEdge = int(m_edges.size()) - 1;
            }
            node = next;
        }
        if (m_nodes[std::size_t(node)].token < 0) m_nodes[std::size_t(node)].token = t;
    }
}

int AddedTokenMatcher::child(int node, unsigned char byte) const {
    for (int e = m_nodes[std::size_t(node)].firstEdge; e >= 0; e = m_edges[std::size_t(e)].nextEdge)
        if (m_edges[std::size_t(e)].byte == byte) return m_edges[std::size_t(e)].node;
    return -1;
}

int AddedTokenMatcher::longest(std::string_view text, std::size_t at, std::size_t& end) const {
    int found = -1;
    for (int node = 0; at < text.size();) {
        node = child(node, static_cast<unsigned char>(text[at++]));
        if (node < 0) break;
        if (m_nodes[std::size_t(node)].token >= 0) {
            found = m_nodes[std::size_t(node)].token;
            end = at;
        }
    }
    return found;
}

std::vector<Cut> AddedTokenMatcher::cut(std::string_view text) const {
    std::vector<Cut> cuts;
    std::size_t done = 0;  // everything before is in `cuts`
    for (std::size_t at = 0; !empty() && at < text.size();) {
        std::size_t stop = 0;
        const int t = m_first[static_cast<unsigned char>(text[at])] ? longest(text, at, stop) : -1;
        if (t < 0) {
            ++at;
            continue;
        }
        const AddedToken& token = m_tokens[std::size_t(t)];
        std::size_t start = at;
        at = stop;  // a discarded match is not searched again from within
        if (token.singleWord &&
            ((start > 0 && isWord(lastCodePoint(text.substr(0, start)).value)) ||
             (stop < text.size() && isWord(codePointAt(text, stop).value))))
            continue;
        // The token before may have taken the white space already. Tokens made of white space can
        // overlap what it took: the library cuts them all the same.
        if (token.lstrip) start = std::max(spaceAtEnd(text.substr(0, start)), done);
        if (token.rstrip) stop += spaceAtStart(text.substr(stop));
        if (stop <= start) continue;
        if (done < start) cuts.push_back({done, start, -1});
        cuts.push_back({start, stop, t});
        done = stop;
    }
    if (done < text.size()) cuts.push_back({done, text.size(), -1});
    return cuts;
}

}  // namespace sparsight::text
