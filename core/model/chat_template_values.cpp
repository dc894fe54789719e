#include "core/model/chat_template_values.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include "core/model/tokenizer/unicode.h"

namespace sparsight::jinja {

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

}  // namespace sparsight::jinja
