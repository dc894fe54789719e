#include "core/probe/needle.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <set>

#include "core/model/nearest.h"
#include "core/model/tokenizer/unicode.h"
#include "core/probe/haystack.h"
#include "core/probe/splitmix.h"
#include "kernels/base/error.h"

namespace sparsight {
namespace {

// The people of the facts that the sample model was trained on (bookworm/train.py, `fact`).
constexpr const char* kFirst[] = {
    "Alice",  "Amos",    "Anna",   "Arthur", "Beatrice", "Bertram", "Cecil",  "Clara",  "Conrad",
    "Cora",   "Daniel",  "Dinah",  "Edgar",  "Edith",    "Elias",   "Emil",   "Esther", "Felix",
    "Flora",  "Frances", "George", "Greta",  "Hannah",   "Harold",  "Helena", "Hugo",   "Ida",
    "Irene",  "Isaac",   "Ivan",   "Jasper", "Julia",    "Karl",    "Laura",  "Leo",    "Lydia",
    "Magnus", "Martha",  "Miles",  "Nora",   "Oscar",    "Otto",    "Paula",  "Peter",  "Quentin",
    "Rachel", "Rufus",   "Selma",  "Silas",  "Stella",   "Thomas",  "Tilda",  "Ursula", "Victor",
    "Wanda",  "Walter",  "Xavier", "Yvonne", "Zachary",  "Zelda"};
constexpr const char* kLast[] = {
    "Abbott",    "Ashdown", "Barlow", "Beck",     "Birch",   "Blackwood", "Brandt",  "Carver",
    "Chandler",  "Cole",    "Crane",  "Dalton",   "Drake",   "Dunn",      "Elliott", "Everett",
    "Fairfax",   "Falk",    "Fisher", "Foster",   "Garrick", "Gibson",    "Granger", "Hale",
    "Hartley",   "Holm",    "Ingram", "Irving",   "Jansen",  "Keller",    "Kent",    "Lambert",
    "Lindqvist", "Lowell",  "Marsh",  "Mercer",   "Milner",  "Nash",      "Norwood", "Oakes",
    "Olsen",     "Osborne", "Palmer", "Pierce",   "Quill",   "Radcliffe", "Ramsey",  "Reed",
    "Rowe",      "Sanders", "Sharp",  "Sinclair", "Stone",   "Thorne",    "Turner",  "Underhill",
    "Vance",     "Vaughan", "Wells",  "Whitaker", "Winter",  "York",      "Young",   "Zimmer"};

constexpr double kTolerance = 0.005;  // of the length, below it

template <class T>
T parseNumber(std::string_view key, std::string_view text, T low, T high, const char* rule) {
    T value{};
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size() ||
        !(value >= low && value <= high))
        throw Error(Errc::Usage, "probe: " + std::string(key) + " must be " + rule + ", not \"" +
                                     std::string(text) + "\"");
    return value;
}

/// Fact, question and answer, each with its leading space.
struct Fact {
    std::string sentence, question, answer;
    std::size_t keyAt;  ///< where the digits begin in `sentence`
};

Fact makeFact(std::uint64_t seed) {
    SplitMix r{seed ^ 0x6e6565646c65ull};  // not the stream that the haystack draws from
    const std::string name = std::string(r.pick(kFirst)) + " " + r.pick(kLast);
    std::string key;
    for (int i = 0; i < 5; ++i) key += static_cast<char>('0' + r.below(10));
    Fact f;
    f.sentence = " The pass key of " + name + " is ";
    f.keyAt = f.sentence.size();
    f.sentence += key + ".";
    f.question =
        " Question: what is the pass key of " + name + "? Answer: the pass key of " + name + " is";
    f.answer = " " + key;
    return f;
}

/// Special tokens at the end (an end-of-text) would end what the model is to continue.
void dropTrailingSpecial(Encoding& e) {
    while (!e.special.empty() && e.special.back() != 0) {
        e.ids.pop_back();
        e.tokens.pop_back();
        e.offsets.pop_back();
        e.special.pop_back();
        e.typeIds.pop_back();
    }
}

/// The haystack's sentences with the needle between them.
struct Layout {
    const NeedleSpec& spec;
    const Fact& fact;
    const Haystack& haystack;
    const Tokenizer& tokenizer;
    const Job& job;

    /// Text up to and including the question: `n` sentences and `tail` (which counts as one more).
    std::string text(Index n, const std::string& tail, std::size_t* needleAt = nullptr) const {
        const Index all = n + (tail.empty() ? 0 : 1);
        const auto before = Index(std::llround(spec.depth * double(all)));
        std::string out;
        for (Index i = 0; i <= all; ++i) {
            if (i == before) {
                if (needleAt != nullptr) *needleAt = out.size();
                out += fact.sentence;
            }
            if (i < n)
                out += haystack.sentence(std::uint64_t(i));
            else if (i < all)
                out += tail;
        }
        return out + fact.question;
    }
    Index count(Index n, const std::string& tail) const {
        job.check();
        Encoding e = tokenizer.encode(text(n, tail) + fact.answer);
        dropTrailingSpecial(e);
        return Index(e.ids.size());
    }
};

/// The start of a sentence, cut before `end`, closed with a full stop.
std::string cutSentence(const std::string& sentence, std::size_t end) {
    std::string s = sentence.substr(0, end);
    const auto isMark = [](char c) {
        return c == ' ' || c == ',' || c == ';' || c == ':' || c == '-' || c == '"' || c == '\n';
    };
    while (!s.empty() && isMark(s.back())) s.pop_back();
    const bool hasText =
        std::any_of(s.begin(), s.end(), [](char c) { return c != ' ' && c != '\n' && c != '"'; });
    return hasText ? s + "." : std::string();
}

/// Finds what fills the last few tokens: another whole sentence if one fits, else one cut short.
/// @return empty when nothing fits
std::string fittingTail(const Layout& layout, Index n, Index lowest) {
    const Index target = layout.spec.tokens, base = layout.count(n, {});
    const auto alone = [&](const std::string& s) {
        return Index(layout.tokenizer.encode(s, false).ids.size());
    };
    std::set<std::string> tried;
    // Counted alone a tail may be a token off (white space joins what is before it), so the count
    // of the whole decides.
    const auto fits = [&](const std::string& tail) {
        if (tail.empty()) return false;
        const Index guess = base + alone(tail);
        if (guess < lowest - 1 || guess > target + 1 || !tried.insert(tail).second) return false;
        const Index real = layout.count(n, tail);
        return real >= lowest && real <= target;
    };
    constexpr Index kOthers = 200, kCut = 40;
    for (Index i = n; layout.haystack.unordered() && i < n + kOthers; ++i) {
        const std::string sentence = layout.haystack.sentence(std::uint64_t(i));
        if (fits(sentence)) return sentence;
    }
    for (const bool words : {true, false})
        for (Index i = n; i < n + kCut; ++i) {
            const std::string sentence = layout.haystack.sentence(std::uint64_t(i));
            for (std::size_t end = sentence.size(); end > 1; --end) {
                const bool boundary =
                    words ? sentence[end - 1] == ' '
                          : (static_cast<unsigned char>(sentence[end - 1]) & 0xc0) != 0x80;
                if (!boundary) continue;
                const std::string tail = cutSentence(sentence, end - 1);
                if (fits(tail)) return tail;
            }
        }
    return {};
}

/// Tokens whose bytes meet [begin, end) of the text.
TokenSpan tokensOf(const Encoding& e, std::size_t begin, std::size_t end) {
    TokenSpan span{-1, -1};
    for (std::size_t t = 0; t < e.ids.size(); ++t) {
        const TokenOffset& o = e.offsets[t];
        if (o.byteBegin >= Index(end) || o.byteEnd <= Index(begin)) continue;
        if (span.begin < 0) span.begin = Index(t);
        span.end = Index(t) + 1;
    }
    return span;
}

}  // namespace

NeedleSpec parseProbe(std::string_view text) {
    NeedleSpec spec;
    const std::size_t colon = text.find(':');
    const std::string_view kind = text.substr(0, colon);
    if (kind != "niah")
        throw Error(Errc::Usage, "unknown probe \"" + std::string(kind) + "\" (" +
                                     supportedSentence(kind, {"niah"}) + ")");
    std::string_view rest =
        colon == std::string_view::npos ? std::string_view() : text.substr(colon + 1);
    std::set<std::string, std::less<>> seen;
    while (!rest.empty()) {
        const std::size_t equals = rest.find('=');
        const std::string_view key = rest.substr(0, std::min(equals, rest.find(',')));
        if (equals == std::string_view::npos || key.size() != equals)
            throw Error(
                Errc::Usage,
                "probe: \"" + std::string(key) +
                    "\" has no value; write key=value, for example niah:tokens=1500,depth=0.5");
        if (!seen.emplace(key).second)
            throw Error(Errc::Usage, "probe: " + std::string(key) + " is given twice");
        // A file name may hold commas, so the haystack takes all that follows.
        const std::size_t comma =
            key == "haystack" ? std::string_view::npos : rest.find(',', equals);
        const std::string_view value =
            rest.substr(equals + 1, comma == std::string_view::npos ? comma : comma - equals - 1);
        if (key == "tokens")
            spec.tokens =
                parseNumber<Index>(key, value, 1, 1 << 26, "a whole number from 1 to 67108864");
        else if (key == "depth")
            spec.depth = parseNumber<double>(key, value, 0.0, 1.0, "from 0 to 1");
        else if (key == "seed")
            spec.seed = parseNumber<std::uint64_t>(key, value, 0, ~std::uint64_t{0},
                                                   "a whole number of at most 64 bits");
        else if (key == "haystack")
            spec.haystack = value;
        else
            throw Error(Errc::Usage,
                        "probe: unknown key \"" + std::string(key) + "\" (" +
                            supportedSentence(key, {"tokens", "depth", "seed", "haystack"}) + ")");
        if (comma == std::string_view::npos) break;
        rest.remove_prefix(comma + 1);
        if (rest.empty()) throw Error(Errc::Usage, "probe: nothing behind the last comma");
    }
    return spec;
}

std::string toString(const NeedleSpec& spec) {
    char depth[32];  // the shortest form that reads back as the same number
    const auto end = std::to_chars(depth, depth + sizeof depth, spec.depth).ptr;
    std::string out = "niah:tokens=" + std::to_string(spec.tokens) +
                      ",depth=" + std::string(depth, end) + ",seed=" + std::to_string(spec.seed);
    if (!spec.haystack.empty()) out += ",haystack=" + spec.haystack;
    return out;
}

NeedlePrompt makeNeedlePrompt(const NeedleSpec& spec, const Tokenizer& tokenizer, const Job& job) {
    if (!(spec.depth >= 0 && spec.depth <= 1))
        throw Error(Errc::Usage, "probe: depth must be from 0 to 1");
    const Fact fact = makeFact(spec.seed);
    const Haystack haystack(spec.haystack, spec.seed);
    const Layout layout{spec, fact, haystack, tokenizer, job};
    const Index least = layout.count(0, {});
    if (least > spec.tokens)
        throw Error(Errc::Usage,
                    "probe: " + std::to_string(spec.tokens) +
                        " tokens are too few: needle, question and answer alone take " +
                        std::to_string(least));
    // The most whole sentences that fit: low fits, high does not. A sentence has a token at least.
    Index low = 0, high = 8;
    while (high <= spec.tokens && layout.count(high, {}) <= spec.tokens) {
        low = high;
        high *= 2;
    }
    high = std::min(high, spec.tokens + 1);
    while (high - low > 1) {
        const Index middle = (low + high) / 2;
        (layout.count(middle, {}) <= spec.tokens ? low : high) = middle;
    }
    const auto lowest = Index(std::ceil(double(spec.tokens) * (1 - kTolerance)));
    std::string tail;
    // A gap too small for any sentence: one sentence less, and a larger gap.
    for (Index n = low; layout.count(low, tail) < lowest && n >= std::max<Index>(0, low - 3); --n) {
        tail = fittingTail(layout, n, lowest);
        if (!tail.empty()) low = n;
    }

    NeedlePrompt p;
    std::size_t needleAt = 0;
    p.text = layout.text(low, tail, &needleAt);
    p.answer = fact.answer;
    p.fullText = p.text + p.answer;
    Encoding prompt = tokenizer.encode(p.text);
    dropTrailingSpecial(prompt);
    p.encoding = tokenizer.encode(p.fullText);
    dropTrailingSpecial(p.encoding);
    p.promptIds = prompt.ids;
    p.ids = p.encoding.ids;
    const auto length = Index(p.ids.size());
    if (length > spec.tokens || length < lowest)
        throw Error(Errc::Usage,
                    "probe: no cut of this haystack gives between " + std::to_string(lowest) +
                        " and " + std::to_string(spec.tokens) + " tokens; ask for another length");
    if (p.promptIds.size() >= p.ids.size() ||
        !std::equal(p.promptIds.begin(), p.promptIds.end(), p.ids.begin()))
        throw Error(
            Errc::Unsupported,
            "probe: this tokenizer joins the end of the question and the answer into one token, "
            "so the answer cannot be fed token by token");
    p.truth.needle =
        tokensOf(p.encoding, needleAt + fact.keyAt, needleAt + fact.sentence.size() - 1);
    p.truth.answer = {Index(p.promptIds.size()), length};
    p.truth.questionBegin =
        tokensOf(p.encoding, p.text.size() - fact.question.size() + 1, p.text.size()).begin;
    p.truth.needleText = fact.sentence.substr(1);
    p.truth.answerText = fact.answer.substr(1);
    p.truth.generator = toString(spec);
    return p;
}

Index copyingRow(std::span<const std::int32_t> ids, const NeedleTruth& truth) {
    for (Index t = std::max<Index>(1, truth.answer.begin); t < truth.answer.end; ++t)
        if (ids[std::size_t(t)] == ids[std::size_t(truth.needle.begin)]) return t - 1;
    return std::max<Index>(0, truth.answer.begin - 1);
}

}  // namespace sparsight
