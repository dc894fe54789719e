#include "core/import/name_pattern.h"

#include <algorithm>
#include <array>
#include <vector>

#include "kernels/base/error.h"

namespace sparsight {
namespace {

constexpr std::string_view kLayer = "{layer}", kHead = "{head}";

bool isDigit(char c) {
    return c >= '0' && c <= '9';
}
bool isLetter(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/// The digits at the start of `name` as a number; they are taken off. -1 when there are none, or
/// too many.
Index takeNumber(std::string_view& name) {
    std::size_t n = 0;
    while (n < name.size() && isDigit(name[n])) ++n;
    if (n == 0 || n > 6) return -1;
    Index value = 0;
    for (const char c : name.substr(0, n)) value = 10 * value + (c - '0');
    name.remove_prefix(n);
    return value;
}

/// A run of letters or of digits of a name.
struct Run {
    std::size_t begin, end;
    bool digits;
    std::string text;  ///< lower case
};

std::vector<Run> runsOf(std::string_view name) {
    std::vector<Run> runs;
    for (std::size_t i = 0; i < name.size();) {
        const bool digits = isDigit(name[i]);
        if (!digits && !isLetter(name[i])) {
            ++i;
            continue;
        }
        Run run{i, i, digits, {}};
        while (run.end < name.size() &&
               (digits ? isDigit(name[run.end]) : isLetter(name[run.end]))) {
            const char c = name[run.end++];
            run.text += c >= 'A' && c <= 'Z' ? char(c + 32) : c;
        }
        i = run.end;
        runs.push_back(std::move(run));
    }
    return runs;
}

struct Word {
    const char* text;
    Part part;
};
constexpr Word kWords[] = {
    {"q", Part::Q},
    {"query", Part::Q},
    {"queries", Part::Q},
    {"k", Part::K},
    {"key", Part::K},
    {"keys", Part::K},
    {"v", Part::V},
    {"value", Part::V},
    {"values", Part::V},
    {"lse", Part::Lse},
    {"logsumexp", Part::Lse},
    {"sinks", Part::Sinks},
    {"sink", Part::Sinks},
    {"ids", Part::InputIds},
    {"attn", Part::Attention},
    {"probs", Part::Attention},
    {"attention", Part::Attention},
    {"attentions", Part::Attention},
};

const Word* findWord(const std::string& text) {
    const auto at = std::find_if(std::begin(kWords), std::end(kWords),
                                 [&](const Word& w) { return text == w.text; });
    return at == std::end(kWords) ? nullptr : at;
}

bool isOneOf(const std::string& text, std::initializer_list<std::string_view> list) {
    return std::find(list.begin(), list.end(), text) != list.end();
}

}  // namespace

void checkPattern(std::string_view pattern) {
    const std::string all(pattern);
    if (pattern.empty()) throw Error(Errc::Usage, "a name pattern is empty");
    std::array<int, 2> seen{};
    bool justSeen = false;
    while (!pattern.empty()) {
        const bool layer = pattern.starts_with(kLayer), head = pattern.starts_with(kHead);
        if (layer || head) {
            if (justSeen || ++seen[layer ? 0 : 1] > 1)
                throw Error(Errc::Usage, "the name pattern '" + all +
                                             "' has a place twice, or two side by side");
            pattern.remove_prefix(layer ? kLayer.size() : kHead.size());
            justSeen = true;
            continue;
        }
        if (pattern.front() == '{' || pattern.front() == '}')
            throw Error(Errc::Usage, "the name pattern '" + all +
                                         "' may only have the places {layer} and {head}");
        justSeen = false;
        pattern.remove_prefix(1);
    }
}

std::optional<NameMatch> matchName(std::string_view pattern, std::string_view name) {
    NameMatch match;
    while (!pattern.empty()) {
        const bool layer = pattern.starts_with(kLayer), head = pattern.starts_with(kHead);
        if (layer || head) {
            Index& value = layer ? match.layer : match.head;
            value = takeNumber(name);
            if (value < 0) return std::nullopt;
            pattern.remove_prefix(layer ? kLayer.size() : kHead.size());
            continue;
        }
        if (name.empty() || name.front() != pattern.front()) return std::nullopt;
        name.remove_prefix(1);
        pattern.remove_prefix(1);
    }
    if (!name.empty()) return std::nullopt;
    return match;
}

const char* partName(Part part) {
    constexpr const char* kNames[kParts] = {"q",     "k",         "v",        "lse",
                                            "sinks", "input_ids", "attention"};
    return kNames[std::size_t(part)];
}

std::optional<NameGuess> guessName(std::string_view name) {
    const std::vector<Run> runs = runsOf(name);
    const Run* word = nullptr;
    Part part = Part::Q;
    for (const Run& run : runs) {
        if (run.digits) continue;
        if (isOneOf(run.text, {"weight", "weights", "bias", "proj", "norm"})) return std::nullopt;
        if (const Word* w = findWord(run.text)) {
            word = &run;
            part = w->part;
        }
    }
    if (!word) return std::nullopt;
    if (part == Part::InputIds) return NameGuess{part, std::string(name)};

    // Which number is the layer's, and which the head's.
    const Run* layer = nullptr;
    const Run* head = nullptr;
    const Run* lone = nullptr;
    int numbers = 0;
    for (std::size_t i = 0; i < runs.size(); ++i) {
        if (!runs[i].digits) continue;
        ++numbers;
        const std::string before = i > 0 && !runs[i - 1].digits ? runs[i - 1].text : std::string();
        if (isOneOf(before, {"layer", "layers", "l", "block", "blocks"}))
            layer = &runs[i];
        else if (isOneOf(before, {"head", "heads", "h"}))
            head = &runs[i];
        else
            lone = &runs[i];
    }
    if (!layer && lone && numbers == (head ? 2 : 1)) layer = lone;

    NameGuess guess{part, {}};
    for (std::size_t i = 0; i < name.size();) {
        const Run* place = layer && layer->begin == i ? layer
                           : head && head->begin == i ? head
                                                      : nullptr;
        if (place)
            guess.pattern += place == layer ? kLayer : kHead;
        else
            guess.pattern += name[i];
        i = place ? place->end : i + 1;
    }
    return guess;
}

std::vector<std::string> patternsOf(Part part, std::string_view otherPattern) {
    std::optional<Run> word;
    for (const Run& run : runsOf(otherPattern))
        if (!run.digits && findWord(run.text)) word = run;
    std::vector<std::string> all;
    if (!word) return all;
    const std::string_view spelt = otherPattern.substr(word->begin, word->end - word->begin);
    const auto isUpper = [](char c) { return c >= 'A' && c <= 'Z'; };
    for (const Word& w : kWords) {
        if (w.part != part) continue;
        std::string text = w.text;
        for (std::size_t i = 0; i < text.size(); ++i)
            if (isUpper(spelt.front()) && (i == 0 || isUpper(spelt.back())))
                text[i] = char(text[i] - 'a' + 'A');
        all.push_back(std::string(otherPattern.substr(0, word->begin)) + text +
                      std::string(otherPattern.substr(word->end)));
    }
    return all;
}

}  // namespace sparsight
