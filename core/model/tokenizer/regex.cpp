#include "core/model/tokenizer/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <cctype>

#include "core/model/tokenizer/unicode.h"
#include "kernels/base/error.h"

namespace sparsight::text {
namespace {

// White_Space. PCRE2's own \s also takes U+180E.
constexpr std::string_view kSpace =
    R"(\t-\r\x{20}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";
// PCRE2 10.42 leaves the marks out of \w.
constexpr std::string_view kWord = R"(\p{Alphabetic}\p{M}\p{Nd}\p{Pc})";
// Outside a class Oniguruma takes the superscript digits and fractions in.
constexpr std::string_view kWordAlone =
    R"(\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\x{b2}\x{b3}\x{b9}\x{bc}-\x{be})";
constexpr std::string_view kHex = "0-9a-fA-F";
/// POSIX classes that Oniguruma defines by Unicode properties, and PCRE2 by others; the long names
/// of properties, which PCRE2 does not know. Both may stand as [:name:] or \p{name}.
constexpr std::pair<std::string_view, std::string_view> kNamed[] = {
    {"alpha", R"(\p{Alphabetic})"},
    {"alnum", R"(\p{Alphabetic}\p{Nd})"},
    {"blank", R"(\t\p{Zs})"},
    {"space", kSpace},
    {"word", kWordAlone},
    {"upper", R"(\p{Uppercase})"},
    {"digit", R"(\p{Nd})"},
    {"lower", R"(\p{Lowercase})"},
    {"punct", R"(\p{P})"},
    {"cntrl", R"(\p{Cc})"},
    {"xdigit", kHex},
    {"letter", R"(\p{L})"},
    {"uppercaseletter", R"(\p{Lu})"},
    {"lowercaseletter", R"(\p{Ll})"},
    {"titlecaseletter", R"(\p{Lt})"},
    {"modifierletter", R"(\p{Lm})"},
    {"otherletter", R"(\p{Lo})"},
    {"mark", R"(\p{M})"},
    {"combiningmark", R"(\p{M})"},
    {"nonspacingmark", R"(\p{Mn})"},
    {"spacingmark", R"(\p{Mc})"},
    {"enclosingmark", R"(\p{Me})"},
    {"number", R"(\p{N})"},
    {"decimalnumber", R"(\p{Nd})"},
    {"letternumber", R"(\p{Nl})"},
    {"othernumber", R"(\p{No})"},
    {"punctuation", R"(\p{P})"},
    {"symbol", R"(\p{S})"},
    {"mathsymbol", R"(\p{Sm})"},
    {"currencysymbol", R"(\p{Sc})"},
    {"modifiersymbol", R"(\p{Sk})"},
    {"othersymbol", R"(\p{So})"},
    {"separator", R"(\p{Z})"},
    {"spaceseparator", R"(\p{Zs})"},
    {"other", R"(\p{C})"},
    {"control", R"(\p{Cc})"}};

/// Those that mean another set as [:name:] than as \p{name}.
constexpr std::pair<std::string_view, std::string_view> kPosix[] = {{"word", kWord},
                                                                    {"punct", R"(\p{P}\p{S})"}};

/// Members of the class with that name; case, spaces, '_' and '-' do not count. Empty: not ours.
std::string_view membersOf(std::string_view name) {
    std::string plain;
    for (const char c : name)
        if (c != ' ' && c != '_' && c != '-')
            plain += char(std::tolower(static_cast<unsigned char>(c)));
    for (const auto& [known, members] : kNamed)
        if (known == plain) return members;
    return {};
}

/// Whether a name is that of a script. PCRE2 takes \p{Han} for all characters that Han text uses,
/// Oniguruma for those that belong to it: \p{sc:Han}.
bool isScript(std::string_view name) {
    const std::string pattern = "\\p{sc:" + std::string(name) + "}";
    int error = 0;
    PCRE2_SIZE at = 0;
    pcre2_code* code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                                     PCRE2_UTF, &error, &at, nullptr);
    pcre2_code_free(code);
    return code != nullptr;
}

/// A set of characters: members of a class, or all others.
struct Set {
    std::string members;
    bool negated = false;
};
std::string classOf(const Set& set) {
    return (set.negated ? "[^" : "[") + set.members + "]";
}

/// Reads a \p{..} or \P{..} whose backslash is at `i`, and leaves `i` behind it.
Set readProperty(std::string_view p, std::size_t& i) {
    Set set;
    set.negated = p[i + 1] == 'P';
    const std::size_t end = p.find('}', i);
    if (end == p.npos) {  // for PCRE2 to refuse
        set.members = p.substr(i);
        i = p.size();
        return set;
    }
    std::string_view name = p.substr(i + 3, end - i - 3);
    if (name.starts_with('^')) {
        set.negated = !set.negated;
        name.remove_prefix(1);
    }
    const std::string_view known = membersOf(name);
    set.members = !known.empty()   ? std::string(known)
                  : isScript(name) ? "\\p{sc:" + std::string(name) + "}"
                                   : "\\p{" + std::string(name) + "}";
    i = end + 1;
    return set;
}
bool isProperty(std::string_view p, std::size_t i) {
    return (p[i + 1] == 'p' || p[i + 1] == 'P') && p.substr(i + 2).starts_with('{');
}

/// What an escape that both write differently is in PCRE2: \uHHHH, \v (one character here), and \Q,
/// \E, \p without braces (these letters). Reads it at `i`, leaves `i` behind it; empty: another.
std::string readEscape(std::string_view p, std::size_t& i) {
    const char c = p[i + 1];
    if (c == 'u') {
        const std::string_view hex = p.substr(i + 2, 4);
        if (hex.size() < 4 || hex.find_first_not_of("0123456789abcdefABCDEF") != hex.npos)
            return {};
        i += 6;
        return "\\x{" + std::string(hex) + "}";
    }
    const bool letter = c == 'Q' || c == 'E' || ((c == 'p' || c == 'P') && !isProperty(p, i));
    if (c != 'v' && !letter) return {};
    i += 2;
    return letter ? std::string(1, c) : "\\x0b";
}

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

namespace {

/// What `\s`, `\w`, `\h` and their negations mean, as members of a class; empty: nothing special.
std::string_view setOf(char c) {
    return c == 's' || c == 'S'   ? kSpace
           : c == 'w' || c == 'W' ? kWord
           : c == 'h' || c == 'H' ? kHex
                                  : std::string_view();
}
bool negates(char c) {
    return c == 'S' || c == 'W' || c == 'H';
}

/// `\b` (or `\B`, where it is not) by our own `\w`.
std::string wordBoundary(bool boundary) {
    const std::string word = "[" + std::string(kWordAlone) + "])";
    const char *same = boundary ? "(?!" : "(?=", *other = boundary ? "(?=" : "(?!";
    return "(?:(?<=" + word + same + word + "|(?<!" + word + other + word + ")";
}

/// Reads a character class whose '[' is at `i`, leaves `i` behind its ']', and gives an expression
/// that matches one character. PCRE2 knows neither classes in classes nor `&&`.
std::string translateClass(std::string_view p, std::size_t& i, int depth, const std::string& what) {
    if (depth > 8)
        throw Error(Errc::Unsupported, what + ": its regular expression nests classes too deeply");
    const bool negated = p.substr(i + 1).starts_with('^');
    i += negated ? 2 : 1;
    std::vector<std::string> operands;  // of &&
    std::string plain, others;          // members, and alternatives that are no members
    bool simple = true;
    const auto finish = [&] {
        const std::string set = plain.empty() ? std::string() : "[" + plain + "]";
        operands.push_back(others.empty() ? set
                                          : "(?:" + set + (set.empty() ? "" : "|") + others + ")");
        plain.clear();
        others.clear();
    };
    const auto addOther = [&](const std::string& expression) {
        others += (others.empty() ? "" : "|") + expression;
        simple = false;
    };
    for (bool first = true; i < p.size() && (p[i] != ']' || first); first = false) {
        if (p[i] == '\\' && i + 1 < p.size()) {
            const char c = p[i + 1];
            if (const std::string escape = readEscape(p, i); !escape.empty()) {
                plain += escape;
                continue;
            }
            if (isProperty(p, i)) {
                const Set set = readProperty(p, i);
                if (set.negated)
                    addOther(classOf(set));
                else
                    plain += set.members;
                continue;
            }
            if (setOf(c).empty())
                plain.append({'\\', c});
            else if (negates(c))
                addOther("[^" + std::string(setOf(c)) + "]");
            else
                plain += setOf(c);
            i += 2;
        } else if (p[i] == '[' && p.substr(i, 2) == "[:" &&
                   p.find(":]", i) != std::string_view::npos) {
            const std::size_t end = p.find(":]", i) + 2;
            std::string_view name = p.substr(i + 2, end - i - 4);
            const bool inverted = name.starts_with('^');
            if (inverted) name.remove_prefix(1);
            const auto* posix = std::find_if(std::begin(kPosix), std::end(kPosix),
                                             [&](const auto& k) { return k.first == name; });
            const std::string_view known =
                posix == std::end(kPosix) ? membersOf(name) : posix->second;
            if (known.empty())
                plain += p.substr(i, end - i);
            else if (inverted)
                addOther(classOf({std::string(known), true}));
            else
                plain += known;
            i = end;
        } else if (p[i] == '[') {
            addOther(translateClass(p, i, depth + 1, what));
        } else if (p.substr(i, 2) == "&&") {
            finish();
            simple = false;
            i += 2;
        } else {
            if (p[i] == ']') plain += '\\';  // directly behind the opening it is a member
            plain += p[i++];
        }
    }
    if (i >= p.size())
        throw Error(Errc::Unsupported, what + ": its regular expression has an open class");
    ++i;
    if (simple) return (negated ? "[^" : "[") + plain + "]";
    finish();
    std::string all = "(?:";
    for (std::size_t k = 0; k < operands.size(); ++k) {
        if (operands[k].empty())
            throw Error(Errc::Unsupported, what + ": its regular expression has an empty class");
        all += k + 1 < operands.size() ? "(?=" + operands[k] + ")" : operands[k];
    }
    all += ")";
    return negated ? "(?:(?!" + all + ")(?s:.))" : all;
}

}  // namespace

std::string translatePattern(std::string_view p, const std::string& what) {
    std::string out;
    std::size_t atom = 0;             // where the last atom begins in `out`
    std::vector<std::size_t> groups;  // where the open groups begin
    for (std::size_t i = 0; i < p.size();) {
        if (p[i] == '\\' && i + 1 < p.size()) {
            const char c = p[i + 1];
            atom = out.size();
            if (const std::string escape = readEscape(p, i); !escape.empty()) {
                out += escape;
                continue;
            }
            if (isProperty(p, i)) {
                out += classOf(readProperty(p, i));
                continue;
            }
            if (c == 'b' || c == 'B')  // where \w begins or ends, and where not
                out += wordBoundary(c == 'b');
            else if (c == 'w' || c == 'W')
                out += classOf({std::string(kWordAlone), c == 'W'});
            else if (setOf(c).empty())
                out.append({'\\', c});
            else
                out.append(negates(c) ? "[^" : "[").append(setOf(c)).append("]");
            i += 2;
            if (c == 'x' && i < p.size() && p[i] == '{')
                while (i < p.size() && out.back() != '}') out += p[i++];
        } else if (p[i] == '[') {
            atom = out.size();
            out += translateClass(p, i, 0, what);
        } else if (p.substr(i, 2) == "(?") {
            groups.push_back(out.size());
            out += "(?";
            i += 2;
            // Ruby's (?m) lets the dot match newlines: that is (?s) here.
            for (; i < p.size() && (std::isalpha(static_cast<unsigned char>(p[i])) || p[i] == '-');
                 ++i)
                out += p[i] == 'm' ? 's' : p[i];
        } else if (const std::size_t end = p.find_first_not_of("0123456789,", i + 1);
                   p[i] == '{' && end != std::string_view::npos && p[end] == '}') {
            const bool fromNone = p[i + 1] == ',';  // {,n} is {0,n}
            out.append(fromNone ? "{0" : "{").append(p.substr(i + 1, end - i));
            i = end + 1;
            if (i < p.size() && p[i] == '+') {  // repeats the whole, not possessive as in PCRE2
                out.insert(atom, "(?:").append(")+");
                ++i;
            }
        } else {
            const char c = p[i++];
            if (c == '(') groups.push_back(out.size());
            if (c == ')' && !groups.empty()) {
                atom = groups.back();
                groups.pop_back();
            } else if (c != '?' && c != '*' && c != '+') {
                atom = out.size();
            }
            out += c;
        }
    }
    return out;
}

Regex::Regex(std::string_view pattern, const std::string& what) {
    if (firstInvalidUtf8(pattern) != std::string_view::npos)
        throw Error(Errc::Format, what + ": its regular expression is not UTF-8");
    // Ruby syntax: ^ and $ always match at lines.
    m_code =
        std::make_shared<Code>(translatePattern(pattern, what), PCRE2_UCP | PCRE2_MULTILINE, what);
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
    if (s.empty()) return out;  // as in the library: nothing matches in nothing
    // Making these costs more than most matches: one set per thread.
    struct Scratch {
        MatchData data{pcre2_match_data_create(1, nullptr)};
        MatchContext context{pcre2_match_context_create(nullptr)};
        JitStack stack{pcre2_jit_stack_create(32 << 10, 8 << 20, nullptr)};
        Scratch() { pcre2_jit_stack_assign(context.get(), nullptr, stack.get()); }
    };
    thread_local const Scratch scratch;
    const MatchData& data = scratch.data;
    const MatchContext& context = scratch.context;
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
