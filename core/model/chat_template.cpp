#include "core/model/chat_template.h"

#include <algorithm>
#include <cmath>
#include <ctime>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <variant>

#include "core/model/chat_template_parser.h"
#include "core/model/json_input.h"
#include "core/model/tokenizer/unicode.h"
#include "kernels/base/error.h"

namespace sparsight {
namespace jinja {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::size_t kMaxOutput = 64u << 20;
constexpr std::int64_t kMaxSteps = 4'000'000;
constexpr int kMaxCalls = 100;

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

enum class Flow { Next, Break, Continue };

std::string pythonFloat(double d) {
    Json j = d;
    return j.dump();
}

/// As Python's str() or repr() prints it.
std::string print(const Json& j, bool quoted) {
    switch (j.type()) {
        case Json::value_t::null:
            return "None";
        case Json::value_t::boolean:
            return j.get<bool>() ? "True" : "False";
        case Json::value_t::number_float:
            return pythonFloat(j.get<double>());
        case Json::value_t::string: {
            const auto& s = j.get_ref<const std::string&>();
            if (!quoted) return s;
            const char q =
                s.find('\'') != std::string::npos && s.find('"') == std::string::npos ? '"' : '\'';
            std::string out(1, q);
            for (const char c : s) {
                if (c == '\n')
                    out += "\\n";
                else if (c == '\t')
                    out += "\\t";
                else if (c == '\r')
                    out += "\\r";
                else if (c == q || c == '\\')
                    out.append({'\\', c});
                else
                    out += c;
            }
            return out + q;
        }
        case Json::value_t::array:
        case Json::value_t::object: {
            std::string out(1, j.is_array() ? '[' : '{');
            bool first = true;
            for (const auto& [key, value] : j.items()) {
                if (!first) out += ", ";
                first = false;
                if (j.is_object()) out += print(Json(key), true) + ": ";
                out += print(value, true);
            }
            return out + (j.is_array() ? ']' : '}');
        }
        default:
            return j.dump();
    }
}

/// A boolean counts as 0 or 1, as in Python.
double real(const Json& j) {
    return j.is_boolean() ? double(j.get<bool>()) : j.get<double>();
}
std::int64_t whole(const Json& j) {
    return j.is_boolean() ? std::int64_t(j.get<bool>()) : j.get<std::int64_t>();
}

std::string strip(const std::string& s, const std::string& chars, bool left, bool right) {
    const std::string set = chars.empty() ? " \t\n\r\v\f" : chars;
    std::size_t begin = 0, end = s.size();
    while (left && begin < end && set.find(s[begin]) != std::string::npos) ++begin;
    while (right && end > begin && set.find(s[end - 1]) != std::string::npos) --end;
    return s.substr(begin, end - begin);
}

std::string replaced(std::string s, const std::string& from, const std::string& to) {
    if (from.empty()) return s;
    std::string out;
    std::size_t done = 0;
    for (std::size_t at; (at = s.find(from, done)) != std::string::npos && out.size() < kMaxOutput;
         done = at + from.size())
        out.append(s, done, at - done).append(to);
    return out.append(s, done);
}

std::string cased(const std::string& s, bool upper) {
    std::string out = s;
    for (char& c : out) {
        if (upper && c >= 'a' && c <= 'z') c = char(c - 'a' + 'A');
        if (!upper && c >= 'A' && c <= 'Z') c = char(c - 'A' + 'a');
    }
    return out;
}

/// Byte positions of the characters, and the end.
std::vector<std::size_t> characters(const std::string& s) {
    std::vector<std::size_t> at;
    for (std::size_t i = 0; i < s.size(); i += text::codePointAt(s, i).bytes) at.push_back(i);
    at.push_back(s.size());
    return at;
}

class Renderer {
public:
    Renderer(const std::string& where, std::map<std::string, Value> globals) : m_where(where) {
        m_scopes.push_back(std::move(globals));
    }

    std::string run(const Block& block) {
        render(block);
        return std::move(m_out);
    }

private:
    using Kind = Expression::Kind;

    [[noreturn]] void fail(int line, const std::string& what) const {
        throw Error(Errc::Format,
                    m_where + ", line " + std::to_string(line) +
                        ": the chat template cannot render this conversation: " + what);
    }
    void step(int line) {
        if (++m_steps > kMaxSteps || m_out.size() > kMaxOutput)
            throw Error(Errc::Resources, m_where + ", line " + std::to_string(line) +
                                             ": the chat template runs for too long");
    }

    /// Data that is copied or made counts as steps, 1 for `bytes` of a string: templates can double
    /// it again and again.
    void charge(const Json& j, std::size_t bytes, int line) {
        step(line);
        if (j.is_string()) m_steps += std::int64_t(j.get_ref<const std::string&>().size() / bytes);
        if (j.is_structured())
            for (const auto& item : j) charge(item, bytes, line);
    }

    const Value* lookUp(const std::string& name) const {
        for (std::size_t i = m_scopes.size(); i-- > m_macroBase;)
            if (const auto it = m_scopes[i].find(name); it != m_scopes[i].end()) return &it->second;
        const auto it = m_scopes[0].find(name);
        return it == m_scopes[0].end() ? nullptr : &it->second;
    }

    Flow render(const Block& block) {
        for (const Statement& s : block)
            if (const Flow flow = render(s); flow != Flow::Next) return flow;
        return Flow::Next;
    }

    Flow render(const Statement& s) {
        step(s.line);
        switch (s.kind) {
            case Statement::Kind::Text:
                m_out += s.text;
                break;
            case Statement::Kind::Output:
                m_out += text(evaluate(*s.value), s.line);
                break;
            case Statement::Kind::If:
                for (const auto& [condition, body] : s.branches)
                    if (!condition || truth(evaluate(*condition))) return render(body);
                break;
            case Statement::Kind::For:
                return loop(s);
            case Statement::Kind::Set:
                set(s);
                break;
            case Statement::Kind::Macro:
                m_scopes.back()[s.text] = Value::of(Macro{&s});
                break;
            case Statement::Kind::Group:
                return render(s.body);
            case Statement::Kind::Break:
                return Flow::Break;
            case Statement::Kind::Continue:
                return Flow::Continue;
        }
        return Flow::Next;
    }

    /// What a block writes, taken out of the output.
    std::string captured(const Block& block) {
        std::string before = std::move(m_out);
        m_out.clear();
        render(block);
        return std::exchange(m_out, std::move(before));
    }

    void assign(const std::vector<std::string>& names, Value value, int line) {
        if (names.size() == 1) {
            m_scopes.back()[names[0]] = std::move(value);
            return;
        }
        const Json* list = value.json();
        if (list == nullptr || !list->is_array() || list->size() != names.size())
            fail(line,
                 "a value cannot be taken apart into " + std::to_string(names.size()) + " names");
        for (std::size_t i = 0; i < names.size(); ++i) m_scopes.back()[names[i]] = (*list)[i];
    }

    void set(const Statement& s) {
        Value value = s.value ? evaluate(*s.value) : Value(Json(captured(s.body)));
        if (s.attribute.empty()) return assign(s.names, std::move(value), s.line);
        const Value* object = lookUp(s.names[0]);
        const auto* space =
            object == nullptr ? nullptr : std::get_if<std::shared_ptr<Namespace>>(&object->v);
        if (space == nullptr) fail(s.line, "'" + s.names[0] + "' is not a namespace");
        (*space)->values[s.attribute] = std::move(value);
    }

    Flow loop(const Statement& s) {
        const Value over = evaluate(*s.value);
        Json items = list(over, s.line);
        m_scopes.emplace_back();
        if (s.condition) {
            Json kept = Json::array();
            for (Json& item : items) {
                assign(s.names, item, s.line);
                if (truth(evaluate(*s.condition))) kept.push_back(std::move(item));
            }
            items = std::move(kept);
        }
        const std::size_t n = items.size();
        for (std::size_t i = 0; i < n; ++i) {
            step(s.line);
            m_scopes.back().clear();
            m_scopes.back()["loop"] = Value::of(std::make_shared<Namespace>(Namespace{
                {{"index", Json(i + 1)},
                 {"index0", Json(i)},
                 {"revindex", Json(n - i)},
                 {"revindex0", Json(n - i - 1)},
                 {"first", Json(i == 0)},
                 {"last", Json(i + 1 == n)},
                 {"length", Json(n)},
                 {"previtem", i > 0 ? Value(items[i - 1]) : Value(Undefined{"loop.previtem"})},
                 {"nextitem",
                  i + 1 < n ? Value(items[i + 1]) : Value(Undefined{"loop.nextitem"})}}}));
            assign(s.names, items[i], s.line);
            if (render(s.body) == Flow::Break) break;
        }
        m_scopes.pop_back();
        return n == 0 ? render(s.orElse) : Flow::Next;
    }

    // --- Values

    static bool truth(const Value& value) {
        const Json* j = value.json();
        if (j == nullptr) return value.defined();
        if (j->is_null()) return false;
        if (j->is_boolean()) return j->get<bool>();
        if (j->is_number()) return j->get<double>() != 0;
        if (j->is_string()) return !value.string().empty();
        return !j->empty();
    }

    std::string text(const Value& value, int line) const {
        if (const Json* j = value.json()) return print(*j, false);
        if (!value.defined()) return {};
        fail(line, "a function or namespace cannot be printed");
    }

    const Json& data(const Value& value, int line) const {
        if (const Json* j = value.json()) return *j;
        if (const auto* u = std::get_if<Undefined>(&value.v))
            fail(line, "'" + u->name + "' is undefined");
        fail(line, "a function or namespace is used as a value");
    }
    const std::string& stringOf(const Value& value, int line, const char* use) const {
        if (!value.isString()) fail(line, std::string(use) + " needs a string");
        return value.string();
    }

    /// What a loop, `in` or a list filter goes through.
    Json list(const Value& value, int line) const {
        if (!value.defined()) return Json::array();
        const Json& j = data(value, line);
        if (j.is_array()) return j;
        Json out = Json::array();
        if (j.is_object()) {
            for (const auto& [key, one] : j.items()) out.push_back(key);
        } else if (j.is_string()) {
            const auto& s = j.get_ref<const std::string&>();
            const auto at = characters(s);
            for (std::size_t i = 0; i + 1 < at.size(); ++i)
                out.push_back(s.substr(at[i], at[i + 1] - at[i]));
        } else {
            fail(line, "a " + std::string(j.type_name()) + " is no list");
        }
        return out;
    }

    Value attribute(const Value& object, const std::string& name, int line) {
        if (const auto* space = std::get_if<std::shared_ptr<Namespace>>(&object.v)) {
            const auto it = (*space)->values.find(name);
            return it == (*space)->values.end() ? Value(Undefined{name}) : it->second;
        }
        const Json& j = data(object, line);
        static const std::map<Json::value_t, std::vector<std::string>> methods = {
            {Json::value_t::string,
             {"strip", "lstrip", "rstrip", "split", "startswith", "endswith", "replace", "upper",
              "lower", "title", "capitalize", "find", "count", "join", "removeprefix",
              "removesuffix"}},
            {Json::value_t::object, {"items", "keys", "values", "get"}}};
        const auto it = methods.find(j.type());
        const bool method = it != methods.end() && std::find(it->second.begin(), it->second.end(),
                                                             name) != it->second.end();
        if (method) return Value::of(Function{name, std::make_shared<const Value>(object)});
        if (j.is_object() && j.contains(name)) return j[name];
        return Undefined{name};
    }

    Value element(const Value& object, const Value& index, int line) {
        if (index.isString()) {
            if (const Json* j = object.json(); j != nullptr && j->is_object())
                return j->contains(index.string()) ? Value((*j)[index.string()])
                                                   : Value(Undefined{index.string()});
            return attribute(object, index.string(), line);
        }
        const Json& j = data(object, line);
        const Json& i = data(index, line);
        if (!i.is_number_integer()) return Undefined{"element"};
        auto k = i.get<std::int64_t>();
        const Json items = j.is_string() || j.is_array() ? list(object, line) : Json::array();
        if (k < 0) k += std::int64_t(items.size());
        if (k < 0 || k >= std::int64_t(items.size())) return Undefined{"element"};
        return items[std::size_t(k)];
    }

    Value slice(const Expression& e) {
        const Value object = evaluate(*e.parts[0]);
        const Json items = list(object, e.line);
        const auto n = std::int64_t(items.size());
        const auto part = [&](std::size_t p, std::int64_t standard) {
            if (!e.parts[p]) return standard;
            const Value v = evaluate(*e.parts[p]);
            const Json& j = data(v, e.line);
            if (j.is_null()) return standard;
            if (!j.is_number_integer()) fail(e.line, "a slice needs whole numbers");
            return j.get<std::int64_t>();
        };
        const std::int64_t stride = part(3, 1);
        if (stride == 0) fail(e.line, "a slice cannot have the step 0");
        const std::int64_t low = stride > 0 ? 0 : -1, high = stride > 0 ? n : n - 1;
        const auto bound = [&](std::size_t p, std::int64_t standard) {
            const std::int64_t missing = INT64_MIN;
            std::int64_t v = part(p, missing);
            if (v == missing) return standard;
            if (v < 0) v += n;
            return std::clamp(v, low, high);
        };
        const std::int64_t begin = bound(1, stride > 0 ? 0 : n - 1);
        const std::int64_t end = bound(2, stride > 0 ? n : -1);
        Json out = Json::array();
        for (std::int64_t i = begin; stride > 0 ? i < end : i > end; i += stride)
            out.push_back(items[std::size_t(i)]);
        if (!object.isString()) return out;
        std::string joined;
        for (const Json& c : out) joined += c.get_ref<const std::string&>();
        return Json(joined);
    }

    // --- Expressions

    Value evaluate(const Expression& e) {
        Value value = computed(e);
        const bool copied =
            e.kind == Kind::Variable || e.kind == Kind::Attribute || e.kind == Kind::Index;
        if (const Json* j = value.json()) charge(*j, copied ? 4096 : 64, e.line);
        return value;
    }

    Value computed(const Expression& e) {
        switch (e.kind) {
            case Kind::String:
                return Json(e.name);
            case Kind::Integer:
                return Json(e.number);
            case Kind::Float:
                return Json(e.real);
            case Kind::True:
                return Json(true);
            case Kind::False:
                return Json(false);
            case Kind::None:
                return Json();
            case Kind::Variable:
                if (const Value* v = lookUp(e.name)) return *v;
                return Undefined{e.name};
            case Kind::List: {
                Json out = Json::array();
                for (const auto& p : e.parts) out.push_back(data(evaluate(*p), e.line));
                return out;
            }
            case Kind::Dict: {
                Json out = Json::object();
                for (std::size_t i = 0; i + 1 < e.parts.size(); i += 2)
                    out[text(evaluate(*e.parts[i]), e.line)] =
                        data(evaluate(*e.parts[i + 1]), e.line);
                return out;
            }
            case Kind::Attribute: {
                const Value object = evaluate(*e.parts[0]);
                if (const Json* j = object.json();
                    j != nullptr && j->is_object() && j->contains(e.name) && e.name != "items" &&
                    e.name != "keys" && e.name != "values" && e.name != "get")
                    return (*j)[e.name];
                return attribute(object, e.name, e.line);
            }
            case Kind::Index:
                return element(evaluate(*e.parts[0]), evaluate(*e.parts[1]), e.line);
            case Kind::Slice:
                return slice(e);
            case Kind::Call:
                return call(e);
            case Kind::Filter: {
                const Value subject = evaluate(*e.parts[0]);
                return filter(e.name, subject, arguments(e), e.line);
            }
            case Kind::Test: {
                const Value subject = evaluate(*e.parts[0]);
                return Json(test(e.name, subject, arguments(e), e.line));
            }
            case Kind::Unary:
                return unary(e);
            case Kind::Binary:
                return binary(e);
            case Kind::Choice:
                if (truth(evaluate(*e.parts[0]))) return evaluate(*e.parts[1]);
                return e.parts[2] ? evaluate(*e.parts[2]) : Value(Undefined{"else"});
        }
        return {};
    }

    /// The arguments behind parts[0].
    Arguments arguments(const Expression& e) {
        Arguments a;
        for (std::size_t i = 1; i < e.parts.size(); ++i)
            a.positional.push_back(evaluate(*e.parts[i]));
        for (const auto& [name, value] : e.named) a.named.emplace_back(name, evaluate(*value));
        return a;
    }

    Value unary(const Expression& e) {
        const Value v = evaluate(*e.parts[0]);
        if (e.name == "not") return Json(!truth(v));
        const Json& j = data(v, e.line);
        if (!j.is_number()) fail(e.line, "a sign needs a number");
        if (e.name == "+") return j;
        return j.is_number_float() ? Json(-j.get<double>()) : Json(-j.get<std::int64_t>());
    }

    bool contains(const Value& container, const Value& item, int line) const {
        const Json& c = data(container, line);
        if (c.is_string())
            return container.string().find(stringOf(item, line, "'in' on a string")) !=
                   std::string::npos;
        const Json& i = data(item, line);
        if (c.is_object()) return i.is_string() && c.contains(i.get_ref<const std::string&>());
        if (!c.is_array()) fail(line, "'in' needs a list, an object or a string");
        return std::find(c.begin(), c.end(), i) != c.end();
    }

    static bool equal(const Value& a, const Value& b) {
        if (a.json() != nullptr && b.json() != nullptr) return *a.json() == *b.json();
        return !a.defined() && !b.defined();
    }

    Value binary(const Expression& e) {
        const std::string& op = e.name;
        Value a = evaluate(*e.parts[0]);
        if (op == "and") return truth(a) ? evaluate(*e.parts[1]) : a;
        if (op == "or") return truth(a) ? a : evaluate(*e.parts[1]);
        const Value b = evaluate(*e.parts[1]);
        if (op == "==") return Json(equal(a, b));
        if (op == "!=") return Json(!equal(a, b));
        if (op == "~") return Json(text(a, e.line) + text(b, e.line));
        if (op == "in") return Json(contains(b, a, e.line));
        if (op == "not in") return Json(!contains(b, a, e.line));
        const Json &x = data(a, e.line), &y = data(b, e.line);
        const bool strings = x.is_string() && y.is_string();
        const bool numbers = (x.is_number() || x.is_boolean()) && (y.is_number() || y.is_boolean());
        if (op == "<" || op == ">" || op == "<=" || op == ">=") {
            if (!strings && !numbers)
                fail(e.line,
                     std::string("cannot compare ") + x.type_name() + " with " + y.type_name());
            const Json p = numbers ? Json(real(x)) : x, q = numbers ? Json(real(y)) : y;
            return Json(op == "<" ? p < q : op == ">" ? p > q : op == "<=" ? p <= q : p >= q);
        }
        if (op == "+" && strings) return Json(a.string() + b.string());
        if (op == "+" && x.is_array() && y.is_array()) {
            Json out = x;
            out.insert(out.end(), y.begin(), y.end());
            return out;
        }
        if (op == "*" && x.is_string() && y.is_number_integer()) {
            const auto n = y.get<std::int64_t>();
            if (n > 0 && std::size_t(n) > kMaxOutput / (a.string().size() + 1))
                fail(e.line, "a string is repeated too often");
            std::string out;
            for (std::int64_t i = 0; i < n; ++i) out += a.string();
            return Json(out);
        }
        if (!numbers)
            fail(e.line, "'" + op + "' between " + x.type_name() + " and " + y.type_name());
        return arithmetic(op, x, y, e.line);
    }

    Value arithmetic(const std::string& op, const Json& x, const Json& y, int line) const {
        const bool integers = !x.is_number_float() && !y.is_number_float();
        if ((op == "/" || op == "//" || op == "%") && real(y) == 0) fail(line, "division by zero");
        if (!integers || op == "/") {
            const double p = real(x), q = real(y);
            if (op == "%") return Json(p - q * std::floor(p / q));
            return Json(op == "+"   ? p + q
                        : op == "-" ? p - q
                        : op == "*" ? p * q
                        : op == "/" ? p / q
                                    : std::floor(p / q));
        }
        const auto p = whole(x), q = whole(y);
        std::int64_t out = 0;
        const bool overflow = op == "+"   ? __builtin_add_overflow(p, q, &out)
                              : op == "-" ? __builtin_sub_overflow(p, q, &out)
                              : op == "*" ? __builtin_mul_overflow(p, q, &out)
                                          : p == INT64_MIN && q == -1;
        if (overflow) fail(line, "a number is too large");
        if (op == "//" || op == "%") {
            const std::int64_t quotient = p / q - (p % q != 0 && (p < 0) != (q < 0) ? 1 : 0);
            out = op == "//" ? quotient : p - quotient * q;
        }
        return Json(out);
    }

    // --- Functions, methods, filters, tests

    Value call(const Expression& e) {
        const Value callee = evaluate(*e.parts[0]);
        if (const auto* macro = std::get_if<Macro>(&callee.v))
            return callMacro(*macro->statement, arguments(e), e.line);
        const auto* function = std::get_if<Function>(&callee.v);
        if (function == nullptr) {
            const Expression& named = *e.parts[0];
            unsupported(
                m_where, e.line,
                named.name.empty() ? "a call of a value" : "the function " + named.name + "()");
        }
        const Arguments a = arguments(e);
        if (function->self) return method(function->name, *function->self, a, e.line);
        return globalFunction(function->name, a, e.line);
    }

    Value callMacro(const Statement& macro, const Arguments& a, int line) {
        if (++m_calls > kMaxCalls) fail(line, "macros call each other too deeply");
        std::map<std::string, Value> scope;
        for (std::size_t i = 0; i < macro.names.size(); ++i) {
            const Value* given = a.get(i, macro.names[i]);
            scope[macro.names[i]] = given != nullptr    ? *given
                                    : macro.defaults[i] ? evaluate(*macro.defaults[i])
                                                        : Value(Undefined{macro.names[i]});
        }
        // A macro sees its parameters and the template's own variables.
        const std::size_t base = std::exchange(m_macroBase, m_scopes.size());
        m_scopes.push_back(std::move(scope));
        std::string out = captured(macro.body);
        m_scopes.pop_back();
        m_macroBase = base;
        --m_calls;
        return Json(std::move(out));
    }

    Value globalFunction(const std::string& name, const Arguments& a, int line) {
        if (name == "raise_exception")
            throw Error(Errc::Format,
                        m_where + ": the chat template refuses this conversation: " +
                            (a.positional.empty() ? "" : text(a.positional[0], line)));
        if (name == "namespace") {
            auto space = std::make_shared<Namespace>();
            for (const auto& [key, value] : a.named) space->values[key] = value;
            return Value::of(std::move(space));
        }
        if (name == "range") {
            const auto number = [&](std::size_t i) {
                const Json& j = data(a.positional.at(i), line);
                if (!j.is_number_integer()) fail(line, "range() needs whole numbers");
                return j.get<std::int64_t>();
            };
            if (a.positional.empty() || a.positional.size() > 3)
                fail(line, "range() takes 1 to 3 numbers");
            const bool one = a.positional.size() == 1;
            const std::int64_t begin = one ? 0 : number(0), end = number(one ? 0 : 1);
            const std::int64_t stride = a.positional.size() == 3 ? number(2) : 1;
            if (stride == 0) fail(line, "range() cannot have the step 0");
            Json out = Json::array();
            for (std::int64_t i = begin; stride > 0 ? i < end : i > end; i += stride) {
                step(line);
                out.push_back(i);
            }
            return out;
        }
        if (name == "dict") {
            Json out = Json::object();
            for (const auto& [key, value] : a.named) out[key] = data(value, line);
            return out;
        }
        // strftime_now
        const std::string format =
            a.positional.empty() ? "%Y-%m-%d" : stringOf(a.positional[0], line, "strftime_now");
        const std::time_t now = std::time(nullptr);
        std::tm local{};
        localtime_r(&now, &local);
        char buffer[256];
        return Json(
            std::string(buffer, std::strftime(buffer, sizeof buffer, format.c_str(), &local)));
    }

    Value method(const std::string& name, const Value& self, const Arguments& a, int line) {
        const auto argument = [&](std::size_t i) {
            return i < a.positional.size() && a.positional[i].isString() ? a.positional[i].string()
                                                                         : std::string();
        };
        if (!self.isString()) {
            const Json& object = data(self, line);
            if (name == "get") {
                if (a.positional.empty()) fail(line, "get() needs a key");
                const std::string key = text(a.positional[0], line);
                if (object.contains(key)) return object[key];
                return a.positional.size() > 1 ? a.positional[1] : Value();
            }
            return filter(name, self, a, line);  // items, keys, values
        }
        const std::string& s = self.string();
        if (name == "strip" || name == "lstrip" || name == "rstrip")
            return Json(strip(s, argument(0), name != "rstrip", name != "lstrip"));
        if (name == "startswith" || name == "endswith") {
            const Json options = a.positional.empty() ? Json("") : data(a.positional[0], line);
            const auto matches = [&](const Json& j) {
                if (!j.is_string()) fail(line, name + "() needs a string");
                const auto& affix = j.get_ref<const std::string&>();
                return name == "startswith" ? s.starts_with(affix) : s.ends_with(affix);
            };
            return Json(options.is_array() ? std::any_of(options.begin(), options.end(), matches)
                                           : matches(options));
        }
        if (name == "removeprefix")
            return Json(s.starts_with(argument(0)) ? s.substr(argument(0).size()) : s);
        if (name == "removesuffix")
            return Json(s.ends_with(argument(0)) ? s.substr(0, s.size() - argument(0).size()) : s);
        if (name == "find") {
            const std::size_t at = s.find(argument(0));
            return Json(at == std::string::npos
                            ? std::int64_t{-1}
                            : std::int64_t(text::countCodePoints(s.substr(0, at))));
        }
        if (name == "count") {
            const std::string part = argument(0);
            if (part.empty()) return Json(text::countCodePoints(s) + 1);
            std::int64_t n = 0;
            for (std::size_t at = 0; (at = s.find(part, at)) != std::string::npos;
                 at += part.size())
                ++n;
            return Json(n);
        }
        if (name == "split") return split(s, a, line);
        if (name == "join") {
            if (a.positional.empty()) fail(line, "join() needs a list");
            return filter("join", a.positional[0], Arguments{{self}, {}}, line);
        }
        return filter(name, self, a, line);  // upper, lower, title, capitalize, replace
    }

    Value split(const std::string& s, const Arguments& a, int line) const {
        Json out = Json::array();
        std::int64_t most = INT64_MAX;
        if (const Value* limit = a.get(1, "maxsplit")) {
            const Json& j = data(*limit, line);
            if (j.is_number_integer() && j.get<std::int64_t>() >= 0) most = j.get<std::int64_t>();
        }
        const Value* separator = a.get(0, "sep");
        if (separator != nullptr && separator->isString()) {
            const std::string& by = separator->string();
            if (by.empty()) fail(line, "split() needs a separator that is not empty");
            std::size_t done = 0;
            for (std::size_t at; most > 0 && (at = s.find(by, done)) != std::string::npos; --most) {
                out.push_back(s.substr(done, at - done));
                done = at + by.size();
            }
            out.push_back(s.substr(done));
            return out;
        }
        constexpr const char* kSpace = " \t\n\r\v\f";
        for (std::size_t at = 0; (at = s.find_first_not_of(kSpace, at)) != std::string::npos;) {
            const std::size_t end = most > 0 ? std::min(s.find_first_of(kSpace, at), s.size())
                                             : s.find_last_not_of(kSpace) + 1;
            out.push_back(s.substr(at, end - at));
            at = end;
            --most;
        }
        return out;
    }

    Value filter(const std::string& name, const Value& v, const Arguments& a, int line) {
        if (name == "default" || name == "d") {
            const Value* other = a.get(0, "default_value");
            const Value* boolean = a.get(1, "boolean");
            const bool use = !v.defined() || (boolean != nullptr && truth(*boolean) && !truth(v));
            return use ? (other == nullptr ? Value(Json("")) : *other) : v;
        }
        if (name == "trim" || name == "strip") {
            const Value* chars = a.get(0, "chars");
            return Json(strip(text(v, line),
                              chars != nullptr && chars->isString() ? chars->string() : "", true,
                              true));
        }
        if (name == "tojson") return Json(toJson(data(v, line), a, line));
        if (name == "string" || name == "safe") return Json(text(v, line));
        if (name == "upper" || name == "lower") return Json(cased(text(v, line), name == "upper"));
        if (name == "capitalize" || name == "title") {
            std::string s = cased(text(v, line), false);
            bool start = true;
            for (char& c : s) {
                const bool letter = std::isalpha(static_cast<unsigned char>(c)) != 0;
                if (start && c >= 'a' && c <= 'z') c = char(c - 'a' + 'A');
                start = name == "title" ? !letter : false;
            }
            return Json(s);
        }
        if (name == "replace") {
            if (a.positional.size() < 2) fail(line, "replace needs two strings");
            return Json(
                replaced(text(v, line), text(a.positional[0], line), text(a.positional[1], line)));
        }
        if (name == "length" || name == "count") {
            if (v.isString()) return Json(text::countCodePoints(v.string()));
            return Json(list(v, line).size());
        }
        if (name == "items") {
            if (!v.defined()) return Json::array();
            const Json& j = data(v, line);
            if (!j.is_object()) fail(line, "items needs an object");
            Json out = Json::array();
            for (const auto& [key, value] : j.items()) out.push_back(Json::array({key, value}));
            return out;
        }
        if (name == "int" || name == "float") {
            const Json& j = data(v, line);
            double d = 0;
            if (j.is_number() || j.is_boolean())
                d = real(j);
            else if (j.is_string())
                d = std::strtod(v.string().c_str(), nullptr);
            if (name == "float") return Json(d);
            if (j.is_number_integer()) return j;
            return Json(std::abs(d) < 9e18 ? std::int64_t(d) : std::int64_t{0});
        }
        if (name == "abs") {
            const Json& j = data(v, line);
            if (!j.is_number()) fail(line, "abs needs a number");
            return j.is_number_float() ? Json(std::abs(j.get<double>()))
                                       : Json(std::abs(j.get<std::int64_t>()));
        }
        if (name == "first" || name == "last") {
            const Json items = list(v, line);
            if (items.empty()) return Undefined{name};
            return name == "first" ? items.front() : items.back();
        }
        if (name == "list" || name == "keys") return list(v, line);
        if (name == "values") {
            Json out = Json::array();
            for (const auto& [key, value] : data(v, line).items()) out.push_back(value);
            return out;
        }
        if (name == "reverse") {
            Json items = list(v, line);
            std::reverse(items.begin(), items.end());
            if (!v.isString()) return items;
            std::string s;
            for (const Json& c : items) s += c.get_ref<const std::string&>();
            return Json(s);
        }
        if (name == "join") {
            const Value* by = a.get(0, "d");
            const Value* key = a.get(1, "attribute");
            std::string out;
            bool first = true;
            for (const Json& item : list(v, line)) {
                if (out.size() > kMaxOutput) fail(line, "a joined string is too long");
                if (!first && by != nullptr) out += text(*by, line);
                first = false;
                out += key == nullptr ? text(Value(item), line)
                                      : text(element(Value(item), *key, line), line);
            }
            return Json(out);
        }
        if (name == "map") return map(v, a, line);
        if (name == "selectattr" || name == "rejectattr" || name == "select" || name == "reject")
            return select(name, v, a, line);
        unsupported(m_where, line, "the filter " + name);
    }

    Value map(const Value& v, const Arguments& a, int line) {
        Json out = Json::array();
        const Value* key = nullptr;
        for (const auto& [name, value] : a.named)
            if (name == "attribute") key = &value;
        for (const Json& item : list(v, line)) {
            if (key != nullptr) {
                const Value found = element(Value(item), *key, line);
                out.push_back(found.defined() ? data(found, line) : Json());
                continue;
            }
            if (a.positional.empty() || !a.positional[0].isString())
                unsupported(m_where, line, "map without a filter's name");
            Arguments rest;
            rest.positional.assign(a.positional.begin() + 1, a.positional.end());
            out.push_back(data(filter(a.positional[0].string(), Value(item), rest, line), line));
        }
        return out;
    }

    Value select(const std::string& name, const Value& v, const Arguments& a, int line) {
        const bool byAttribute = name.ends_with("attr"), keep = name.starts_with("select");
        std::size_t at = 0;
        if (byAttribute && a.positional.empty()) fail(line, name + " needs an attribute");
        if (byAttribute) ++at;
        Arguments rest;
        if (a.positional.size() > at + 1)
            rest.positional.assign(a.positional.begin() + std::ptrdiff_t(at) + 1,
                                   a.positional.end());
        Json out = Json::array();
        for (const Json& item : list(v, line)) {
            const Value subject =
                byAttribute ? element(Value(item), a.positional[0], line) : Value(item);
            const bool holds = a.positional.size() > at
                                   ? test(text(a.positional[at], line), subject, rest, line)
                                   : truth(subject);
            if (holds == keep) out.push_back(item);
        }
        return out;
    }

    bool test(const std::string& name, const Value& v, const Arguments& a, int line) const {
        const Json* j = v.json();
        const auto other = [&]() -> const Value& {
            if (a.positional.empty()) fail(line, "the test " + name + " needs a value");
            return a.positional[0];
        };
        if (name == "defined") return v.defined();
        if (name == "undefined") return !v.defined();
        if (name == "none") return j != nullptr && j->is_null();
        if (name == "string") return v.isString();
        if (name == "mapping") return j != nullptr && j->is_object();
        if (name == "iterable" || name == "sequence")
            return j != nullptr && (j->is_array() || j->is_object() || j->is_string());
        if (name == "number") return j != nullptr && (j->is_number() || j->is_boolean());
        if (name == "integer") return j != nullptr && j->is_number_integer();
        if (name == "float") return j != nullptr && j->is_number_float();
        if (name == "boolean") return j != nullptr && j->is_boolean();
        if (name == "true") return j != nullptr && j->is_boolean() && j->get<bool>();
        if (name == "false") return j != nullptr && j->is_boolean() && !j->get<bool>();
        if (name == "equalto" || name == "eq" || name == "sameas") return equal(v, other());
        if (name == "ne") return !equal(v, other());
        if (name == "in") return contains(other(), v, line);
        if (name == "odd" || name == "even") {
            if (j == nullptr || !j->is_number_integer()) fail(line, name + " needs a whole number");
            return (j->get<std::int64_t>() % 2 != 0) == (name == "odd");
        }
        if (name == "callable")
            return std::holds_alternative<Function>(v.v) || std::holds_alternative<Macro>(v.v);
        unsupported(m_where, line, "the test " + name);
    }

    /// As Python's json.dumps: ", " and ": " between, characters as they are.
    std::string toJson(const Json& j, const Arguments& a, int line) const {
        std::int64_t indent = -1;
        if (const Value* given = a.get(0, "indent")) {
            const Json& n = data(*given, line);
            if (n.is_number_integer())
                indent = std::clamp<std::int64_t>(n.get<std::int64_t>(), 0, 16);
        }
        std::string out;
        const std::function<void(const Json&, std::int64_t)> write = [&](const Json& x,
                                                                         std::int64_t depth) {
            if (!x.is_structured() || x.empty()) {
                out += x.dump();
                return;
            }
            const auto newLine = [&](std::int64_t d) {
                if (indent >= 0) out.append("\n").append(std::size_t(indent * d), ' ');
            };
            out += x.is_array() ? '[' : '{';
            bool first = true;
            for (const auto& [key, value] : x.items()) {
                if (!first) out += indent >= 0 ? "," : ", ";
                first = false;
                newLine(depth + 1);
                if (x.is_object()) out += Json(key).dump() + ": ";
                write(value, depth + 1);
            }
            newLine(depth);
            out += x.is_array() ? ']' : '}';
        };
        write(j, 0);
        return out;
    }

    const std::string& m_where;
    std::vector<std::map<std::string, Value>> m_scopes;
    std::size_t m_macroBase = 0;  ///< scopes below it (but the first) are not seen
    std::string m_out;
    std::int64_t m_steps = 0;
    int m_calls = 0;
};

}  // namespace
}  // namespace jinja

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

struct ChatTemplate::Impl {
    jinja::Block block;
    Json tokens;
    std::string where;
};

namespace {

constexpr std::size_t kMaxTemplate = 16u << 20;

/// Strings, and added tokens written as objects.
void addTokens(const nlohmann::json& config, Json& tokens) {
    if (!config.is_object()) return;
    for (const char* key : {"bos_token", "eos_token", "unk_token", "pad_token", "sep_token",
                            "cls_token", "mask_token"}) {
        if (!config.contains(key)) continue;
        const nlohmann::json& v = config[key];
        if (v.is_string()) tokens[key] = v.get<std::string>();
        if (v.is_object() && v.contains("content") && v["content"].is_string())
            tokens[key] = v["content"].get<std::string>();
    }
}

struct Source {
    std::string text, where;
    Json tokens = Json::object();
};

/// A template as a string, or a list of named ones.
std::optional<std::string> templateOf(const nlohmann::json& file, const std::string& where) {
    if (!file.is_object() || !file.contains("chat_template")) return std::nullopt;
    const nlohmann::json& t = file["chat_template"];
    if (t.is_null()) return std::nullopt;
    if (t.is_string()) return t.get<std::string>();
    if (t.is_array())
        for (const nlohmann::json& one : t)
            if (one.is_object() && one.value("name", nlohmann::json()) == "default" &&
                one.contains("template") && one["template"].is_string())
                return one["template"].get<std::string>();
    throw Error(Errc::Format, where +
                                  ": chat_template is neither a string nor a list with a "
                                  "template named \"default\"");
}

std::optional<Source> findTemplate(const fs::path& directory) {
    std::error_code code;
    Source s;
    nlohmann::json config;
    const fs::path configFile = directory / "tokenizer_config.json";
    if (fs::exists(configFile, code))
        config = parseJson(readTextFile(configFile, kMaxTemplate), configFile.string());
    const fs::path map = directory / "special_tokens_map.json";
    if (fs::exists(map, code))
        addTokens(parseJson(readTextFile(map, kMaxTemplate), map.string()), s.tokens);
    addTokens(config, s.tokens);
    const fs::path jinja = directory / "chat_template.jinja",
                   json = directory / "chat_template.json";
    if (fs::exists(jinja, code)) {
        s.text = readTextFile(jinja, kMaxTemplate);
        s.where = jinja.string();
        return s;
    }
    if (fs::exists(json, code)) {
        s.where = json.string();
        if (auto t = templateOf(parseJson(readTextFile(json, kMaxTemplate), s.where), s.where)) {
            s.text = std::move(*t);
            return s;
        }
    }
    s.where = configFile.string();
    auto t = templateOf(config, s.where);
    if (!t) return std::nullopt;
    s.text = std::move(*t);
    return s;
}

}  // namespace

ChatTemplate::ChatTemplate(const std::string& source, const Json& tokens,
                           const std::string& where) {
    if (text::firstInvalidUtf8(source) != std::string::npos)
        throw Error(Errc::Format, where + ": the chat template is not UTF-8");
    auto impl = std::make_shared<Impl>();
    impl->block = jinja::parse(source, where);
    impl->tokens = tokens;
    impl->where = where;
    m_impl = std::move(impl);
}

bool ChatTemplate::exists(const fs::path& modelDirectory) {
    return findTemplate(modelDirectory).has_value();
}

ChatTemplate ChatTemplate::load(const fs::path& modelDirectory) {
    const std::optional<Source> s = findTemplate(modelDirectory);
    if (!s)
        throw Error(Errc::NotFound, modelDirectory.string() +
                                        " has no chat template (chat_template.jinja, or "
                                        "chat_template in tokenizer_config.json): give the prompt "
                                        "as a text");
    return {s->text, s->tokens, s->where};
}

std::string ChatTemplate::render(const Json& messages, bool addGenerationPrompt) const {
    std::map<std::string, jinja::Value> globals;
    for (const char* name : {"raise_exception", "namespace", "range", "dict", "strftime_now"})
        globals[name] = jinja::Value::of(jinja::Function{name, nullptr});
    for (const auto& [name, token] : m_impl->tokens.items()) globals[name] = token;
    globals["messages"] = messages;
    globals["add_generation_prompt"] = Json(addGenerationPrompt);
    globals["tools"] = Json();
    globals["documents"] = Json();
    try {
        return jinja::Renderer(m_impl->where, std::move(globals)).run(m_impl->block);
    } catch (const nlohmann::json::exception& e) {
        throw Error(Errc::Format, m_impl->where + ": the chat template mixes types: " + e.what());
    }
}

Json parseChat(const std::string& json, const std::string& where) {
    parseJson(json, where);  // refuses duplicate keys and deep nesting
    Json chat = Json::parse(json);
    if (chat.is_object() && chat.contains("messages")) chat = Json(chat["messages"]);
    if (!chat.is_array() || chat.empty())
        throw Error(Errc::Format, where +
                                      ": a conversation is a list of messages, each "
                                      "{\"role\": \"user\", \"content\": \"...\"}");
    for (std::size_t i = 0; i < chat.size(); ++i)
        if (!chat[i].is_object() || !chat[i].contains("role") || !chat[i]["role"].is_string() ||
            !chat[i].contains("content"))
            throw Error(Errc::Format, where + ": message " + std::to_string(i + 1) +
                                          " needs a \"role\" (a string) and a \"content\"");
    return chat;
}

std::string chatPrompt(const fs::path& modelDirectory, const std::string& json,
                       const std::string& where) {
    return ChatTemplate::load(modelDirectory).render(parseChat(json, where));
}

}  // namespace sparsight
