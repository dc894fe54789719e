#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "core/model/chat_template_parser.h"

namespace sparsight::jinja {

using Json = nlohmann::ordered_json;

/// Bytes that a conversation may become; no single text may be longer either.
inline constexpr std::size_t kMaxOutput = 64u << 20;

struct Undefined {
    std::string name;
};
struct Macro {
    const Statement* statement;
};
/// A function of the template language, or a method bound to its object.
struct Function {
    std::string name;
    std::shared_ptr<const struct Value> self;  ///< of a method
};
struct Namespace {
    std::map<std::string, struct Value> values;
};

/// A value: JSON data, or what only templates have.
struct Value {
    std::variant<Json, Undefined, Macro, Function, std::shared_ptr<Namespace>> v = Json();

    Value() = default;
    Value(Json json) : v(std::move(json)) {}  // NOLINT: data are values
    Value(Undefined u) : v(std::move(u)) {}   // NOLINT
    static Value of(decltype(v) any) {
        Value value;
        value.v = std::move(any);
        return value;
    }
    const Json* json() const { return std::get_if<Json>(&v); }
    bool isString() const { return json() != nullptr && json()->is_string(); }
    const std::string& string() const { return json()->get_ref<const std::string&>(); }
    bool defined() const { return !std::holds_alternative<Undefined>(v); }
};

struct Arguments {
    std::vector<Value> positional;
    std::vector<std::pair<std::string, Value>> named;
    const Value* get(std::size_t i, std::string_view name) const {
        if (i < positional.size()) return &positional[i];
        for (const auto& [key, value] : named)
            if (key == name) return &value;
        return nullptr;
    }
};

/// A float as Python's str() writes it.
std::string pythonFloat(double d);
/// A value as Jinja's {{ }} writes it; `quoted`: as within a list.
std::string print(const Json& j, bool quoted);
/// A number or boolean as a float, as an integer.
double real(const Json& j);
std::int64_t whole(const Json& j);
/// Without any of `chars` at its ends; "" = white space.
std::string strip(const std::string& s, const std::string& chars, bool left, bool right);
std::string replaced(std::string s, const std::string& from, const std::string& to);
std::string cased(const std::string& s, bool upper);
/// Where each character of UTF-8 text begins, and its end.
std::vector<std::size_t> characters(const std::string& s);

}  // namespace sparsight::jinja
