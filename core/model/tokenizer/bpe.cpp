#include "core/model/tokenizer/bpe.h"

#include <algorithm>
#include <bit>
#include <nlohmann/json.hpp>
#include <queue>

#include "core/model/tokenizer/unicode.h"
#include "kernels/base/error.h"

namespace sparsight::text {
namespace {

using nlohmann::json;

struct Candidate {
    std::int32_t rank, position, product;
    bool operator<(const Candidate& other) const {  // the queue's top is the largest
        return std::tie(rank, position) > std::tie(other.rank, other.position);
    }
};

std::string stringOption(const json& model, const char* key, const std::string& where) {
    if (!model.contains(key) || model[key].is_null()) return {};
    if (!model[key].is_string())
        throw Error(Errc::Format, where + ": model: " + key + " must be a string or null");
    return model[key].get<std::string>();
}

bool flagOption(const json& model, const char* key, const std::string& where) {
    if (!model.contains(key) || model[key].is_null()) return false;
    if (!model[key].is_boolean())
        throw Error(Errc::Format, where + ": model: " + key + " must be true or false");
    return model[key].get<bool>();
}

}  // namespace

/// A symbol of the word that is being merged; `length` 0 = swallowed by its left neighbour.
struct Bpe::Symbol {
    std::int32_t id;
    std::int32_t previous, next;
    std::uint32_t length;
};

MergeTable::MergeTable(std::size_t expected) : m_slots(std::bit_ceil(2 * expected + 2)) {}

std::size_t MergeTable::slotOf(std::uint64_t key) const {
    const std::size_t mask = m_slots.size() - 1;
    std::uint64_t h = key * 0x9e3779b97f4a7c15ull;
    std::size_t i = std::size_t(h ^ (h >> 32)) & mask;
    while (m_slots[i].key != key && m_slots[i].key != kEmpty) i = (i + 1) & mask;
    return i;
}

void MergeTable::set(std::int32_t left, std::int32_t right, Merge merge) {
    const std::uint64_t key = std::uint64_t(std::uint32_t(left)) << 32 | std::uint32_t(right);
    m_slots[slotOf(key)] = {key, merge};
}

const MergeTable::Merge* MergeTable::find(std::int32_t left, std::int32_t right) const {
    const Slot& s =
        m_slots[slotOf(std::uint64_t(std::uint32_t(left)) << 32 | std::uint32_t(right))];
    return s.key == kEmpty ? nullptr : &s.merge;
}

Bpe Bpe::load(const json& model, const std::string& where) {
    const auto fail = [&](const std::string& rule) -> void {
        throw Error(Errc::Format, where + ": model: " + rule);
    };
    if (model.contains("dropout") && !model["dropout"].is_null() && model["dropout"] != 0)
        throw Error(Errc::Unsupported,
                    where + ": BPE with dropout gives other tokens each time; set it to null");
    if (!model.contains("vocab")) fail("has no object \"vocab\"");
    const bool byRank = model.contains("merges") && model["merges"] == kMergesByRank;
    if (!model.contains("merges") || !(byRank || model["merges"].is_array()))
        fail("has no list \"merges\"");
    Bpe bpe;
    bpe.m_vocab = Vocab::fromObject(model["vocab"], where + ": model");
    bpe.m_prefix = stringOption(model, "continuing_subword_prefix", where);
    bpe.m_suffix = stringOption(model, "end_of_word_suffix", where);
    bpe.m_unknown = stringOption(model, "unk_token", where);
    bpe.m_ignoreMerges = flagOption(model, "ignore_merges", where);
    bpe.m_fuseUnknown = flagOption(model, "fuse_unk", where);
    bpe.m_byteFallback = flagOption(model, "byte_fallback", where);
    bpe.m_fallback = byteTokens(bpe.m_vocab);
    bpe.m_allBytes = bpe.m_prefix.empty() && bpe.m_suffix.empty();
    for (unsigned b = 0; b < 256; ++b) {
        const char byte = static_cast<char>(static_cast<unsigned char>(b));
        bpe.m_byte[b] = bpe.m_vocab.idOf(spellBytes({&byte, 1}));
        bpe.m_allBytes = bpe.m_allBytes && bpe.m_byte[b] >= 0;
    }
    if (bpe.m_ignoreMerges)
        for (std::int32_t id = 0; id < bpe.m_vocab.ids(); ++id)
            if (const std::string* token = bpe.m_vocab.token(id)) {
                const std::string bytes = tokenBytes(*token);
                // Only tokens made of the alphabet can be a whole pre-token.
                if (spellBytes(bytes) == *token) bpe.m_whole.emplace(bytes, id);
            }

    if (byRank) {
        bpe.mergeByRank();
        return bpe;
    }
    const json& merges = model["merges"];
    bpe.m_merges = MergeTable(merges.size());
    std::int32_t rank = 0;
    for (const json& merge : merges) {
        std::string left, right;
        if (merge.is_string()) {  // the old spelling: "a b"
            const auto& line = merge.get_ref<const std::string&>();
            if (line.starts_with("#version")) continue;
            const std::size_t space = line.find(' ');
            if (space == std::string::npos || line.find(' ', space + 1) != std::string::npos)
                fail("merge " + std::to_string(rank) + " is not two tokens with a space between");
            left = line.substr(0, space);
            right = line.substr(space + 1);
        } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() &&
                   merge[1].is_string()) {
            left = merge[0].get<std::string>();
            right = merge[1].get<std::string>();
        } else {
            fail("merge " + std::to_string(rank) + " is neither \"a b\" nor [\"a\", \"b\"]");
        }
        const std::int32_t a = bpe.m_vocab.idOf(left), b = bpe.m_vocab.idOf(right);
        // The right part begins with the prefix of continuing pieces, the product does not keep it.
        const std::int32_t ab = right.size() < bpe.m_prefix.size()
                                    ? -1
                                    : bpe.m_vocab.idOf(left + right.substr(bpe.m_prefix.size()));
        if (a < 0 || b < 0 || ab < 0)
            fail("merge " + std::to_string(rank) + " (\"" + left + "\", \"" + right +
                 "\") uses or makes a token that is not in the vocabulary");
        bpe.m_merges.set(a, b, {rank++, ab});
    }
    return bpe;
}

void Bpe::mergeByRank() {
    struct Pair {
        std::int32_t left, right, product;
    };
    std::vector<Pair> pairs;
    for (std::int32_t id = 0; id < m_vocab.ids(); ++id) {
        const std::string* token = m_vocab.token(id);
        if (token == nullptr) continue;
        for (std::size_t at = 0; at < token->size();) {
            at += codePointAt(*token, at).bytes;
            const std::string_view left = std::string_view(*token).substr(0, at),
                                   right = std::string_view(*token).substr(at);
            const std::int32_t a = m_vocab.idOf(left), b = m_vocab.idOf(right);
            if (a >= 0 && b >= 0) pairs.push_back({a, b, id});
        }
    }
    m_merges = MergeTable(pairs.size());
    for (const Pair& p : pairs) m_merges.set(p.left, p.right, {p.product, p.product});
}

void Bpe::encodeBytes(std::string_view word, std::vector<WordToken>& out) const {
    if (m_ignoreMerges)
        if (const auto it = m_whole.find(word); it != m_whole.end()) {
            out.push_back({it->second, 0, std::uint32_t(word.size())});
            return;
        }
    std::vector<Symbol> symbols;
    symbols.reserve(word.size());
    for (const char c : word) {
        const auto n = std::int32_t(symbols.size());
        symbols.push_back({m_byte[static_cast<unsigned char>(c)], n - 1, n + 1, 1});
    }
    merge(symbols, out);
}

void Bpe::encode(std::string_view word, std::vector<WordToken>& out) const {
    if (word.empty()) return;
    if (m_ignoreMerges)
        if (const std::int32_t id = m_vocab.idOf(word); id >= 0) {
            out.push_back({id, 0, std::uint32_t(word.size())});
            return;
        }
    std::vector<Symbol> symbols;
    symbols.reserve(word.size());
    const auto add = [&](std::int32_t id, std::uint32_t length) {
        const auto n = std::int32_t(symbols.size());
        symbols.push_back({id, n - 1, n + 1, length});
    };
    std::int32_t unknownId = -1;
    std::uint32_t unknown = 0;  // length of the unknown run that is not yet added
    std::string spelled;
    for (std::size_t i = 0; i < word.size();) {
        const auto bytes = std::uint32_t(codePointAt(word, i).bytes);
        spelled.assign(i > 0 ? m_prefix : std::string());
        spelled.append(word, i, bytes);
        i += bytes;
        if (i == word.size()) spelled += m_suffix;
        if (const std::int32_t id = m_vocab.idOf(spelled); id >= 0) {
            if (unknown > 0) add(unknownId, unknown);
            unknown = 0;
            add(id, bytes);
            continue;
        }
        const auto fallback = [&](char c) { return m_fallback[static_cast<unsigned char>(c)]; };
        if (m_byteFallback &&
            std::all_of(spelled.begin(), spelled.end(), [&](char c) { return fallback(c) >= 0; })) {
            // A waiting unknown run stays behind these bytes: so it is in the library.
            for (const char c : spelled) add(fallback(c), 1);
            continue;
        }
        if (m_unknown.empty()) continue;
        unknownId = m_vocab.idOf(m_unknown);
        if (unknownId < 0)
            throw Error(Errc::Format, "the tokenizer has no token for \"" + spelled +
                                          "\", and its unknown token \"" + m_unknown +
                                          "\" is not in its vocabulary");
        if (unknown > 0 && !m_fuseUnknown) add(unknownId, unknown);
        unknown = bytes + (m_fuseUnknown ? unknown : 0);
    }
    if (unknown > 0) add(unknownId, unknown);
    merge(symbols, out);
}

void Bpe::merge(std::vector<Symbol>& symbols, std::vector<WordToken>& out) const {
    if (symbols.empty()) return;
    symbols.back().next = -1;
    std::priority_queue<Candidate> queue;
    const auto consider = [&](std::int32_t left) {
        if (left < 0) return;
        const Symbol& s = symbols[std::size_t(left)];
        if (s.next < 0) return;
        if (const auto* m = m_merges.find(s.id, symbols[std::size_t(s.next)].id))
            queue.push({m->rank, left, m->product});
    };
    for (std::int32_t i = 0; i + 1 < std::int32_t(symbols.size()); ++i) consider(i);
    while (!queue.empty()) {
        const Candidate top = queue.top();
        queue.pop();
        Symbol& left = symbols[std::size_t(top.position)];
        if (left.length == 0 || left.next < 0) continue;
        Symbol& right = symbols[std::size_t(left.next)];
        // Entries are not removed when a neighbour changes: a stale one makes something else.
        const auto* now = m_merges.find(left.id, right.id);
        if (now == nullptr || now->product != top.product) continue;
        left.id = top.product;
        left.length += right.length;
        right.length = 0;
        left.next = right.next;
        if (left.next >= 0) symbols[std::size_t(left.next)].previous = top.position;
        consider(left.previous);
        consider(top.position);
    }
    std::uint32_t at = 0;
    for (std::int32_t i = 0; i >= 0; i = symbols[std::size_t(i)].next) {
        const Symbol& s = symbols[std::size_t(i)];
        out.push_back({s.id, at, at + s.length});
        at += s.length;
    }
}

}  // namespace sparsight::text
