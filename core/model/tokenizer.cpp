#include "core/model/tokenizer.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <unordered_map>
#include <unordered_set>

#include "core/model/json_input.h"
#include "core/model/tokenizer/sentencepiece.h"
#include "core/model/tokenizer/stages.h"
#include "core/model/tokenizer/tiktoken.h"
#include "kernels/base/error.h"

namespace sparsight {
namespace {

constexpr std::size_t kMaxFile = 256u << 20;
constexpr std::size_t kMaxText = 1u << 30;  // PCRE2 and ICU count in 32 bits

/// Code point number of every byte, and back.
class CharMap {
public:
    explicit CharMap(std::string_view utf8) : m_size(utf8.size()) {
        const std::size_t count = text::countCodePoints(utf8);
        if (count == m_size) return;  // each byte is a character
        m_charOf.resize(m_size);
        m_byteOf.reserve(count + 1);
        for (std::size_t i = 0; i < m_size;) {
            const std::size_t n = text::codePointAt(utf8, i).bytes;
            for (std::size_t k = 0; k < n; ++k) m_charOf[i + k] = std::uint32_t(m_byteOf.size());
            m_byteOf.push_back(std::uint32_t(i));
            i += n;
        }
        m_byteOf.push_back(std::uint32_t(m_size));
    }
    /// In characters; a range that begins outside of the text stays as it is, as in the library.
    TokenOffset offset(Index byteBegin, Index byteEnd) const {
        const auto size = Index(m_size);
        if (byteBegin >= size) return {byteBegin, byteEnd, 0, 0};
        const Index begin = charOf(byteBegin);
        if (byteEnd < size) return {begin, charOf(byteEnd), 0, 0};
        return {begin, (byteEnd - 1 < size ? charOf(byteEnd - 1) : begin + 1) + 1, 0, 0};
    }
    void fillBytes(TokenOffset& o) const {
        o.byteBegin = byteOf(o.begin);
        o.byteEnd = byteOf(o.end);
    }

private:
    Index charOf(Index byte) const {
        return m_charOf.empty() ? byte : Index(m_charOf[std::size_t(byte)]);
    }
    Index byteOf(Index c) const {
        if (m_charOf.empty()) return std::min(c, Index(m_size));
        return Index(m_byteOf[std::min(std::size_t(c), m_byteOf.size() - 1)]);
    }
    std::size_t m_size;
    std::vector<std::uint32_t> m_charOf, m_byteOf;
};

/// Words of a text repeat: each is cut into tokens once.
class WordCache {
public:
    explicit WordCache(const Tokenizer::Impl& t) : m_tokenizer(t) {}
    std::span<const text::WordToken> tokens(std::string_view word) {
        const auto [it, isNew] = m_words.try_emplace(word);
        if (isNew) {
            it->second.first = m_tokens.size();
            if (m_tokenizer.rawBytes)
                std::get<text::Bpe>(m_tokenizer.model).encodeBytes(word, m_tokens);
            else
                std::visit([&](const auto& m) { m.encode(word, m_tokens); }, m_tokenizer.model);
            it->second.second = m_tokens.size() - it->second.first;
        }
        return {m_tokens.data() + it->second.first, it->second.second};
    }

private:
    const Tokenizer::Impl& m_tokenizer;
    std::unordered_map<std::string_view, std::pair<std::size_t, std::size_t>> m_words;
    std::vector<text::WordToken> m_tokens;
};

void push(Encoding& e, std::int32_t id, std::string_view token, const TokenOffset& offset,
          std::int32_t word) {
    e.ids.push_back(id);
    e.tokens.emplace_back(token);
    e.offsets.push_back(offset);
    e.words.push_back(word);
}

/// Original bytes that bytes [begin, end) of a chunk stand for. A range that is not in the chunk
/// (a token longer than what it was made of) is given back as it is, as in the library.
text::Span spanOf(const text::Chunk& c, std::size_t begin, std::size_t end) {
    if (begin >= end || end > c.text.size()) return {Index(begin), Index(end)};
    if (c.spans == nullptr) {  // parts of a character stand for all of it
        const auto inside = [&](std::size_t i) {
            return i < c.text.size() && (static_cast<unsigned char>(c.text[i]) & 0xc0u) == 0x80u;
        };
        while (inside(begin)) --begin;
        while (inside(end)) ++end;
        return {c.origin + Index(begin), c.origin + Index(end)};
    }
    return {c.spans[begin].begin, c.spans[end - 1].end};
}

/// One text up to the post-processors. Byte offsets are not filled yet.
Encoding encodeText(const Tokenizer::Impl& t, std::string_view original, const CharMap& map,
                    std::uint8_t typeId) {
    using namespace text;
    Encoding e;
    Arena arena;
    std::vector<Chunk> chunks;  // of ordinary text, waiting for the pre-tokenizers
    WordCache cache(t);
    std::int32_t words = 0;
    const auto flush = [&] {
        for (const PreTokenizer& stage : t.preTokenizers)
            chunks = preTokenize(stage, chunks, arena);
        for (const Chunk& word : chunks) {
            for (const WordToken& token : cache.tokens(word.text)) {
                const Span s = spanOf(word, token.begin, token.end);
                const std::string* spelled = t.vocab().token(token.id);
                push(e, token.id,
                     token.surface || spelled == nullptr
                         ? word.text.substr(token.begin, token.end - token.begin)
                         : std::string_view(*spelled),
                     map.offset(s.begin, s.end), words);
            }
            ++words;
        }
        chunks.clear();
    };
    const auto pushAdded = [&](const AddedToken& token, const Chunk& c) {
        flush();
        const Span s = spanOf(c, 0, c.text.size());
        push(e, token.id, c.text, map.offset(s.begin, s.end), words++);
    };

    const Chunk whole{original, 0, nullptr};
    for (const Cut& cut : t.rawMatcher.cut(original)) {
        Chunk piece = whole.slice(cut.begin, cut.end);
        if (cut.token >= 0) {
            pushAdded(t.added[std::size_t(cut.token)], piece);
            continue;
        }
        for (const Normalizer& stage : t.normalizers) piece = normalize(stage, piece, arena);
        for (const Cut& inner : t.normalizedMatcher.cut(piece.text)) {
            const Chunk part = piece.slice(inner.begin, inner.end);
            if (inner.token >= 0)
                pushAdded(t.added[std::size_t(inner.token)], part);
            else
                chunks.push_back(part);
        }
    }
    flush();
    e.special.assign(e.ids.size(), 0);
    e.typeIds.assign(e.ids.size(), typeId);
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
    Encoding out;
    if (!texts.empty()) out = std::move(texts.front());
    for (std::size_t i = 1; i < texts.size(); ++i) {
        const auto append = [](auto& a, const auto& b) { a.insert(a.end(), b.begin(), b.end()); };
        append(out.ids, texts[i].ids);
        append(out.tokens, texts[i].tokens);
        append(out.offsets, texts[i].offsets);
        append(out.special, texts[i].special);
        append(out.typeIds, texts[i].typeIds);
        append(out.words, texts[i].words);
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
    namespace fs = std::filesystem;
    std::error_code code;
    const auto make = [](const nlohmann::json& json, const fs::path& file) {
        return std::make_shared<Tokenizer>(loadTokenizer(json, file.string()));
    };
    const auto model = [&](const fs::path& file) {  // SentencePiece's or tiktoken's
        const std::string bytes = readTextFile(file, kMaxFile);
        if (file.extension() == ".tiktoken" || isTiktoken(bytes))
            return make(tiktokenAsJson(bytes, file), file);
        return make(sentencePieceAsJson(bytes, tokenizerConfig(file.parent_path()), file.string()),
                    file);
    };
    if (!fs::is_directory(path, code)) {
        if (path.extension() == ".model" || path.extension() == ".tiktoken") return model(path);
        return make(parseJson(readTextFile(path, kMaxFile), path.string()), path);
    }
    const fs::path json = path / "tokenizer.json";
    if (fs::exists(json, code))
        return make(parseJson(readTextFile(json, kMaxFile), json.string()), json);
    for (const char* name : {"tokenizer.model", "spiece.model", "sentencepiece.bpe.model"})
        if (fs::exists(path / name, code)) return model(path / name);
    if (fs::exists(path / "vocab.json", code) && fs::exists(path / "merges.txt", code))
        return make(vocabAndMergesAsJson(path), path / "vocab.json");
    std::vector<fs::path> ranks;
    for (const auto& entry : fs::directory_iterator(path, code))
        if (entry.path().extension() == ".tiktoken") ranks.push_back(entry.path());
    if (!ranks.empty()) return model(*std::min_element(ranks.begin(), ranks.end()));
    throw Error(Errc::NotFound, path.string() +
                                    " has no tokenizer.json, tokenizer.model, "
                                    "vocab.json with merges.txt, or *.tiktoken");
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
    std::vector<std::string> tokens;
    for (const std::int32_t id : ids) {
        const text::AddedToken* added = m_impl->addedById(id);
        const std::string* token = added != nullptr ? &added->match : m_impl->vocab().token(id);
        if (token == nullptr) continue;  // the library drops it, too
        // Known by its text: one that normalization changes is not skipped in the library either.
        if (skipSpecial && m_impl->specials.contains(*token)) continue;
        tokens.push_back(*token);
    }
    for (const text::Decoder& stage : m_impl->decoders)
        tokens = text::decodeTokens(stage, std::move(tokens));
    std::string out;
    for (const std::string& token : tokens) {
        if (m_impl->spaced && &token != &tokens.front()) out += ' ';
        out += token;
    }
    return out;
}

std::string Tokenizer::tokenText(std::int32_t id) const {
    // The first token of a text may lose its space or keep its "##": take what the second adds.
    const std::int32_t twice[] = {id, id};
    const std::string one = decode({twice, 1}, false), two = decode(twice, false);
    return two.size() > one.size() && two.starts_with(one) ? two.substr(one.size()) : one;
}

Index Tokenizer::vocabSize() const {
    Index n = m_impl->vocab().size();
    for (const text::AddedToken& a : m_impl->added)
        if (m_impl->vocab().idOf(a.content) < 0) ++n;
    return n;
}

std::string Tokenizer::summary() const {
    return m_impl->kind + ", " + std::to_string(vocabSize()) + " tokens";
}

const std::vector<std::string>& Tokenizer::notes() const {
    return m_impl->notes;
}

namespace text {

const Vocab& vocabOf(const Model& model) {
    return std::visit([](const auto& m) -> const Vocab& { return m.vocab(); }, model);
}

}  // namespace text

}  // namespace sparsight
