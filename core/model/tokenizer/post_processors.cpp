#include <algorithm>

#include "core/model/tokenizer/stages.h"

namespace sparsight::text {
namespace {

void append(Encoding& to, Encoding&& from) {
    const auto move = [](auto& a, auto& b) {
        a.insert(a.end(), std::make_move_iterator(b.begin()), std::make_move_iterator(b.end()));
    };
    move(to.ids, from.ids);
    move(to.tokens, from.tokens);
    move(to.offsets, from.offsets);
    move(to.special, from.special);
    move(to.typeIds, from.typeIds);
    move(to.words, from.words);
}

Encoding specialTokens(const std::vector<std::int32_t>& ids, const std::vector<std::string>& tokens,
                       std::uint8_t typeId) {
    Encoding e;
    e.ids = ids;
    e.tokens = tokens;
    e.offsets.resize(ids.size());
    e.special.assign(ids.size(), 1);
    e.typeIds.assign(ids.size(), typeId);
    e.words.assign(ids.size(), -1);
    return e;
}

/// Moves the offsets off the white space of the token. A prefix space that the pre-tokenizer added
/// is not in the text, so that one is not counted.
void trimOffsets(Encoding& e, bool addPrefixSpace) {
    for (std::size_t i = 0; i < e.ids.size(); ++i) {
        std::vector<bool> space;
        const std::string& token = e.tokens[i];
        for (std::size_t at = 0; at < token.size();) {
            const CodePoint p = codePointAt(token, at);
            space.push_back(p.value == byteToChar(' ') || isWhiteSpace(p.value));
            at += p.bytes;
        }
        auto leading = Index(std::find(space.begin(), space.end(), false) - space.begin());
        const auto trailing =
            Index(std::find(space.rbegin(), space.rend(), false) - space.rbegin());
        TokenOffset& o = e.offsets[i];
        if (leading > 0) {
            if ((i == 0 || o.begin == 0) && addPrefixSpace && leading == 1) leading = 0;
            o.begin = std::min(o.begin + leading, o.end);
        }
        if (trailing > 0 && o.end >= trailing) o.end = std::max(o.end - trailing, o.begin);
    }
}

void apply(const TrimStage& s, std::vector<Encoding>& texts, bool) {
    for (Encoding& e : texts) trimOffsets(e, s.addPrefixSpace);
}

void apply(const TemplateStage& s, std::vector<Encoding>& texts, bool addSpecial) {
    const std::vector<TemplatePiece>& pieces = texts.size() > 1 ? s.pair : s.single;
    std::vector<Encoding> out;
    for (const TemplatePiece& p : pieces) {
        if (p.sequence >= 0) {
            if (std::size_t(p.sequence) >= texts.size()) continue;
            Encoding e = texts[std::size_t(p.sequence)];
            std::fill(e.typeIds.begin(), e.typeIds.end(), p.typeId);
            out.push_back(std::move(e));
        } else if (addSpecial) {
            out.push_back(specialTokens(p.ids, p.tokens, p.typeId));
        }
    }
    texts = std::move(out);
}

void apply(const ClsSepStage& s, std::vector<Encoding>& texts, bool addSpecial) {
    if (s.roberta)
        for (Encoding& e : texts) {
            if (s.trimOffsets) trimOffsets(e, s.addPrefixSpace);
            std::fill(e.typeIds.begin(), e.typeIds.end(), std::uint8_t{0});  // pairs too
        }
    if (!addSpecial) return;
    for (std::size_t i = 0; i < texts.size(); ++i) {
        // What an earlier stage marked as special is ordinary text to this one.
        std::fill(texts[i].special.begin(), texts[i].special.end(), std::uint8_t{0});
        const auto typeId = std::uint8_t(i > 0 && !s.roberta ? 1 : 0);
        Encoding e;
        if (i == 0)
            e = specialTokens({s.cls}, {s.clsToken}, 0);
        else if (s.roberta)
            e = specialTokens({s.sep}, {s.sepToken}, 0);
        append(e, std::move(texts[i]));
        append(e, specialTokens({s.sep}, {s.sepToken}, typeId));
        texts[i] = std::move(e);
    }
}

}  // namespace

void postProcess(const PostProcessor& stage, std::vector<Encoding>& texts, bool addSpecial) {
    std::visit([&](const auto& s) { apply(s, texts, addSpecial); }, stage);
}

}  // namespace sparsight::text
