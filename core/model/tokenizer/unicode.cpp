#include "core/model/tokenizer/unicode.h"

#include <unicode/normalizer2.h>
#include <unicode/uchar.h>
#include <unicode/unistr.h>

#include <algorithm>

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

/// A character on its way through normalisation. `change`: 1 = it was added, -n = n characters of
/// the input disappeared in it.
struct Moving {
    char32_t c;
    int change;
};

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
        if (p.value < 0x80 || !n.getDecomposition(UChar32(p.value), parts)) {
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
    return (U_GET_GC_MASK(UChar32(c)) & U_GC_N_MASK) != 0;
}

bool isWord(char32_t c) {
    return u_isUAlphabetic(UChar32(c)) || u_hasBinaryProperty(UChar32(c), UCHAR_JOIN_CONTROL) ||
           (U_GET_GC_MASK(UChar32(c)) & (U_GC_M_MASK | U_GC_ND_MASK | U_GC_PC_MASK)) != 0;
}

bool isNormalized(Form form, std::string_view s) {
    UErrorCode status = U_ZERO_ERROR;
    const bool yes =
        instance(form).isNormalizedUTF8(icu::StringPiece(s.data(), int32_t(s.size())), status);
    return U_SUCCESS(status) && yes;
}

Normalized normalize(Form form, std::string_view s, const std::vector<Span>& spans) {
    const icu::Normalizer2& n = instance(form);
    std::vector<Moving> moving = decompose(n, s);
    if (form == Form::NFC || form == Form::NFKC) moving = compose(n, moving);
    Normalized out;
    out.text.reserve(s.size());
    out.spans.reserve(s.size());
    std::size_t at = 0;  // in s: the next character that is to be replaced
    const auto skip = [&] {
        if (at < s.size()) at += codePointAt(s, at).bytes;
    };
    for (const Moving& m : moving) {
        Span span;
        if (m.change > 0) {
            if (at > 0) span = spans[at - 1];
        } else {
            span = spans[std::min(at, s.size() - 1)];
            for (int k = 0; k <= -m.change; ++k) skip();
        }
        appendUtf8(out.text, m.c);
        out.spans.resize(out.text.size(), span);
    }
    return out;
}

}  // namespace sparsight::text
