#include "core/model/tokenizer/unigram.h"

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <numeric>

#include "core/model/tokenizer/unicode.h"
#include "kernels/base/error.h"

namespace sparsight::text {

using nlohmann::json;

Unigram Unigram::load(const json& model, const std::string& where) {
    const auto fail = [&](const std::string& rule) -> void {
        throw Error(Errc::Format, where + ": model: " + rule);
    };
    if (!model.contains("vocab") || !model["vocab"].is_array())
        fail("Unigram has no list \"vocab\"");
    if (model["vocab"].empty()) fail("its vocabulary is empty");
    Unigram u;
    std::vector<std::string> tokens;
    double lowest = std::numeric_limits<double>::infinity();
    for (const json& entry : model["vocab"]) {
        if (!entry.is_array() || entry.size() != 2 || !entry[0].is_string() ||
            !entry[1].is_number())
            fail("entry " + std::to_string(tokens.size()) +
                 " of the vocabulary is not [\"piece\", log probability]");
        tokens.push_back(entry[0].get<std::string>());
        u.m_scores.push_back(entry[1].get<double>());
        lowest = std::min(lowest, u.m_scores.back());
    }
    if (model.contains("unk_id") && !model["unk_id"].is_null()) {
        const json& id = model["unk_id"];
        if (!id.is_number_unsigned() || id.get<std::uint64_t>() >= tokens.size())
            fail("unk_id is not an index into the " + std::to_string(tokens.size()) + " pieces");
        u.m_unknown = id.get<std::int32_t>();
    }
    if (model.contains("byte_fallback") && !model["byte_fallback"].is_null()) {
        if (!model["byte_fallback"].is_boolean()) fail("byte_fallback must be true or false");
        u.m_byteFallback = model["byte_fallback"].get<bool>();
    }
    u.m_vocab = Vocab::fromList(tokens);
    u.m_byteIds = byteTokens(u.m_vocab);
    u.m_unknownScore = lowest - 10;
    u.buildTrie(tokens);
    return u;
}

void Unigram::buildTrie(const std::vector<std::string>& tokens) {
    std::vector<std::uint32_t> order(tokens.size());
    std::iota(order.begin(), order.end(), 0u);
    std::sort(order.begin(), order.end(),
              [&](std::uint32_t a, std::uint32_t b) { return tokens[a] < tokens[b]; });
    /// Tokens [begin, end) of `order` share the `depth` bytes that lead to `node`.
    struct Group {
        std::size_t begin, end, depth;
        std::uint32_t node;
    };
    m_nodes.assign(1, {});
    std::vector<Group> groups{{0, order.size(), 0, 0}};
    for (std::size_t g = 0; g < groups.size(); ++g) {  // breadth first: siblings end up adjacent
        const Group group = groups[g];
        std::size_t at = group.begin;
        while (at < group.end && tokens[order[at]].size() == group.depth) {
            if (group.depth > 0) m_nodes[group.node].id = m_vocab.idOf(tokens[order[at]]);
            ++at;
        }
        m_nodes[group.node].firstChild = std::uint32_t(m_nodes.size());
        while (at < group.end) {
            const char byte = tokens[order[at]][group.depth];
            std::size_t stop = at;
            while (stop < group.end && tokens[order[stop]][group.depth] == byte) ++stop;
            groups.push_back({at, stop, group.depth + 1, std::uint32_t(m_nodes.size())});
            Node node;
            node.byte = static_cast<unsigned char>(byte);
            m_nodes.push_back(node);
            ++m_nodes[group.node].children;
            at = stop;
        }
    }
}

const Unigram::Node* Unigram::child(const Node& node, unsigned char byte) const {
    const Node* first = m_nodes.data() + node.firstChild;
    const Node* last = first + node.children;
    const Node* found = std::lower_bound(first, last, byte,
                                         [](const Node& n, unsigned char b) { return n.byte < b; });
    return found == last || found->byte != byte ? nullptr : found;
}

void Unigram::encode(std::string_view word, std::vector<WordToken>& out) const {
    struct Best {  // of the paths that end at a byte
        double score = 0;
        std::int64_t start = -1;
        std::int32_t id = -1;
    };
    std::vector<Best> best(word.size() + 1);
    const auto offer = [&](std::size_t end, std::size_t start, double score, std::int32_t id) {
        Best& b = best[end];
        if (b.start < 0 || score > b.score) b = {score, std::int64_t(start), id};
    };
    for (std::size_t at = 0; at < word.size();) {
        const std::size_t bytes = codePointAt(word, at).bytes;
        const double here = best[at].score;
        bool single = false;  // some piece is just this character
        const Node* node = m_nodes.data();
        for (std::size_t end = at; end < word.size();) {
            node = child(*node, static_cast<unsigned char>(word[end++]));
            if (node == nullptr) break;
            if (node->id < 0) continue;
            offer(end, at, here + m_scores[std::size_t(node->id)], node->id);
            single = single || end - at == bytes;
        }
        if (!single) {
            if (m_unknown < 0)
                throw Error(Errc::Format, "the tokenizer has no token for \"" +
                                              std::string(word.substr(at, bytes)) +
                                              "\" and no unknown token");
            offer(at + bytes, at, here + m_unknownScore, m_unknown);
        }
        at += bytes;
    }

    std::vector<WordToken> pieces;  // from the back
    for (std::size_t end = word.size(); end > 0;) {
        const Best& b = best[end];
        const auto start = std::uint32_t(b.start);
        const bool unknown = b.id == m_unknown;
        if (unknown && !pieces.empty() && pieces.back().surface)
            pieces.back().begin = start;
        else
            pieces.push_back({b.id, start, std::uint32_t(end), unknown});
        end = start;
    }
    for (auto p = pieces.rbegin(); p != pieces.rend(); ++p) {
        if (!p->surface) {
            out.push_back(*p);
            continue;
        }
        // A run of unknown characters may spell a token after all.
        const std::string_view run = word.substr(p->begin, p->end - p->begin);
        const auto byteId = [&](char c) { return m_byteIds[static_cast<unsigned char>(c)]; };
        if (const std::int32_t id = m_vocab.idOf(run); id >= 0) {
            out.push_back({id, p->begin, p->end});
        } else if (m_byteFallback &&
                   std::all_of(run.begin(), run.end(), [&](char c) { return byteId(c) >= 0; })) {
            for (const char c : run) out.push_back({byteId(c), p->begin, p->end});
        } else {
            out.push_back(*p);
        }
    }
}

}  // namespace sparsight::text
