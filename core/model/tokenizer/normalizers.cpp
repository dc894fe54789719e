#include <algorithm>

#include "core/model/tokenizer/stages.h"

namespace sparsight::text {
namespace {

template <class Each>
void eachChar(std::string_view s, const Each& each) {
    for (std::size_t i = 0; i < s.size();) {
        const CodePoint p = codePointAt(s, i);
        each(p.value);
        i += p.bytes;
    }
}

/// Keeps the characters that `keep` takes, each with its own range.
template <class Keep>
void filter(Normalized& n, const Keep& keep) {
    std::size_t to = 0;
    for (std::size_t i = 0; i < n.text.size();) {
        const CodePoint p = codePointAt(n.text, i);
        if (keep(p.value))
            for (std::size_t k = 0; k < p.bytes; ++k, ++to) {
                n.text[to] = n.text[i + k];
                n.spans[to] = n.spans[i + k];
            }
        i += p.bytes;
    }
    n.text.resize(to);
    n.spans.resize(to);
}

template <class Map>
void mapChars(Normalized& n, const Map& map) {
    std::vector<Moving> made;
    made.reserve(n.text.size());
    eachChar(n.text, [&](char32_t c) { made.push_back({map(c), 0}); });
    transform(n, made);
}

bool isChinese(char32_t c) {
    return (c >= 0x4e00 && c <= 0x9fff) || (c >= 0x3400 && c <= 0x4dbf) ||
           (c >= 0x20000 && c <= 0x2a6df) || (c >= 0x2a700 && c <= 0x2b73f) ||
           (c >= 0x2b740 && c <= 0x2b81f) || (c >= 0x2b920 && c <= 0x2ceaf) ||
           (c >= 0xf900 && c <= 0xfaff) || (c >= 0x2f800 && c <= 0x2fa1f);
}

bool isTabOrNewline(char32_t c) {
    return c == U'\t' || c == U'\n' || c == U'\r';
}

/// Each returns false when it changed nothing; the caller then keeps the old text.
bool apply(Form form, Normalized& n) {
    transform(n, normalForm(form, n.text));
    return true;
}

bool apply(const LowercaseNormalizer&, Normalized& n) {
    transform(n, lowerCase(n.text));
    return true;
}

bool apply(const StripNormalizer& s, Normalized& n) {
    std::size_t begin = 0, end = n.text.size();
    while (s.left && begin < end) {
        const CodePoint p = codePointAt(n.text, begin);
        if (!isWhiteSpace(p.value)) break;
        begin += p.bytes;
    }
    while (s.right && end > begin) {
        const CodePoint p = lastCodePoint(std::string_view(n.text).substr(0, end));
        if (!isWhiteSpace(p.value)) break;
        end -= p.bytes;
    }
    if (begin == 0 && end == n.text.size()) return false;
    n.text = n.text.substr(begin, end - begin);
    n.spans = std::vector<Span>(n.spans.begin() + std::ptrdiff_t(begin),
                                n.spans.begin() + std::ptrdiff_t(end));
    return true;
}

bool apply(const StripAccentsNormalizer&, Normalized& n) {
    filter(n, [](char32_t c) { return !isMark(c); });
    return true;
}

bool apply(const ReplaceNormalizer& s, Normalized& n) {
    const auto matches = s.pattern.find(n.text);
    if (matches.empty()) return false;
    replaceMatches(n, matches, s.content);
    return true;
}

bool apply(const PrependNormalizer& s, Normalized& n) {
    prepend(n, s.content);
    return true;
}

bool apply(const NmtNormalizer&, Normalized& n) {
    filter(n, [](char32_t c) {
        return !((c >= 1 && c <= 8) || c == 0xb || (c >= 0xe && c <= 0x1f) || c == 0x7f ||
                 c == 0x8f || c == 0x9f);
    });
    mapChars(n, [](char32_t c) {
        const bool space = isTabOrNewline(c) || c == 0xc || c == 0x1680 ||
                           (c >= 0x200b && c <= 0x200f) || c == 0x2028 || c == 0x2029 ||
                           c == 0x2581 || c == 0xfeff || c == 0xfffd;
        return space ? U' ' : c;
    });
    return true;
}

bool apply(const BertNormalizer& s, Normalized& n) {
    if (s.cleanText) {
        filter(n, [](char32_t c) {
            return isTabOrNewline(c) || !(c == 0 || c == 0xfffd || isOther(c));
        });
        mapChars(n, [](char32_t c) { return isWhiteSpace(c) ? U' ' : c; });
    }
    if (s.spaceChinese) {
        std::vector<Moving> made;
        eachChar(n.text, [&](char32_t c) {
            // All three get the character's range.
            if (isChinese(c))
                made.insert(made.end(), {{U' ', 0}, {c, 1}, {U' ', 1}});
            else
                made.push_back({c, 0});
        });
        transform(n, made);
    }
    if (s.stripAccents) {
        transform(n, normalForm(Form::NFD, n.text));
        filter(n, [](char32_t c) { return !isNonspacingMark(c); });
    }
    if (s.lowercase) transform(n, lowerCase(n.text));
    return true;
}

bool apply(const ByteLevelNormalizer&, Normalized& n) {
    std::vector<Moving> made;
    for (const char c : n.text) {
        const auto byte = static_cast<unsigned char>(c);
        made.push_back({byteToChar(byte), (byte & 0xc0u) == 0x80u ? 1 : 0});
    }
    transform(n, made);
    return true;
}

bool apply(const PrecompiledNormalizer& s, Normalized& n) {
    bool changed = false;
    const std::vector<Moving> made = s.map->apply(n.text, changed);
    if (changed) transform(n, made);
    return changed;
}

/// True when the stage certainly leaves the text as it is; saves the copy.
template <class Stage>
bool leaves(const Stage&, std::string_view) {
    return false;
}
template <>
bool leaves(const Form& form, std::string_view text) {
    return isNormalized(form, text);
}

}  // namespace

Normalized unpack(const Chunk& c) {
    Normalized n;
    n.text = c.text;
    n.origin = c.start();
    if (c.spans != nullptr) {
        n.spans.assign(c.spans, c.spans + c.text.size());
        return n;
    }
    n.spans.resize(c.text.size());
    for (std::size_t i = 0; i < c.text.size();) {
        const std::size_t bytes = codePointAt(c.text, i).bytes;
        const Index at = c.origin + Index(i);
        std::fill_n(n.spans.begin() + std::ptrdiff_t(i), bytes, Span{at, at + Index(bytes)});
        i += bytes;
    }
    return n;
}

void replaceMatches(Normalized& n, const std::vector<std::pair<std::size_t, std::size_t>>& matches,
                    std::string_view content) {
    std::string text;
    std::vector<Span> spans;
    text.reserve(n.text.size());
    spans.reserve(n.text.size());
    std::size_t done = 0;
    const auto copyTo = [&](std::size_t end) {
        text.append(n.text, done, end - done);
        spans.insert(spans.end(), n.spans.begin() + std::ptrdiff_t(done),
                     n.spans.begin() + std::ptrdiff_t(end));
    };
    for (const auto& [begin, end] : matches) {
        copyTo(begin);
        text += content;
        spans.resize(text.size(), end > 0 ? n.spans[end - 1] : Span{n.origin, n.origin});
        done = end;
    }
    copyTo(n.text.size());
    n.text = std::move(text);
    n.spans = std::move(spans);
}

void prepend(Normalized& n, std::string_view content) {
    if (n.text.empty()) return;
    n.text.insert(0, content);
    n.spans.insert(n.spans.begin(), content.size(), n.spans.front());
}

Chunk normalize(const Normalizer& stage, const Chunk& chunk, Arena& arena) {
    return std::visit(
        [&](const auto& s) {
            if (chunk.text.empty() || leaves(s, chunk.text)) return chunk;
            Normalized n = unpack(chunk);
            if (!apply(s, n)) return chunk;
            const Normalized& kept = arena.emplace_back(std::move(n));
            return Chunk{kept.text, kept.origin, kept.spans.data()};
        },
        stage);
}

}  // namespace sparsight::text
