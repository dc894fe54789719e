#include "core/model/tokenizer/unicode.h"

#include <unicode/normalizer2.h>
#include <unicode/uchar.h>
#include <unicode/unistr.h>
#include <unicode/uscript.h>

#include <algorithm>
#include <array>

#include "kernels/base/error.h"

namespace sparsight::text {
namespace {

/// Length of the valid sequence at `i`, or 0; `bad` is then the length of the broken piece.
std::size_t sequenceAt(std::string_view s, std::size_t i, std::size_t& bad) {
    const auto byte = [&](std::size_t k) { return static_cast<unsigned char>(s[k]); };
    const unsigned char lead = byte(i);
    if (lead < 0x80) return 1;
    std::size_t length;
    unsigned char low = 0x80, high = 0xbf;  // allowed range of the second byte
    if (lead >= 0xc2 && lead <= 0xdf)
        length = 2;
    else if (lead >= 0xe0 && lead <= 0xef) {
        length = 3;
        if (lead == 0xe0) low = 0xa0;   // overlong below
        if (lead == 0xed) high = 0x9f;  // surrogates above
    } else if (lead >= 0xf0 && lead <= 0xf4) {
        length = 4;
        if (lead == 0xf0) low = 0x90;
        if (lead == 0xf4) high = 0x8f;  // beyond U+10FFFF
    } else {
        bad = 1;
        return 0;
    }
    for (std::size_t k = 1; k < length; ++k) {
        if (i + k >= s.size() || byte(i + k) < low || byte(i + k) > high) {
            bad = k;
            return 0;
        }
        low = 0x80;
        high = 0xbf;
    }
    return length;
}

const icu::Normalizer2& instance(Form form) {
    UErrorCode status = U_ZERO_ERROR;
    const icu::Normalizer2* n = nullptr;
    switch (form) {
        case Form::NFC:
            n = icu::Normalizer2::getNFCInstance(status);
            break;
        case Form::NFD:
            n = icu::Normalizer2::getNFDInstance(status);
            break;
        case Form::NFKC:
            n = icu::Normalizer2::getNFKCInstance(status);
            break;
        case Form::NFKD:
            n = icu::Normalizer2::getNFKDInstance(status);
            break;
    }
    if (U_FAILURE(status) || n == nullptr)
        throw Error(Errc::Unsupported,
                    std::string("the ICU library cannot normalise text: ") + u_errorName(status));
    return *n;
}

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

/// True when the character was in Unicode `major` already.
bool inUnicode(char32_t c, std::uint8_t major) {
    UVersionInfo age;
    u_charAge(UChar32(c), age);
    return age[0] > 0 && (age[0] < major || (age[0] == major && age[1] == 0));
}

bool hasCategory(char32_t c, std::uint32_t mask) {
    return (U_GET_GC_MASK(UChar32(c)) & mask) != 0;
}

std::vector<Moving> decompose(const icu::Normalizer2& n, std::string_view s) {
    std::vector<Moving> out;
    out.reserve(s.size());
    const auto byClass = [&](const Moving& a, const Moving& b) {
        return n.getCombiningClass(UChar32(a.c)) < n.getCombiningClass(UChar32(b.c));
    };
    std::size_t starter = 0;  // behind the last character of class 0
    const auto push = [&](char32_t c, int change) {
        if (n.getCombiningClass(UChar32(c)) == 0) {
            std::stable_sort(out.begin() + std::ptrdiff_t(starter), out.end(), byClass);
            out.push_back({c, change});
            starter = out.size();
        } else {
            out.push_back({c, change});
        }
    };
    icu::UnicodeString parts;
    for (std::size_t i = 0; i < s.size();) {
        const CodePoint p = codePointAt(s, i);
        i += p.bytes;
        // The library's tables are of Unicode 11.
        if (p.value < 0x80 || !n.getDecomposition(UChar32(p.value), parts) ||
            (p.value >= 0x32ff && !inUnicode(p.value, 11))) {
            push(p.value, 0);
            continue;
        }
        for (int32_t k = 0; k < parts.length(); k = parts.moveIndex32(k, 1))
            push(char32_t(parts.char32At(k)), k == 0 ? 0 : 1);
    }
    std::stable_sort(out.begin() + std::ptrdiff_t(starter), out.end(), byClass);
    return out;
}

std::vector<Moving> compose(const icu::Normalizer2& n, const std::vector<Moving>& in) {
    std::vector<Moving> out;
    out.reserve(in.size());
    constexpr std::size_t kNone = std::size_t(-1);
    std::size_t base = kNone;  // index in `out` of the character that may still take marks
    int lastClass = 0;         // of the mark kept behind it; 0 = none
    for (const Moving& m : in) {
        const int cls = n.getCombiningClass(UChar32(m.c));
        // A mark is blocked by a kept one of the same or a higher class; anything by a kept mark if
        // it is itself a starter.
        const bool blocked = base == kNone || (lastClass != 0 && lastClass >= cls);
        const UChar32 joined =
            blocked ? U_SENTINEL : n.composePair(UChar32(out[base].c), UChar32(m.c));
        if (joined >= 0) {
            out[base].c = char32_t(joined);
            out[base].change += m.change - 1;
            continue;
        }
        out.push_back(m);
        if (cls == 0) {
            base = out.size() - 1;
            lastClass = 0;
        } else {
            lastClass = cls;
        }
    }
    return out;
}

}  // namespace

CodePoint codePointAt(std::string_view s, std::size_t i) {
    const auto byte = [&](std::size_t k) { return char32_t(static_cast<unsigned char>(s[i + k])); };
    const char32_t lead = byte(0);
    if (lead < 0x80) return {lead, 1};
    if (lead < 0xe0) return {(lead & 0x1fu) << 6 | (byte(1) & 0x3fu), 2};
    if (lead < 0xf0) return {(lead & 0x0fu) << 12 | (byte(1) & 0x3fu) << 6 | (byte(2) & 0x3fu), 3};
    return {
        (lead & 7u) << 18 | (byte(1) & 0x3fu) << 12 | (byte(2) & 0x3fu) << 6 | (byte(3) & 0x3fu),
        4};
}

CodePoint lastCodePoint(std::string_view s) {
    std::size_t i = s.size() - 1;
    while (i > 0 && (static_cast<unsigned char>(s[i]) & 0xc0u) == 0x80u) --i;
    return codePointAt(s, i);
}

std::size_t countCodePoints(std::string_view s) {
    return std::size_t(std::count_if(s.begin(), s.end(), [](char c) {
        return (static_cast<unsigned char>(c) & 0xc0u) != 0x80u;
    }));
}

void appendUtf8(std::string& out, char32_t c) {
    const auto put = [&](char32_t v) { out += static_cast<char>(static_cast<unsigned char>(v)); };
    if (c < 0x80) return put(c);
    if (c < 0x800) {
        put(0xc0 | c >> 6);
    } else {
        if (c < 0x10000) {
            put(0xe0 | c >> 12);
        } else {
            put(0xf0 | c >> 18);
            put(0x80 | (c >> 12 & 0x3f));
        }
        put(0x80 | (c >> 6 & 0x3f));
    }
    put(0x80 | (c & 0x3f));
}

std::size_t firstInvalidUtf8(std::string_view s) {
    for (std::size_t i = 0, bad = 0; i < s.size();) {
        const std::size_t n = sequenceAt(s, i, bad);
        if (n == 0) return i;
        i += n;
    }
    return std::string_view::npos;
}

std::string lossyUtf8(std::string_view s) {
    std::string out;
    out.reserve(s.size());
    for (std::size_t i = 0; i < s.size();) {
        std::size_t bad = 0;
        const std::size_t n = sequenceAt(s, i, bad);
        if (n > 0)
            out.append(s, i, n);
        else
            appendUtf8(out, 0xfffd);
        i += n > 0 ? n : bad;
    }
    return out;
}

bool isWhiteSpace(char32_t c) {
    return u_isUWhiteSpace(UChar32(c));
}

bool isNumeric(char32_t c) {
    return hasCategory(c, U_GC_N_MASK);
}

bool isMark(char32_t c) {
    return c >= 0x300 && hasCategory(c, U_GC_M_MASK) && inUnicode(c, 9);
}

bool isPunctuation(char32_t c) {
    if (c < 0x80)
        return (c >= 33 && c <= 47) || (c >= 58 && c <= 64) || (c >= 91 && c <= 96) ||
               (c >= 123 && c <= 126);
    if (c == 0x166d || c == 0x111c9) return true;  // symbols today, punctuation then
    return hasCategory(c, U_GC_P_MASK) && inUnicode(c, 8);
}

bool isOther(char32_t c) {
    return hasCategory(c, U_GC_CC_MASK | U_GC_CF_MASK | U_GC_CO_MASK) && inUnicode(c, 8);
}

bool isNonspacingMark(char32_t c) {
    return c >= 0x300 && hasCategory(c, U_GC_MN_MASK) && inUnicode(c, 8);
}

int scriptClass(char32_t c) {
    if (c == U' ' || !inUnicode(c, 9)) return 0;
    UErrorCode status = U_ZERO_ERROR;
    const int script = uscript_getScript(UChar32(c), &status);
    if (U_FAILURE(status) || script == USCRIPT_UNKNOWN) return 0;
    const bool kana = script == USCRIPT_HIRAGANA || script == USCRIPT_KATAKANA || c == 0x30fc;
    return 1 + (kana ? int(USCRIPT_HAN) : script);
}

bool isWord(char32_t c) {
    return u_isUAlphabetic(UChar32(c)) || u_hasBinaryProperty(UChar32(c), UCHAR_JOIN_CONTROL) ||
           hasCategory(c, U_GC_M_MASK | U_GC_ND_MASK | U_GC_PC_MASK);
}

bool isNormalized(Form form, std::string_view s) {
    UErrorCode status = U_ZERO_ERROR;
    const bool yes =
        instance(form).isNormalizedUTF8(icu::StringPiece(s.data(), int32_t(s.size())), status);
    return U_SUCCESS(status) && yes;
}

std::vector<Moving> normalForm(Form form, std::string_view s) {
    const icu::Normalizer2& n = instance(form);
    std::vector<Moving> out = decompose(n, s);
    return form == Form::NFC || form == Form::NFKC ? compose(n, out) : out;
}

std::vector<Moving> lowerCase(std::string_view s) {
    std::vector<Moving> out;
    out.reserve(s.size());
    for (std::size_t i = 0; i < s.size();) {
        const CodePoint p = codePointAt(s, i);
        i += p.bytes;
        if (p.value == 0x130) {
            out.push_back({U'i', 0});
            out.push_back({0x307, 1});
        } else {
            out.push_back({char32_t(u_tolower(UChar32(p.value))), 0});
        }
    }
    return out;
}

void transform(Normalized& n, const std::vector<Moving>& made, std::size_t skipped) {
    std::string text;
    std::vector<Span> spans;
    text.reserve(n.text.size());
    spans.reserve(n.text.size());
    std::size_t at = 0;  // the next character that is to be replaced
    const auto advance = [&](std::size_t count) {
        for (; count > 0 && at < n.text.size(); --count) at += codePointAt(n.text, at).bytes;
    };
    advance(skipped);
    for (const Moving& m : made) {
        Span span{n.origin, n.origin};
        if (m.change > 0) {
            if (at > 0) span = n.spans[at - 1];
        } else {
            if (!n.spans.empty()) span = n.spans[std::min(at, n.spans.size() - 1)];
            advance(std::size_t(1 - m.change));
        }
        appendUtf8(text, m.c);
        spans.resize(text.size(), span);
    }
    n.text = std::move(text);
    n.spans = std::move(spans);
}

char32_t byteToChar(unsigned char byte) {
    return kAlphabet.chars[byte];
}
int charToByte(char32_t c) {
    return c < 512 ? kAlphabet.bytes[c] : -1;
}

std::string spellBytes(std::string_view bytes) {
    std::string out;
    out.reserve(2 * bytes.size());
    for (const char c : bytes) appendUtf8(out, byteToChar(static_cast<unsigned char>(c)));
    return out;
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

}  // namespace sparsight::text
