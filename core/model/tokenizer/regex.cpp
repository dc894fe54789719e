#include "core/model/tokenizer/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "core/model/tokenizer/unicode.h"
#include "kernels/base/error.h"

namespace sparsight::text {
namespace {

// White_Space. PCRE2's own \s also takes U+180E.
constexpr std::string_view kSpace =
    R"(\t-\r\x{20}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";
// PCRE2 10.42 leaves the marks out of \w.
constexpr std::string_view kWord = R"(\p{Alphabetic}\p{M}\p{Nd}\p{Pc})";
constexpr std::string_view kHex = "0-9a-fA-F";

std::string errorText(int code) {
    PCRE2_UCHAR buffer[256] = {};
    pcre2_get_error_message(code, buffer, sizeof buffer);
    return reinterpret_cast<const char*>(buffer);
}

template <auto Free>
struct FreeBy {
    template <class T>
    void operator()(T* p) const {
        Free(p);
    }
};
using MatchData = std::unique_ptr<pcre2_match_data, FreeBy<pcre2_match_data_free>>;
using MatchContext = std::unique_ptr<pcre2_match_context, FreeBy<pcre2_match_context_free>>;
using JitStack = std::unique_ptr<pcre2_jit_stack, FreeBy<pcre2_jit_stack_free>>;
using CompileContext = std::unique_ptr<pcre2_compile_context, FreeBy<pcre2_compile_context_free>>;

}  // namespace

struct Regex::Code {
    std::unique_ptr<pcre2_code, FreeBy<pcre2_code_free>> code;
    std::string what;
    bool jit = false;

    Code(std::string_view pattern, std::uint32_t options, const std::string& name) : what(name) {
        const CompileContext context(pcre2_compile_context_create(nullptr));
        pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
        int error = 0;
        PCRE2_SIZE at = 0;
        code.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                                 options | PCRE2_UTF | PCRE2_NO_UTF_CHECK, &error, &at,
                                 context.get()));
        if (!code)
            throw Error(Errc::Unsupported,
                        what + ": its regular expression is not understood: " + errorText(error) +
                            " at character " + std::to_string(at));
        jit = pcre2_jit_compile(code.get(), PCRE2_JIT_COMPLETE) == 0;  // else interpreted: slow
    }
};

std::string translatePattern(std::string_view p) {
    std::string out;
    int inClass = 0;
    for (std::size_t i = 0; i < p.size(); ++i) {
        if (p[i] == '\\' && i + 1 < p.size()) {
            const char c = p[++i];
            const std::string_view set = c == 's' || c == 'S'   ? kSpace
                                         : c == 'w' || c == 'W' ? kWord
                                         : c == 'h' || c == 'H' ? kHex
                                                                : std::string_view();
            const bool negated = c == 'S' || c == 'W' || c == 'H';
            if (set.empty())
                out.append({'\\', c});
            else if (inClass > 0 && !negated)
                out.append(set);
            else if (inClass > 0)
                out.append({'\\', c});  // PCRE2's own; no set can say it there
            else
                out.append(negated ? "[^" : "[").append(set).append("]");
            continue;
        }
        if (p[i] == '[' && inClass == 0)
            inClass = 1;
        else if (p[i] == ']' && inClass > 0)
            inClass = 0;
        out += p[i];
        // A ']' directly behind the opening (and its ^) is a member, not the end.
        if (p[i] == '[' && inClass == 1) {
            if (i + 1 < p.size() && p[i + 1] == '^') out += p[++i];
            if (i + 1 < p.size() && p[i + 1] == ']') {
                out += "\\]";
                ++i;
            }
        }
    }
    return out;
}

Regex::Regex(std::string_view pattern, const std::string& what) {
    if (firstInvalidUtf8(pattern) != std::string_view::npos)
        throw Error(Errc::Format, what + ": its regular expression is not UTF-8");
    // A class inside a class means union in Oniguruma and is just a '[' for PCRE2.
    int inClass = 0;
    for (std::size_t i = 0; i < pattern.size(); ++i) {
        if (pattern[i] == '\\')
            ++i;
        else if (pattern[i] == ']')
            inClass = 0;
        else if (inClass > 0 && (pattern.substr(i, 2) == "&&" ||
                                 (pattern[i] == '[' && pattern.substr(i, 2) != "[:")))
            throw Error(Errc::Unsupported,
                        what + ": its regular expression has nested character classes");
        else if (pattern[i] == '[')
            inClass = 1;
    }
    // Ruby syntax: ^ and $ always match at lines.
    m_code = std::make_shared<Code>(translatePattern(pattern), PCRE2_UCP | PCRE2_MULTILINE, what);
}

Regex Regex::literal(std::string_view text, const std::string& what) {
    if (firstInvalidUtf8(text) != std::string_view::npos)
        throw Error(Errc::Format, what + ": its pattern is not UTF-8");
    Regex regex;
    regex.m_code = std::make_shared<Code>(text, PCRE2_LITERAL, what);
    return regex;
}

std::vector<std::pair<std::size_t, std::size_t>> Regex::find(std::string_view s) const {
    std::vector<std::pair<std::size_t, std::size_t>> out;
    const MatchData data(pcre2_match_data_create(1, nullptr));
    const MatchContext context(pcre2_match_context_create(nullptr));
    const JitStack stack(pcre2_jit_stack_create(32 << 10, 8 << 20, nullptr));
    pcre2_jit_stack_assign(context.get(), nullptr, stack.get());
    const auto* subject = reinterpret_cast<PCRE2_SPTR>(s.data());
    std::size_t from = 0, lastEnd = std::size_t(-1);
    while (from <= s.size()) {
        const int rc = m_code->jit ? pcre2_jit_match(m_code->code.get(), subject, s.size(), from,
                                                     PCRE2_NO_UTF_CHECK, data.get(), context.get())
                                   : pcre2_match(m_code->code.get(), subject, s.size(), from,
                                                 PCRE2_NO_UTF_CHECK, data.get(), context.get());
        if (rc == PCRE2_ERROR_NOMATCH) break;
        if (rc < 0)
            throw Error(
                Errc::Resources,
                m_code->what + ": its regular expression failed on this text: " + errorText(rc));
        const PCRE2_SIZE* v = pcre2_get_ovector_pointer(data.get());
        const std::size_t begin = v[0], end = std::max(v[0], v[1]);  // \K may put the end first
        if (begin < end || begin != lastEnd) out.emplace_back(begin, end);
        lastEnd = end;
        from = end;
        if (begin == end) {
            if (end >= s.size()) break;
            from += codePointAt(s, end).bytes;
        }
    }
    return out;
}

}  // namespace sparsight::text
