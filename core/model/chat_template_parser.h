#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace sparsight::jinja {

struct Expression;
using ExpressionPtr = std::unique_ptr<Expression>;

/// A node of an expression. `name`: the variable, attribute, operator, filter or test.
struct Expression {
    enum class Kind {
        String,   ///< name
        Integer,  ///< number
        Float,    ///< real
        True,
        False,
        None,
        Variable,   ///< name
        List,       ///< parts
        Dict,       ///< parts: key, value, key, value
        Attribute,  ///< parts[0].name
        Index,      ///< parts[0][parts[1]]
        Slice,      ///< parts[0][parts[1]:parts[2]:parts[3]], null where left out
        Call,       ///< parts[0](parts[1...], named)
        Filter,     ///< parts[0] | name(parts[1...], named)
        Test,       ///< parts[0] is name parts[1...]
        Unary,      ///< name: "-", "+", "not"
        Binary,     ///< name: an operator, "and", "or", "in", "not in"
        Choice      ///< parts[1] if parts[0] else parts[2] (null: nothing)
    } kind;
    int line = 0;
    std::string name;
    std::int64_t number = 0;
    double real = 0;
    std::vector<ExpressionPtr> parts;
    std::vector<std::pair<std::string, ExpressionPtr>> named;
};

struct Statement;
using Block = std::vector<Statement>;

/// A piece of a template.
struct Statement {
    enum class Kind {
        Text,    ///< text
        Output,  ///< {{ value }}
        If,      ///< branches: condition (null: else) and body
        For,     ///< names in value, if condition: body, else orElse
        Set,     ///< names (or names[0].attribute) = value, or = body when value is null
        Macro,   ///< text(names = defaults): body
        Group,   ///< body as it is ({% generation %})
        Break,
        Continue
    } kind;
    int line = 0;
    std::string text;
    std::vector<std::string> names;
    std::string attribute;
    ExpressionPtr value, condition;
    std::vector<ExpressionPtr> defaults;  ///< of a macro's parameters, null: none
    std::vector<std::pair<ExpressionPtr, Block>> branches;
    Block body, orElse;
};

/// Parses a template with trim_blocks and lstrip_blocks.
/// @throws Error(Unsupported) naming the construct and its line, Error(Format) for broken ones
Block parse(std::string_view source, const std::string& where);

/// The refusal of everything beyond the subset.
[[noreturn]] void unsupported(const std::string& where, int line, const std::string& what);

}  // namespace sparsight::jinja
