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

constexpr std::int32_t kMaxId = 1 << 28;  // ids index arrays: a hostile one must not size them

bool printable(unsigned b) {
    return (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
}

struct Alphabet {
    std::array<char32_t, 256> chars{};
    std::array<int, 512> bytes{};
    Alphabet() {
        bytes.fill(-1);
        char32_t next = 0x100;
        for (unsigned b = 0; b < 256; ++b) {
            chars[b] = printable(b) ? char32_t(b) : next++;
            bytes[chars[b]] = int(b);
        }
    }
};
const Alphabet kAlphabet;

/// A symbol of the word that is being merged; `length` 0 = swallowed by its left neighbour.
struct Symbol {
    std::int32_t id;
    std::int32_t previous, next;
    std::uint32_t length;
};

struct Candidate {
    std::int32_t rank, position, product;
    bool operator<(const Candidate& other) const {  // the queue's top is the largest
        return std::tie(rank, position) > std::tie(other.rank, other.position);
    }
};

bool isSet(const json& model, const char* key) {
    return model.contains(key) && !model[key].is_null() && model[key] != false &&
           model[key] != "" && model[key] != 0;
}

}  // namespace

char32_t byteToChar(unsigned char byte) {
    return kAlphabet.chars[byte];
}
int charToByte(char32_t c) {
    return c < 512 ? kAlphabet.bytes[c] : -1;
}

std::string tokenBytes(std::string_view token) {
    std::string out;
    for (std::size_t i = 0; i < token.size();) {
        const CodePoint p = codePointAt(token, i);
        const int b = charToByte(p.value);
        if (b < 0) return std::string(token);
        out += static_cast<char>(static_cast<unsigned char>(b));
        i += p.bytes;
    }
    return out;
}

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
    for (const char* option :
         {"byte_fallback", "continuing_subword_prefix", "end_of_word_suffix", "dropout"})
        if (isSet(model, option))
            throw Error(Errc::Unsupported,
                        where + ": BPE with " + option +
                            " is not supported (supported: byte-level BPE without it)");
    if (!model.contains("vocab") || !model["vocab"].is_object()) fail("has no object \"vocab\"");
    if (!model.contains("merges") || !model["merges"].is_array()) fail("has no list \"merges\"");
    Bpe bpe;
    std::int32_t top = -1;
    for (const auto& [token, id] : model["vocab"].items()) {
        if (!id.is_number_unsigned() || id.get<std::uint64_t>() > std::uint64_t(kMaxId))
            fail("the id of \"" + token + "\" is " + id.dump(-1, ' ', true).substr(0, 40) +
                 "; a whole number up to " + std::to_string(kMaxId) + " is expected");
        bpe.m_vocab.emplace(token, id.get<std::int32_t>());
        top = std::max(top, id.get<std::int32_t>());
    }
    if (std::size_t(top + 1) > 16 * (bpe.m_vocab.size() + 65536))
        fail("its ids reach " + std::to_string(top) + ", far beyond its " +
             std::to_string(bpe.m_vocab.size()) + " tokens");
    bpe.m_count = bpe.m_vocab.size();
    bpe.m_tokens.resize(std::size_t(top + 1));
    bpe.m_known.resize(std::size_t(top + 1));
    for (const auto& [token, id] : bpe.m_vocab) {
        bpe.m_tokens[std::size_t(id)] = token;
        bpe.m_known[std::size_t(id)] = true;
    }
    for (unsigned b = 0; b < 256; ++b) {
        std::string spelled;
        appendUtf8(spelled, byteToChar(static_cast<unsigned char>(b)));
        bpe.m_byte[b] = bpe.idOf(spelled);
    }
    bpe.m_ignoreMerges = isSet(model, "ignore_merges");
    bpe.m_fuseUnknown = isSet(model, "fuse_unk");
    if (isSet(model, "unk_token")) {
        if (!model["unk_token"].is_string()) fail("unk_token must be a string");
        bpe.m_unknown = bpe.idOf(model["unk_token"].get<std::string>());
    }
    if (bpe.m_ignoreMerges)
        for (const auto& [token, id] : bpe.m_vocab) {
            const std::string bytes = tokenBytes(token);
            std::string spelled;  // only tokens made of the alphabet can be a whole pre-token
            for (const char c : bytes)
                appendUtf8(spelled, byteToChar(static_cast<unsigned char>(c)));
            if (spelled == token) bpe.m_whole.emplace(bytes, id);
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
        const std::int32_t a = bpe.idOf(left), b = bpe.idOf(right), ab = bpe.idOf(left + right);
        if (a < 0 || b < 0 || ab < 0)
            fail("merge " + std::to_string(rank) + " (\"" + left + "\", \"" + right +
                 "\") uses or makes a token that is not in the vocabulary");
        bpe.m_merges.set(a, b, {rank++, ab});
    }
    return bpe;
}

std::int32_t Bpe::idOf(const std::string& token) const {
    const auto it = m_vocab.find(token);
    return it == m_vocab.end() ? -1 : it->second;
}

const std::string* Bpe::token(std::int32_t id) const {
    if (id < 0 || std::size_t(id) >= m_tokens.size() || !m_known[std::size_t(id)]) return nullptr;
    return &m_tokens[std::size_t(id)];
}

void Bpe::encode(std::string_view word, std::vector<WordToken>& out) const {
    if (m_ignoreMerges)
        if (const auto it = m_whole.find(std::string(word)); it != m_whole.end()) {
            out.push_back({it->second, std::uint32_t(word.size())});
            return;
        }
    std::vector<Symbol> symbols;
    symbols.reserve(word.size());
    bool lastUnknown = false;
    for (const char c : word) {
        std::int32_t id = m_byte[static_cast<unsigned char>(c)];
        const bool unknown = id < 0;
        if (unknown) id = m_unknown;
        if (unknown && (id < 0 || (m_fuseUnknown && lastUnknown))) {
            // Its bytes go to the neighbour, so that the later spans stay where they are.
            if (!symbols.empty()) ++symbols.back().length;
            continue;
        }
        lastUnknown = unknown;
        const auto n = std::int32_t(symbols.size());
        symbols.push_back({id, n - 1, n + 1, 1});
    }
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
    for (std::int32_t i = 0; i >= 0; i = symbols[std::size_t(i)].next)
        out.push_back({symbols[std::size_t(i)].id, symbols[std::size_t(i)].length});
}

}  // namespace sparsight::text
