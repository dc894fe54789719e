// Statements, values and expressions of a chat template.
#include "core/model/chat_template_renderer.h"

#include <algorithm>
#include <cmath>

#include "core/model/tokenizer/unicode.h"
#include "kernels/base/error.h"

namespace sparsight::jinja {
namespace {

constexpr std::int64_t kMaxSteps = 4'000'000;

}  // namespace

Renderer::Renderer(const std::string& where, std::map<std::string, Value> globals)
    : m_where(where) {
    m_scopes.push_back(std::move(globals));
}

std::string Renderer::run(const Block& block) {
    render(block);
    return std::move(m_out);
}

void Renderer::fail(int line, const std::string& what) const {
    throw Error(Errc::Format, m_where + ", line " + std::to_string(line) +
                                  ": the chat template cannot render this conversation: " + what);
}

void Renderer::step(int line) {
    if (++m_steps > kMaxSteps || m_out.size() > kMaxOutput)
        throw Error(Errc::Resources, m_where + ", line " + std::to_string(line) +
                                         ": the chat template runs for too long");
}

void Renderer::charge(const Json& j, std::size_t bytes, int line) {
    step(line);
    if (j.is_string()) m_steps += std::int64_t(j.get_ref<const std::string&>().size() / bytes);
    if (j.is_structured())
        for (const auto& item : j) charge(item, bytes, line);
}

const Value* Renderer::lookUp(const std::string& name) const {
    for (std::size_t i = m_scopes.size(); i-- > m_macroBase;)
        if (const auto it = m_scopes[i].find(name); it != m_scopes[i].end()) return &it->second;
    const auto it = m_scopes[0].find(name);
    return it == m_scopes[0].end() ? nullptr : &it->second;
}

Flow Renderer::render(const Block& block) {
    for (const Statement& s : block)
        if (const Flow flow = render(s); flow != Flow::Next) return flow;
    return Flow::Next;
}

Flow Renderer::render(const Statement& s) {
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

std::string Renderer::captured(const Block& block) {
    std::string before = std::move(m_out);
    m_out.clear();
    render(block);
    return std::exchange(m_out, std::move(before));
}

void Renderer::assign(const std::vector<std::string>& names, Value value, int line) {
    if (names.size() == 1) {
        m_scopes.back()[names[0]] = std::move(value);
        return;
    }
    const Json* list = value.json();
    if (list == nullptr || !list->is_array() || list->size() != names.size())
        fail(line, "a value cannot be taken apart into " + std::to_string(names.size()) + " names");
    for (std::size_t i = 0; i < names.size(); ++i) m_scopes.back()[names[i]] = (*list)[i];
}

void Renderer::set(const Statement& s) {
    Value value = s.value ? evaluate(*s.value) : Value(Json(captured(s.body)));
    if (s.attribute.empty()) return assign(s.names, std::move(value), s.line);
    const Value* object = lookUp(s.names[0]);
    const auto* space =
        object == nullptr ? nullptr : std::get_if<std::shared_ptr<Namespace>>(&object->v);
    if (space == nullptr) fail(s.line, "'" + s.names[0] + "' is not a namespace");
    (*space)->values[s.attribute] = std::move(value);
}

Flow Renderer::loop(const Statement& s) {
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
             {"nextitem", i + 1 < n ? Value(items[i + 1]) : Value(Undefined{"loop.nextitem"})}}}));
        assign(s.names, items[i], s.line);
        if (render(s.body) == Flow::Break) break;
    }
    m_scopes.pop_back();
    return n == 0 ? render(s.orElse) : Flow::Next;
}

bool Renderer::truth(const Value& value) {
    const Json* j = value.json();
    if (j == nullptr) return value.defined();
    if (j->is_null()) return false;
    if (j->is_boolean()) return j->get<bool>();
    if (j->is_number()) return j->get<double>() != 0;
    if (j->is_string()) return !value.string().empty();
    return !j->empty();
}

std::string Renderer::text(const Value& value, int line) const {
    if (const Json* j = value.json()) return print(*j, false);
    if (!value.defined()) return {};
    fail(line, "a function or namespace cannot be printed");
}

const Json& Renderer::data(const Value& value, int line) const {
    if (const Json* j = value.json()) return *j;
    if (const auto* u = std::get_if<Undefined>(&value.v))
        fail(line, "'" + u->name + "' is undefined");
    fail(line, "a function or namespace is used as a value");
}

const std::string& Renderer::stringOf(const Value& value, int line, const char* use) const {
    if (!value.isString()) fail(line, std::string(use) + " needs a string");
    return value.string();
}

Json Renderer::list(const Value& value, int line) const {
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

Value Renderer::attribute(const Value& object, const std::string& name, int line) {
    if (const auto* space = std::get_if<std::shared_ptr<Namespace>>(&object.v)) {
        const auto it = (*space)->values.find(name);
        return it == (*space)->values.end() ? Value(Undefined{name}) : it->second;
    }
    const Json& j = data(object, line);
    static const std::map<Json::value_t, std::vector<std::string>> methods = {
        {Json::value_t::string,
         {"strip", "lstrip", "rstrip", "split", "startswith", "endswith", "replace", "upper",
          "lower", "title", "capitalize", "find", "count", "join", "removeprefix", "removesuffix"}},
        {Json::value_t::object, {"items", "keys", "values", "get"}}};
    const auto it = methods.find(j.type());
    const bool method = it != methods.end() &&
                        std::find(it->second.begin(), it->second.end(), name) != it->second.end();
    if (method) return Value::of(Function{name, std::make_shared<const Value>(object)});
    if (j.is_object() && j.contains(name)) return j[name];
    return Undefined{name};
}

Value Renderer::element(const Value& object, const Value& index, int line) {
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

Value Renderer::slice(const Expression& e) {
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

Value Renderer::evaluate(const Expression& e) {
    Value value = computed(e);
    const bool copied =
        e.kind == Kind::Variable || e.kind == Kind::Attribute || e.kind == Kind::Index;
    if (const Json* j = value.json()) charge(*j, copied ? 4096 : 64, e.line);
    return value;
}

Value Renderer::computed(const Expression& e) {
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
                out[text(evaluate(*e.parts[i]), e.line)] = data(evaluate(*e.parts[i + 1]), e.line);
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

Arguments Renderer::arguments(const Expression& e) {
    Arguments a;
    for (std::size_t i = 1; i < e.parts.size(); ++i) a.positional.push_back(evaluate(*e.parts[i]));
    for (const auto& [name, value] : e.named) a.named.emplace_back(name, evaluate(*value));
    return a;
}

Value Renderer::unary(const Expression& e) {
    const Value v = evaluate(*e.parts[0]);
    if (e.name == "not") return Json(!truth(v));
    const Json& j = data(v, e.line);
    if (!j.is_number()) fail(e.line, "a sign needs a number");
    if (e.name == "+") return j;
    return j.is_number_float() ? Json(-j.get<double>()) : Json(-j.get<std::int64_t>());
}

bool Renderer::contains(const Value& container, const Value& item, int line) const {
    const Json& c = data(container, line);
    if (c.is_string())
        return container.string().find(stringOf(item, line, "'in' on a string")) !=
               std::string::npos;
    const Json& i = data(item, line);
    if (c.is_object()) return i.is_string() && c.contains(i.get_ref<const std::string&>());
    if (!c.is_array()) fail(line, "'in' needs a list, an object or a string");
    return std::find(c.begin(), c.end(), i) != c.end();
}

bool Renderer::equal(const Value& a, const Value& b) {
    if (a.json() != nullptr && b.json() != nullptr) return *a.json() == *b.json();
    return !a.defined() && !b.defined();
}

Value Renderer::binary(const Expression& e) {
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
            fail(e.line, std::string("cannot compare ") + x.type_name() + " with " + y.type_name());
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
    if (!numbers) fail(e.line, "'" + op + "' between " + x.type_name() + " and " + y.type_name());
    return arithmetic(op, x, y, e.line);
}

Value Renderer::arithmetic(const std::string& op, const Json& x, const Json& y, int line) const {
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

}  // namespace sparsight::jinja
