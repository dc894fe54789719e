#include "core/probe/haystack.h"

#include "core/model/json_input.h"
#include "core/model/tokenizer/unicode.h"
#include "core/probe/needle.h"
#include "core/probe/splitmix.h"
#include "kernels/base/error.h"

namespace sparsight {
namespace {

constexpr std::size_t kMaxFile = 256u << 20;
constexpr std::uint64_t kParagraph = 5;  // sentences of the built-in prose

bool isSpace(char c) {
    return c == ' ' || c == '\n' || c == '\r' || c == '\t' || c == '\f' || c == '\v';
}

/// Length of a closing quote or bracket at `i`, 0 when there is none.
std::size_t closing(std::string_view s, std::size_t i) {
    for (const std::string_view mark : {"\"", "'", ")", "]", "_", "\u201d", "\u2019", "\u00bb"})
        if (s.substr(i, mark.size()) == mark) return mark.size();
    return 0;
}

bool isTitle(std::string_view before) {
    for (const std::string_view title :
         {"Mr", "Mrs", "Ms", "Dr", "St", "Messrs", "Rev", "Esq", "Capt", "Col", "No"})
        if (before.ends_with(title) &&
            (before.size() == title.size() || isSpace(before[before.size() - title.size() - 1])))
            return true;
    return false;
}

}  // namespace

std::vector<std::string> splitSentences(std::string_view s) {
    std::vector<std::string> out;
    std::size_t begin = 0, i = 0;
    const auto cut = [&](std::size_t end) {
        out.emplace_back(s.substr(begin, end - begin));
        begin = end;
    };
    while (i < s.size() && isSpace(s[i])) ++i;
    while (i < s.size()) {
        if (isSpace(s[i])) {  // an empty line ends a heading, too
            std::size_t next = i, lines = 0;
            while (next < s.size() && isSpace(s[next])) lines += s[next++] == '\n' ? 1 : 0;
            if (next == s.size()) break;
            if (lines > 1) cut(i);
            i = next;
            continue;
        }
        const char c = s[i++];
        if (c != '.' && c != '!' && c != '?') continue;
        if (c == '.' && isTitle(s.substr(begin, i - 1 - begin))) continue;
        while (i < s.size() && (s[i] == '.' || s[i] == '!' || s[i] == '?')) ++i;
        for (std::size_t n; i < s.size() && (n = closing(s, i)) > 0;) i += n;
        if (i == s.size() || isSpace(s[i])) {
            cut(i);
            while (i < s.size() && isSpace(s[i])) ++i;
        }
    }
    while (i > begin && isSpace(s[i - 1])) --i;
    if (i > begin) cut(i);
    return out;
}

Haystack::Haystack(const std::string& file, std::uint64_t seed) : m_seed(seed) {
    if (file.empty()) return;
    std::string text = readTextFile(file, kMaxFile);
    if (text.starts_with("\xef\xbb\xbf")) text.erase(0, 3);
    if (const auto bad = text::firstInvalidUtf8(text); bad != std::string::npos)
        throw Error(Errc::Format, file + ": byte " + std::to_string(bad) +
                                      " is not UTF-8; save the haystack as UTF-8 text");
    m_sentences = splitSentences(text);
    if (m_sentences.empty()) throw Error(Errc::Usage, file + " has no text to hide a needle in");
    if (!isSpace(m_sentences.front()[0]))
        m_sentences.front().insert(0, "\n\n");  // where it repeats
    m_start = SplitMix{seed}.below(m_sentences.size());
}

std::string Haystack::sentence(std::uint64_t i) const {
    if (m_sentences.empty()) {
        const char* before = i == 0 ? "" : i % kParagraph == 0 ? "\n\n" : " ";
        return before + proseSentence(m_seed, i);
    }
    std::string s = m_sentences[(m_start + i) % m_sentences.size()];
    if (i > 0) return s;
    std::size_t n = 0;
    while (n < s.size() && isSpace(s[n])) ++n;
    return s.substr(n);
}

}  // namespace sparsight
