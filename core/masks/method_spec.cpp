#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <numeric>

#include "core/masks/method.h"

namespace sparsight {
namespace {

Index editDistance(std::string_view a, std::string_view b) {
    std::vector<Index> row(b.size() + 1);
    std::iota(row.begin(), row.end(), Index(0));
    for (std::size_t i = 0; i < a.size(); ++i) {
        Index diagonal = row[0];
        row[0] = Index(i) + 1;
        for (std::size_t j = 0; j < b.size(); ++j) {
            const Index change = diagonal + (a[i] == b[j] ? 0 : 1);
            diagonal = row[j + 1];
            row[j + 1] = std::min({change, row[j] + 1, diagonal + 1});
        }
    }
    return row.back();
}

/// " (did you mean 'x'?)", or the list of what there is.
std::string suggestion(std::string_view word, const std::vector<std::string_view>& names) {
    if (names.empty()) return "; it takes no parameter";
    const std::string near = nearest(word, names);
    if (!near.empty()) return fmt::format(" (did you mean '{}'?)", near);
    return fmt::format("; known: {}", fmt::join(names, ", "));
}

const Param& findParam(const Method& method, std::string_view name) {
    std::vector<std::string_view> names;
    for (const Param& p : method.params) {
        if (p.name == name) return p;
        names.push_back(p.name);
    }
    throw Error(Errc::Usage, fmt::format("method {} has no parameter '{}'{}", method.id, name,
                                         suggestion(name, names)));
}

/// Shortest text that reads back as the same number; whole numbers without a point.
std::string number(double value) {
    return fmt::format("{}", value == std::trunc(value) && std::abs(value) < 1e15
                                 ? fmt::format("{}", Index(value))
                                 : fmt::format("{}", value));
}

void checkNumber(const Method& method, const Param& p, double value) {
    const bool whole = p.kind == Param::Int || p.kind == Param::Flag;
    const double least = p.kind == Param::Flag ? 0 : p.least;
    const double most = p.kind == Param::Flag ? 1 : p.most;
    const bool stepped =
        p.step <= 0 || std::abs(std::remainder(value - p.least, p.step)) < 1e-9 * p.step;
    if (value >= least && value <= most && (!whole || value == std::trunc(value)) && stepped)
        return;
    std::string range =
        fmt::format("{}{} to {}", whole ? "a whole number from " : "", number(least), number(most));
    if (p.step > 0) range += fmt::format(" in steps of {}", number(p.step));
    throw Error(Errc::Usage, fmt::format("method {}: {}={} is out of range; give {}", method.id,
                                         p.name, number(value), range));
}

double readNumber(const Method& method, const Param& p, std::string_view text) {
    if (p.kind == Param::Flag) {
        if (text == "true" || text == "yes" || text == "on") return 1;
        if (text == "false" || text == "no" || text == "off") return 0;
    }
    double value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc{} || end != text.data() + text.size() || !std::isfinite(value))
        throw Error(Errc::Usage,
                    fmt::format("method {}: {}={} is not a number", method.id, p.name, text));
    checkNumber(method, p, value);
    return value;
}

std::string_view trimmed(std::string_view text) {
    while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
    while (!text.empty() && text.back() == ' ') text.remove_suffix(1);
    return text;
}

}  // namespace

std::string nearest(std::string_view word, std::span<const std::string_view> candidates) {
    std::string best;
    Index bestDistance = std::max<Index>(2, Index(word.size()) / 3) + 1;
    for (const std::string_view c : candidates) {
        // "slash" is near "vertical-slash" whatever the edit distance says.
        const bool part = word.size() >= 3 && c.find(word) != std::string_view::npos;
        const Index distance = part ? 1 : editDistance(word, c);
        if (distance < bestDistance) {
            bestDistance = distance;
            best = c;
        }
    }
    return best;
}

const Method& method(std::string_view id) {
    std::vector<std::string_view> ids;
    for (const Method& m : methods()) {
        if (m.id == id) return m;
        ids.push_back(m.id);
    }
    throw Error(Errc::NotFound, fmt::format("there is no method '{}'{}", id, suggestion(id, ids)));
}

MethodSpec parseMethod(std::string_view text) {
    text = trimmed(text);
    const std::size_t colon = text.find(':');
    MethodSpec spec{std::string(trimmed(text.substr(0, colon))), {}};
    const Method& m = method(spec.id);
    std::string_view rest = colon == text.npos ? std::string_view{} : text.substr(colon + 1);
    std::string lastText;  // a comma inside a path: a piece without '=' belongs to the text before
    while (!rest.empty()) {
        const std::size_t comma = rest.find(',');
        const std::string_view piece = rest.substr(0, comma);
        rest = comma == rest.npos ? std::string_view{} : rest.substr(comma + 1);
        const std::size_t equals = piece.find('=');
        if (equals == piece.npos) {
            if (lastText.empty())
                throw Error(Errc::Usage, fmt::format("method {}: '{}' should be name=value, as in "
                                                     "a-shape:sink=4,window=256",
                                                     m.id, piece));
            spec.params.texts[lastText] += fmt::format(",{}", piece);
            continue;
        }
        const std::string name(trimmed(piece.substr(0, equals)));
        const std::string_view value = trimmed(piece.substr(equals + 1));
        const Param& p = findParam(m, name);
        if (spec.params.numbers.contains(name) || spec.params.texts.contains(name))
            throw Error(Errc::Usage, fmt::format("method {}: {} is given twice", m.id, name));
        lastText.clear();
        if (p.kind == Param::Text) {
            spec.params.texts[name] = std::string(value);
            lastText = name;
        } else {
            spec.params.numbers[name] = readNumber(m, p, value);
        }
    }
    return spec;
}

std::string toString(const MethodSpec& spec) {
    std::string out = spec.id;
    char separator = ':';
    const auto add = [&](const std::string& name, const std::string& value) {
        out += fmt::format("{}{}={}", separator, name, value);
        separator = ',';
    };
    for (const Param& p : method(spec.id).params) {
        if (const auto n = spec.params.numbers.find(p.name); n != spec.params.numbers.end())
            add(p.name, number(n->second));
        if (const auto t = spec.params.texts.find(p.name); t != spec.params.texts.end())
            add(p.name, t->second);
    }
    return out;
}

ParamValues complete(const Method& method, const ParamValues& given) {
    for (const auto& [name, value] : given.numbers) {
        const Param& p = findParam(method, name);
        if (p.kind == Param::Text)
            throw Error(Errc::Usage,
                        fmt::format("method {}: {} takes a text, not a number", method.id, name));
        checkNumber(method, p, value);
    }
    for (const auto& [name, value] : given.texts)
        if (findParam(method, name).kind != Param::Text)
            throw Error(Errc::Usage, fmt::format("method {}: {} takes a number, not '{}'",
                                                 method.id, name, value));
    ParamValues all = given;
    for (const Param& p : method.params) {
        if (p.kind == Param::Text)
            all.texts.try_emplace(p.name);
        else
            all.numbers.try_emplace(p.name, p.standard);
    }
    return all;
}

std::unique_ptr<MaskPolicy> makePolicy(const MethodSpec& spec) {
    const Method& m = method(spec.id);
    return m.make(complete(m, spec.params));
}

}  // namespace sparsight
