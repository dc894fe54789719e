#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace sparsight::text {

/// A regular expression as tokenizer.json writes it (Oniguruma's Ruby syntax, Unicode), run by
/// PCRE2 with JIT. What PCRE2 understands differently is translated. Safe in parallel.
class Regex {
public:
    /// @param what  for messages  @throws Error(Unsupported) when PCRE2 cannot take it
    Regex(std::string_view pattern, const std::string& what);
    /// Text to be found as it is.
    static Regex literal(std::string_view text, const std::string& what);

    /// All matches, leftmost first, not overlapping: byte ranges. An empty match directly behind
    /// another match is skipped.
    /// @throws Error(Resources) when the expression needs too many steps on this text
    std::vector<std::pair<std::size_t, std::size_t>> find(std::string_view utf8) const;

private:
    Regex() = default;
    struct Code;
    std::shared_ptr<const Code> m_code;
};

/// The pattern as PCRE2 wants it: `\s` is White_Space, `\w` holds marks, `\h` is a hex digit,
/// `[a[bc]]` a union, `[a-z&&[^b]]` an intersection, `{1,3}+` a repetition, `(?m)` is `(?s)`.
/// @throws Error(Unsupported) on classes that are open or empty
std::string translatePattern(std::string_view onigurumaPattern, const std::string& what);

}  // namespace sparsight::text
