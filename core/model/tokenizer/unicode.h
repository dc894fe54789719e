#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/base/view.h"

namespace sparsight::text {

/// Byte range of the original text that a byte of changed text stands for.
struct Span {
    Index begin = 0, end = 0;
};

/// One code point of valid UTF-8 at byte `i`, and its length.
struct CodePoint {
    char32_t value = 0;
    std::size_t bytes = 1;
};
CodePoint codePointAt(std::string_view utf8, std::size_t i);
/// The last code point. @param utf8  valid and not empty
CodePoint lastCodePoint(std::string_view utf8);

void appendUtf8(std::string& out, char32_t c);

/// Byte position of the first error (overlong forms and surrogates are errors), or npos.
std::size_t firstInvalidUtf8(std::string_view bytes);

/// Bytes as text: each maximal piece of a broken sequence becomes one U+FFFD, as the Unicode
/// standard recommends (3.9) and Rust's lossy conversion does.
std::string lossyUtf8(std::string_view bytes);

bool isWhiteSpace(char32_t c);  ///< White_Space
bool isNumeric(char32_t c);     ///< general category N
bool isWord(char32_t c);        ///< Alphabetic, M, Nd, Pc, Join_Control: what `\w` means

enum class Form { NFC, NFD, NFKC, NFKD };

/// True when the text is in the form already, so that normalize() would return it unchanged.
bool isNormalized(Form form, std::string_view utf8);

/// Normalised text with, for each of its bytes, where it comes from. The rules are those of the
/// tokenizers library: a composed character keeps the range of its first part only, an added one
/// copies the range of the character before it ((0, 0) at the front).
struct Normalized {
    std::string text;
    std::vector<Span> spans;  ///< one per byte of text
};
/// @param spans  of the bytes of `utf8`
Normalized normalize(Form form, std::string_view utf8, const std::vector<Span>& spans);

}  // namespace sparsight::text
