#pragma once

#include <map>
#include <string>
#include <vector>

#include "core/model/chat_template_values.h"

namespace sparsight::jinja {

enum class Flow { Next, Break, Continue };

/// Runs a parsed template. Every statement and every byte that is made counts, so that a hostile
/// template ends.
/// @throws Error(Format) what the template asks for cannot be done, Error(Resources) it runs too
///         long: both name its line
class Renderer {
public:
    Renderer(const std::string& where, std::map<std::string, Value> globals);
    std::string run(const Block& block);

private:
    using Kind = Expression::Kind;

    [[noreturn]] void fail(int line, const std::string& what) const;
    void step(int line);
    /// Data that is copied or made counts as steps, 1 for `bytes` of a string: templates can double
    /// it again and again.
    void charge(const Json& j, std::size_t bytes, int line);
    const Value* lookUp(const std::string& name) const;
    Flow render(const Block& block);
    Flow render(const Statement& s);
    /// What a block writes, taken out of the output.
    std::string captured(const Block& block);
    void assign(const std::vector<std::string>& names, Value value, int line);
    void set(const Statement& s);
    Flow loop(const Statement& s);

    // --- Values
    static bool truth(const Value& value);
    std::string text(const Value& value, int line) const;
    const Json& data(const Value& value, int line) const;
    const std::string& stringOf(const Value& value, int line, const char* use) const;
    /// What a loop, `in` or a list filter goes through.
    Json list(const Value& value, int line) const;
    Value attribute(const Value& object, const std::string& name, int line);
    Value element(const Value& object, const Value& index, int line);
    Value slice(const Expression& e);

    // --- Expressions
    Value evaluate(const Expression& e);
    Value computed(const Expression& e);
    /// The arguments behind parts[0].
    Arguments arguments(const Expression& e);
    Value unary(const Expression& e);
    bool contains(const Value& container, const Value& item, int line) const;
    static bool equal(const Value& a, const Value& b);
    Value binary(const Expression& e);
    Value arithmetic(const std::string& op, const Json& x, const Json& y, int line) const;

    // --- Functions, methods, filters, tests
    Value call(const Expression& e);
    Value callMacro(const Statement& macro, const Arguments& a, int line);
    Value globalFunction(const std::string& name, const Arguments& a, int line);
    Value method(const std::string& name, const Value& self, const Arguments& a, int line);
    Value split(const std::string& s, const Arguments& a, int line) const;
    Value filter(const std::string& name, const Value& v, const Arguments& a, int line);
    Value map(const Value& v, const Arguments& a, int line);
    Value select(const std::string& name, const Value& v, const Arguments& a, int line);
    bool test(const std::string& name, const Value& v, const Arguments& a, int line) const;
    /// As Python's json.dumps: ", " and ": " between, characters as they are.
    std::string toJson(const Json& j, const Arguments& a, int line) const;

    const std::string& m_where;
    std::vector<std::map<std::string, Value>> m_scopes;
    std::size_t m_macroBase = 0;  ///< scopes below it (but the first) are not seen
    std::string m_out;
    std::int64_t m_steps = 0;
    int m_calls = 0;
};

}  // namespace sparsight::jinja
