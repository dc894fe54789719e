#include "core/model/tokenizer/word_models.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/model/tokenizer/unicode.h"
#include "kernels/base/error.h"

namespace sparsight::text {
namespace {

using nlohmann::json;

std::string stringOption(const json& model, const char* key, const char* standard,
                         const std::string& where) {
    if (!model.contains(key)) return standard;
    if (!model[key].is_string())
        throw Error(Errc::Format, where + ": model: " + key + " must be a string");
    return model[key].get<std::string>();
}

std::int32_t unknownId(const Vocab& vocab, const std::string& unknown, std::string_view word) {
    const std::int32_t id = vocab.idOf(unknown);
    if (id < 0)
        throw Error(Errc::Format,
                    "the tokenizer has no token for \"" + std::string(word.substr(0, 80)) +
                        "\", and its unknown token \"" + unknown + "\" is not in its vocabulary");
    return id;
}

}  // namespace

WordPiece WordPiece::load(const json& model, const std::string& where) {
    WordPiece w;
    w.m_vocab = Vocab::fromObject(model.value("vocab", json()), where + ": model");
    w.m_unknown = stringOption(model, "unk_token", "[UNK]", where);
    w.m_prefix = stringOption(model, "continuing_subword_prefix", "##", where);
    const json limit = model.value("max_input_chars_per_word", json(100));
    if (!limit.is_number_unsigned())
        throw Error(Errc::Format,
                    where + ": model: max_input_chars_per_word must be a whole number");
    w.m_maxChars = limit.get<std::size_t>();
    for (std::int32_t id = 0; id < w.m_vocab.ids(); ++id)
        if (const std::string* token = w.m_vocab.token(id))
            w.m_longest = std::max(w.m_longest, token->size());
    return w;
}

void WordPiece::encode(std::string_view word, std::vector<WordToken>& out) const {
    const std::size_t before = out.size();
    const auto unknown = [&] {
        out.resize(before);
        out.push_back({unknownId(m_vocab, m_unknown, word), 0, std::uint32_t(word.size())});
    };
    if (countCodePoints(word) > m_maxChars) return unknown();
    std::string piece;
    for (std::size_t at = 0; at < word.size();) {
        std::size_t end = std::min(word.size(), at + m_longest);
        while (end < word.size() && (static_cast<unsigned char>(word[end]) & 0xc0u) == 0x80u) --end;
        std::int32_t id = -1;
        while (end > at) {
            piece.assign(at > 0 ? m_prefix : std::string()).append(word, at, end - at);
            id = m_vocab.idOf(piece);
            if (id >= 0) break;
            end -= lastCodePoint(word.substr(at, end - at)).bytes;
        }
        if (id < 0) return unknown();
        out.push_back({id, std::uint32_t(at), std::uint32_t(end)});
        at = end;
    }
}

WordLevel WordLevel::load(const json& model, const std::string& where) {
    WordLevel w;
    w.m_vocab = Vocab::fromObject(model.value("vocab", json()), where + ": model");
    w.m_unknown = stringOption(model, "unk_token", "<unk>", where);
    return w;
}

void WordLevel::encode(std::string_view word, std::vector<WordToken>& out) const {
    if (word.empty()) return;
    std::int32_t id = m_vocab.idOf(word);
    if (id < 0) id = unknownId(m_vocab, m_unknown, word);
    out.push_back({id, 0, std::uint32_t(word.size())});
}

}  // namespace sparsight::text
