#include <algorithm>

#include "core/model/tokenizer/stages.h"

namespace sparsight::text {
namespace {

/// A part of a chunk: match or text between matches.
struct Part {
    std::size_t begin, end;
    bool match;
};

std::vector<Part> parts(const std::vector<std::pair<std::size_t, std::size_t>>& matches,
                        std::size_t size) {
    std::vector<Part> out;
    out.reserve(2 * matches.size() + 1);
    std::size_t done = 0;
    for (const auto& [begin, end] : matches) {
        if (done != begin) out.push_back({done, begin, false});
        out.push_back({begin, end, true});
        done = end;
    }
    if (done != size) out.push_back({done, size, false});
    return out;
}

/// Appends the parts of `chunk` that the behaviour makes of them.
void cutBy(const Chunk& chunk, const std::vector<Part>& in, Behavior behavior,
           std::vector<Chunk>& out) {
    std::vector<Part> merged;
    bool previous = false;
    switch (behavior) {
        case Behavior::Isolated:
        case Behavior::Removed:
            merged = in;
            break;
        case Behavior::Contiguous:
            for (const Part& p : in) {
                if (p.match == previous && !merged.empty())
                    merged.back().end = p.end;
                else
                    merged.push_back(p);
                previous = p.match;
            }
            break;
        case Behavior::MergedWithPrevious:
            for (const Part& p : in) {
                if (p.match && !previous && !merged.empty())
                    merged.back().end = p.end;
                else
                    merged.push_back(p);
                previous = p.match;
            }
            break;
        case Behavior::MergedWithNext:
            for (auto p = in.rbegin(); p != in.rend(); ++p) {
                if (p->match && !previous && !merged.empty())
                    merged.back().begin = p->begin;
                else
                    merged.push_back(*p);
                previous = p->match;
            }
            std::reverse(merged.begin(), merged.end());
            break;
    }
    for (const Part& p : merged)
        if (p.begin < p.end && !(behavior == Behavior::Removed && p.match))
            out.push_back(chunk.slice(p.begin, p.end));
}

void apply(const SplitStage& s, const Chunk& chunk, Arena&, std::vector<Chunk>& out) {
    std::vector<Part> found = parts(s.pattern.find(chunk.text), chunk.text.size());
    if (s.invert)
        for (Part& p : found) p.match = !p.match;
    cutBy(chunk, found, s.behavior, out);
}

template <class Test>
void splitByChar(const Chunk& chunk, const Test& test, Behavior behavior, std::vector<Chunk>& out) {
    std::vector<std::pair<std::size_t, std::size_t>> found;
    for (std::size_t i = 0; i < chunk.text.size();) {
        const CodePoint p = codePointAt(chunk.text, i);
        if (test(p.value)) found.emplace_back(i, i + p.bytes);
        i += p.bytes;
    }
    cutBy(chunk, parts(found, chunk.text.size()), behavior, out);
}

void apply(const CharSplitStage& s, const Chunk& chunk, Arena&, std::vector<Chunk>& out) {
    using Kind = CharSplitStage::Kind;
    switch (s.kind) {
        case Kind::WhiteSpace:
            return splitByChar(chunk, isWhiteSpace, s.behavior, out);
        case Kind::Punctuation:
            return splitByChar(chunk, isPunctuation, s.behavior, out);
        case Kind::Digits:
            return splitByChar(chunk, isNumeric, s.behavior, out);
        case Kind::Delimiter:
            return splitByChar(
                chunk, [&](char32_t c) { return c == s.delimiter; }, s.behavior, out);
    }
}

void apply(const WhitespaceStage&, const Chunk& chunk, Arena&, std::vector<Chunk>& out) {
    std::size_t begin = 0;
    int current = 0;  // 0 white space, 1 word, 2 other
    for (std::size_t i = 0; i <= chunk.text.size();) {
        int kind = -1;
        std::size_t bytes = 1;
        if (i < chunk.text.size()) {
            const CodePoint p = codePointAt(chunk.text, i);
            kind = isWord(p.value) ? 1 : isWhiteSpace(p.value) ? 0 : 2;
            bytes = p.bytes;
        }
        if (kind != current) {
            if (current > 0) out.push_back(chunk.slice(begin, i));
            begin = i;
            current = kind;
        }
        i += bytes;
    }
}

void apply(const ScriptsStage&, const Chunk& chunk, Arena&, std::vector<Chunk>& out) {
    std::size_t begin = 0;
    int last = -1;  // script of the last character that has one
    for (std::size_t i = 0; i < chunk.text.size();) {
        const CodePoint p = codePointAt(chunk.text, i);
        const int script = scriptClass(p.value);
        // What comes before the first character with a script is dropped: so it is in the library.
        if (script != 0 && script != last) {
            if (last >= 0) out.push_back(chunk.slice(begin, i));
            begin = i;
            last = script;
        }
        i += p.bytes;
    }
    if (last >= 0) out.push_back(chunk.slice(begin, chunk.text.size()));
}

void apply(const FixedLengthStage& s, const Chunk& chunk, Arena&, std::vector<Chunk>& out) {
    std::size_t begin = 0, count = 0;
    for (std::size_t i = 0; i < chunk.text.size();) {
        i += codePointAt(chunk.text, i).bytes;
        if (++count == s.length || i == chunk.text.size()) {
            out.push_back(chunk.slice(begin, i));
            begin = i;
            count = 0;
        }
    }
}

void apply(const MetaspaceStage& s, const Chunk& in, Arena& arena, std::vector<Chunk>& out) {
    using Prepend = MetaspaceStage::Prepend;
    Chunk chunk = in;
    const auto spaces = s.spaces.find(chunk.text);
    const bool atFront = chunk.text.starts_with(' ') || chunk.text.starts_with(s.replacement);
    const bool add = !atFront && (s.prepend == Prepend::Always ||
                                  (s.prepend == Prepend::First && chunk.start() == 0));
    if (add || !spaces.empty()) {
        Normalized& made = arena.emplace_back(unpack(chunk));
        replaceMatches(made, spaces, s.replacement);
        if (add) prepend(made, s.replacement);
        chunk = {made.text, made.origin, made.spans.data()};
    }
    if (!s.split)
        out.push_back(chunk);
    else
        cutBy(chunk, parts(s.pattern.find(chunk.text), chunk.text.size()), Behavior::MergedWithNext,
              out);
}

void apply(const ByteLevelStage& s, const Chunk& in, Arena& arena, std::vector<Chunk>& out) {
    Chunk chunk = in;
    if (s.addPrefixSpace && !chunk.text.starts_with(' ')) {
        Normalized& made = arena.emplace_back(unpack(chunk));
        prepend(made, " ");
        chunk = {made.text, made.origin, made.spans.data()};
    }
    const std::size_t first = out.size();
    if (!s.pattern)
        out.push_back(chunk);
    else
        cutBy(chunk, parts(s.pattern->find(chunk.text), chunk.text.size()), Behavior::Isolated,
              out);
    if (!s.spell) return;
    for (std::size_t i = first; i < out.size(); ++i)
        out[i] = normalize(ByteLevelNormalizer{}, out[i], arena);
}

}  // namespace

std::vector<Chunk> preTokenize(const PreTokenizer& stage, const std::vector<Chunk>& chunks,
                               Arena& arena) {
    std::vector<Chunk> out;
    std::visit(
        [&](const auto& s) {
            for (const Chunk& c : chunks)
                if (!c.text.empty()) apply(s, c, arena, out);
        },
        stage);
    return out;
}

}  // namespace sparsight::text
