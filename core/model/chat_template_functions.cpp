// Functions, methods, filters and tests of a chat template.
#include <algorithm>
#include <cmath>
#include <ctime>
#include <functional>

#include "core/model/chat_template_renderer.h"
#include "core/model/tokenizer/unicode.h"
#include "kernels/base/error.h"

namespace sparsight::jinja {
namespace {

constexpr int kMaxCalls = 100;

}  // namespace

Value Renderer::call(const Expression& e) {
    const Value callee = evaluate(*e.parts[0]);
    if (const auto* macro = std::get_if<Macro>(&callee.v))
        return callMacro(*macro->statement, arguments(e), e.line);
    const auto* function = std::get_if<Function>(&callee.v);
    if (function == nullptr) {
        const Expression& named = *e.parts[0];
        unsupported(m_where, e.line,
                    named.name.empty() ? "a call of a value" : "the function " + named.name + "()");
    }
    const Arguments a = arguments(e);
    if (function->self) return method(function->name, *function->self, a, e.line);
    return globalFunction(function->name, a, e.line);
}

Value Renderer::callMacro(const Statement& macro, const Arguments& a, int line) {
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

Value Renderer::globalFunction(const std::string& name, const Arguments& a, int line) {
    if (name == "raise_exception")
        throw Error(Errc::Format, m_where + ": the chat template refuses this conversation: " +
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
    return Json(std::string(buffer, std::strftime(buffer, sizeof buffer, format.c_str(), &local)));
}

Value Renderer::method(const std::string& name, const Value& self, const Arguments& a, int line) {
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
        return Json(at == std::string::npos ? std::int64_t{-1}
                                            : std::int64_t(text::countCodePoints(s.substr(0, at))));
    }
    if (name == "count") {
        const std::string part = argument(0);
        if (part.empty()) return Json(text::countCodePoints(s) + 1);
        std::int64_t n = 0;
        for (std::size_t at = 0; (at = s.find(part, at)) != std::string::npos; at += part.size())
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

Value Renderer::split(const std::string& s, const Arguments& a, int line) const {
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

Value Renderer::filter(const std::string& name, const Value& v, const Arguments& a, int line) {
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
    if (name == "dictsort") {  // by key, whatever its case
        if (!a.positional.empty() || !a.named.empty())
            unsupported(m_where, line, "dictsort with arguments");
        const Value pairs = filter("items", v, a, line);
        Json out = list(pairs, line);
        const auto key = [](const Json& pair) { return cased(pair[0].get<std::string>(), false); };
        std::stable_sort(out.begin(), out.end(),
                         [&](const Json& x, const Json& y) { return key(x) < key(y); });
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

Value Renderer::map(const Value& v, const Arguments& a, int line) {
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

Value Renderer::select(const std::string& name, const Value& v, const Arguments& a, int line) {
    const bool byAttribute = name.ends_with("attr"), keep = name.starts_with("select");
    std::size_t at = 0;
    if (byAttribute && a.positional.empty()) fail(line, name + " needs an attribute");
    if (byAttribute) ++at;
    Arguments rest;
    if (a.positional.size() > at + 1)
        rest.positional.assign(a.positional.begin() + std::ptrdiff_t(at) + 1, a.positional.end());
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

bool Renderer::test(const std::string& name, const Value& v, const Arguments& a, int line) const {
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

std::string Renderer::toJson(const Json& j, const Arguments& a, int line) const {
    std::int64_t indent = -1;
    if (const Value* given = a.get(0, "indent")) {
        const Json& n = data(*given, line);
        if (n.is_number_integer()) indent = std::clamp<std::int64_t>(n.get<std::int64_t>(), 0, 16);
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

}  // namespace sparsight::jinja
