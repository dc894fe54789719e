#include "core/capture/token_texts.h"

#include <algorithm>

namespace sparsight {
namespace {

/// An unfinished UTF-8 sequence at the end decodes as U+FFFD.
bool isUnfinished(const std::string& text) {
    return text.ends_with("\xEF\xBF\xBD");
}

Index codePoints(std::string_view text) {
    return Index(std::count_if(text.begin(), text.end(), [](char c) {
        return (static_cast<unsigned char>(c) & 0xc0) != 0x80;
    }));
}

/// A token at most a few before `token` with which a character begins: decoding from the middle of
/// one would spoil all byte tokens after it.
Index contextOf(const std::vector<TokenOffset>& offsets, Index token) {
    constexpr Index kContext = 4, kMost = 64;
    for (Index c = token - kContext; c > std::max<Index>(0, token - kMost); --c) {
        const TokenOffset &a = offsets[std::size_t(c) - 1], &b = offsets[std::size_t(c)];
        if (b.byteBegin >= a.byteEnd && b.byteEnd > b.byteBegin) return c;
    }
    return std::max<Index>(0, std::min(token, token - kMost));
}

}  // namespace

void appendDecoded(const Tokenizer& tokenizer, std::span<const std::int32_t> ids, Index from,
                   TokenTexts& texts) {
    // A token's text depends on those before it (a decoder may drop the first space), so each group
    // is decoded after a few finished tokens and that prefix taken off. A group is given out when
    // it ends with a whole character, or is longer than any character's bytes.
    constexpr Index kLongest = 8;
    const Index n = Index(ids.size());
    Index begin = from, points = codePoints(texts.text);
    for (Index end = from + 1; end <= n; ++end) {
        const Index context = contextOf(texts.offsets, begin);
        const auto decoded = [&](Index until) {
            return tokenizer.decode(ids.subspan(std::size_t(context), std::size_t(until - context)),
                                    false);
        };
        const std::string before = begin > context ? decoded(begin) : std::string();
        const std::string all = decoded(end);
        if (isUnfinished(all) && end < n && end - begin < kLongest) continue;
        std::string piece;
        if (all.size() > before.size() && all.starts_with(before))
            piece = all.substr(before.size());
        const TokenOffset span{points, points + codePoints(piece), Index(texts.text.size()),
                               Index(texts.text.size() + piece.size())};
        texts.text += piece;
        points = span.end;
        texts.offsets.insert(texts.offsets.end(), std::size_t(end - begin), span);
        begin = end;
    }
}

}  // namespace sparsight
