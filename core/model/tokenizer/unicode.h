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
/// Number of code points. @param utf8  valid
std::size_t countCodePoints(std::string_view utf8);

void appendUtf8(std::string& out, char32_t c);

/// Byte position of the first error (overlong forms and surrogates are errors), or npos.
std::size_t firstInvalidUtf8(std::string_view bytes);

/// Bytes as text: each maximal piece of a broken sequence becomes one U+FFFD, as the Unicode
/// standard recommends (3.9) and Rust's lossy conversion does.
std::string lossyUtf8(std::string_view bytes);

bool isWhiteSpace(char32_t c);  ///< White_Space
bool isNumeric(char32_t c);     ///< general category N
bool isWord(char32_t c);        ///< Alphabetic, M, Nd, Pc, Join_Control: what `\w` means
// The tokenizers library takes these from tables of Unicode 8 or 9: newer characters are not in.
bool isMark(char32_t c);            ///< category M
bool isPunctuation(char32_t c);     ///< ASCII punctuation and symbols, or category P
bool isOther(char32_t c);           ///< control, format, private use
bool isNonspacingMark(char32_t c);  ///< category Mn
/// Number of the script for the UnicodeScripts pre-tokenizer: kana count as Han; 0 for the space
/// and for characters newer than Unicode 9, which go with any script.
int scriptClass(char32_t c);

enum class Form { NFC, NFD, NFKC, NFKD };

/// True when the text is in the form already, so that normalizing would leave it unchanged.
bool isNormalized(Form form, std::string_view utf8);

/// One character of changed text. `change` > 0: it was added; -n: n further characters of the input
/// disappeared in it; 0: it replaces one.
struct Moving {
    char32_t c = 0;
    int change = 0;
};
std::vector<Moving> normalForm(Form form, std::string_view utf8);
/// Lower case, character by character; U+0130 becomes two.
std::vector<Moving> lowerCase(std::string_view utf8);

/// Changed text with, for each of its bytes, where it comes from.
struct Normalized {
    std::string text;
    std::vector<Span> spans;  ///< one per byte of text
    Index origin = 0;         ///< where the piece begins in the original
};

/// Replaces the whole text. The rules are those of the tokenizers library: a replaced character
/// keeps the range of the (first) one that it replaces, an added one copies the range of the
/// character before it (an empty one at the front).
/// @param skipped  characters at the front that are dropped
void transform(Normalized& n, const std::vector<Moving>& made, std::size_t skipped = 0);

/// The printable character that stands for a byte in byte-level vocabularies, and back (-1: none).
char32_t byteToChar(unsigned char byte);
int charToByte(char32_t c);
/// Every byte spelled with that alphabet.
std::string spellBytes(std::string_view bytes);
/// The bytes that a token stands for; a token with any other character is its own UTF-8 text.
std::string tokenBytes(std::string_view token);

}  // namespace sparsight::text
