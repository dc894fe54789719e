#include "core/model/tokenizer.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <unordered_map>
#include <unordered_set>

#include "core/model/json_input.h"
#include "core/model/tokenizer/stages.h"
#include "kernels/base/error.h"

namespace sparsight {
namespace {

constexpr std::size_t kMaxFile = 256u << 20;
constexpr std::size_t kMaxText = 1u << 30;  // PCRE2 and ICU count in 32 bits

/// Code point number of every byte, and back.
class CharMap {
public:
    explicit CharMap(std::string_view utf8) : m_charOf(utf8.size()) {
        for (std::size_t i = 0; i < utf8.size();) {
            const std::size_t n = text::codePointAt(utf8, i).bytes;
            for (std::size_t k = 0; k < n; ++k) m_charOf[i + k] = std::uint32_t(m_byteOf.size());
            m_byteOf.push_back(std::uint32_t(i));
            i += n;
        }
        m_byteOf.push_back(std::uint32_t(utf8.size()));
    }
    TokenOffset offset(Index byteBegin, Index byteEnd) const {
        if (byteBegin >= byteEnd) return {};
        return {Index(m_charOf[std::size_t(byteBegin)]),
                Index(m_charOf[std::size_t(byteEnd - 1)]) + 1, 0, 0};
    }
    void fillBytes(TokenOffset& o) const {
        o.byteBegin = Index(m_byteOf[std::size_t(o.begin)]);
        o.byteEnd = Index(m_byteOf[std::size_t(o.end)]);
    }

private:
    std::vector<std::uint32_t> m_charOf, m_byteOf;
};

/// Words of a text repeat: each is merged once.
class WordCache {
public:
    std::pair<const text::WordToken*, std::size_t> tokens(const text::Bpe& model,
                                                          std::string_view word) {
        const auto [it, isNew] = m_words.try_emplace(word);
        if (isNew) {
            it->second.first = m_tokens.size();
            model.encode(word, m_tokens);
            it->second.second = m_tokens.size() - it->second.first;
        }
        return {m_tokens.data() + it->second.first, it->second.second};
    }

private:
    std::unordered_map<std::string_view, std::pair<std::size_t, std::size_t>> m_words;
    std::vector<text::WordToken> m_tokens;
};

void push(Encoding& e, std::int32_t id, std::string token, const TokenOffset& offset,
          std::uint8_t typeId) {
    e.ids.push_back(id);
    e.tokens.push_back(std::move(token));
    e.offsets.push_back(offset);
    e.special.push_back(0);
    e.typeIds.push_back(typeId);
}

/// Original bytes that bytes [begin, end) of a chunk stand for.
text::Span spanOf(const text::Chunk& c, std::size_t begin, std::size_t end) {
    if (c.spans == nullptr) return {c.origin + Index(begin), c.origin + Index(end)};
    return {c.spans[begin].begin, c.spans[end - 1].end};
}

/// One text up to the post-processors. Byte offsets are not filled yet.
Encoding encodeText(const Tokenizer::Impl& t, std::string_view original, const CharMap& map,
                    std::uint8_t typeId) {
    using namespace text;
    Encoding e;
    Arena arena;
    std::vector<Chunk> chunks;  // of ordinary text, waiting for the pre-tokenizers
    WordCache cache;
    const auto flush = [&] {
        for (const PreTokenizer& stage : t.preTokenizers)
            chunks = preTokenize(stage, chunks, arena);
        for (const Chunk& word : chunks) {
            const auto [tokens, count] = cache.tokens(t.model, word.text);
            std::size_t at = 0;
            for (std::size_t i = 0; i < count; ++i) {
                const Span s = spanOf(word, at, at + tokens[i].bytes);
                const std::string* spelled = t.model.token(tokens[i].id);
                push(e, tokens[i].id, spelled == nullptr ? std::string() : *spelled,
                     map.offset(s.begin, s.end), typeId);
                at += tokens[i].bytes;
            }
        }
        chunks.clear();
    };
    const auto pushAdded = [&](const AddedToken& token, const Chunk& c) {
        flush();
        const Span s = spanOf(c, 0, c.text.size());
        push(e, token.id, std::string(c.text), map.offset(s.begin, s.end), typeId);
    };

    const Chunk whole{original, 0, nullptr};
    for (const Cut& cut : t.rawMatcher.cut(original)) {
        Chunk piece = whole.slice(cut.begin, cut.end);
        if (cut.token >= 0) {
            pushAdded(t.added[std::size_t(cut.token)], piece);
            continue;
        }
        for (const Form form : t.normalizers) {
            if (isNormalized(form, piece.text)) continue;
            std::vector<Span> spans(piece.text.size());
            if (piece.spans != nullptr) {
                std::copy(piece.spans, piece.spans + spans.size(), spans.begin());
            } else {
                for (std::size_t i = 0; i < spans.size();) {
                    const std::size_t n = codePointAt(piece.text, i).bytes;
                    const Index at = piece.origin + Index(i);
                    std::fill_n(spans.begin() + std::ptrdiff_t(i), n, Span{at, at + Index(n)});
                    i += n;
                }
            }
            const Normalized& made = arena.emplace_back(normalize(form, piece.text, spans));
            piece = {made.text, 0, made.spans.data()};
        }
        for (const Cut& inner : t.normalizedMatcher.cut(piece.text)) {
            const Chunk part = piece.slice(inner.begin, inner.end);
            if (inner.token >= 0)
                pushAdded(t.added[std::size_t(inner.token)], part);
            else
                chunks.push_back(part);
        }
    }
    flush();
    return e;
}

void checkText(std::string_view text) {
    if (text.size() > kMaxText)
        throw Error(Errc::Resources, "a text of " + std::to_string(text.size()) +
                                         " bytes is more than the tokenizer takes (" +
                                         std::to_string(kMaxText) + "): cut it");
    const std::size_t bad = text::firstInvalidUtf8(text);
    if (bad != std::string_view::npos)
        throw Error(Errc::Format, "the text is not UTF-8: byte " + std::to_string(bad) +
                                      " begins no valid character");
}

/// Post-processing. The stages see offsets in code points, and in byteBegin the number of the text
/// that they count in; here they become bytes.
Encoding finish(const Tokenizer::Impl& t, std::vector<Encoding> texts,
                std::span<const CharMap> maps, bool addSpecial) {
    for (const text::PostProcessor& stage : t.postProcessors)
        text::postProcess(stage, texts, addSpecial);
    Encoding out = std::move(texts.empty() ? Encoding() : texts.front());
    for (std::size_t i = 1; i < texts.size(); ++i) {
        const auto append = [](auto& a, const auto& b) { a.insert(a.end(), b.begin(), b.end()); };
        append(out.ids, texts[i].ids);
        append(out.tokens, texts[i].tokens);
        append(out.offsets, texts[i].offsets);
        append(out.special, texts[i].special);
        append(out.typeIds, texts[i].typeIds);
    }
    for (TokenOffset& o : out.offsets) maps[std::size_t(o.byteBegin)].fillBytes(o);
    return out;
}

}  // namespace

const text::AddedToken* Tokenizer::Impl::addedById(std::int32_t id) const {
    const auto it = addedIndex.find(id);
    return it == addedIndex.end() ? nullptr : &added[it->second];
}

std::shared_ptr<const Tokenizer> Tokenizer::load(const std::filesystem::path& path) {
    const auto file = std::filesystem::is_directory(path) ? path / "tokenizer.json" : path;
    const std::string where = file.string();
    return std::make_shared<Tokenizer>(
        loadTokenizer(parseJson(readTextFile(file, kMaxFile), where), where));
}

Encoding Tokenizer::encode(std::string_view text, bool addSpecial) const {
    checkText(text);
    const CharMap map(text);
    std::vector<Encoding> texts;
    texts.push_back(encodeText(*m_impl, text, map, 0));
    return finish(*m_impl, std::move(texts), {&map, 1}, addSpecial);
}

Encoding Tokenizer::encodePair(std::string_view a, std::string_view b, bool addSpecial) const {
    checkText(a);
    checkText(b);
    const CharMap maps[] = {CharMap(a), CharMap(b)};
    std::vector<Encoding> texts;
    texts.push_back(encodeText(*m_impl, a, maps[0], 0));
    texts.push_back(encodeText(*m_impl, b, maps[1], 1));
    for (TokenOffset& o : texts[1].offsets) o.byteBegin = 1;
    return finish(*m_impl, std::move(texts), maps, addSpecial);
}

std::string Tokenizer::decode(std::span<const std::int32_t> ids, bool skipSpecial) const {
    std::string bytes;
    bool first = true;
    for (const std::int32_t id : ids) {
        const text::AddedToken* added = m_impl->addedById(id);
        if (added != nullptr && added->special && skipSpecial) continue;
        const std::string* token = added != nullptr ? &added->match : m_impl->model.token(id);
        if (token == nullptr) continue;  // no such token: the library drops it, too
        if (m_impl->byteLevelDecoder)
            bytes += text::tokenBytes(*token);
        else
            bytes += (first ? "" : " ") + *token;
        first = false;
    }
    return m_impl->byteLevelDecoder ? text::lossyUtf8(bytes) : bytes;
}

std::string Tokenizer::tokenText(std::int32_t id) const {
    return decode({&id, 1}, false);
}

Index Tokenizer::vocabSize() const {
    Index n = m_impl->model.size();
    for (const text::AddedToken& a : m_impl->added)
        if (m_impl->model.idOf(a.content) < 0) ++n;
    return n;
}

std::string Tokenizer::summary() const {
    return "byte-level BPE, " + std::to_string(vocabSize()) + " tokens";
}

}  // namespace sparsight
