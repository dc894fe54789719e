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

void apply(const DigitsStage& s, const Chunk& chunk, Arena&, std::vector<Chunk>& out) {
    std::vector<std::pair<std::size_t, std::size_t>> digits;
    for (std::size_t i = 0; i < chunk.text.size();) {
        const CodePoint p = codePointAt(chunk.text, i);
        if (isNumeric(p.value)) digits.emplace_back(i, i + p.bytes);
        i += p.bytes;
    }
    cutBy(chunk, parts(digits, chunk.text.size()),
          s.individual ? Behavior::Isolated : Behavior::Contiguous, out);
}

void apply(const ByteLevelStage& s, const Chunk& in, Arena& arena, std::vector<Chunk>& out) {
    Chunk chunk = in;
    if (s.addPrefixSpace && !chunk.text.empty() && chunk.text[0] != ' ') {
        // The space stands for the first character, as in the library.
        Normalized& made = arena.emplace_back();
        made.text.assign(1, ' ').append(chunk.text);
        made.spans.reserve(made.text.size());
        const auto first = Index(codePointAt(chunk.text, 0).bytes);
        made.spans.push_back(chunk.spans == nullptr ? Span{chunk.origin, chunk.origin + first}
                                                    : chunk.spans[0]);
        for (std::size_t i = 0; i < chunk.text.size();) {
            const std::size_t n = codePointAt(chunk.text, i).bytes;
            const Index at = chunk.origin + Index(i);
            for (std::size_t k = 0; k < n; ++k)
                made.spans.push_back(chunk.spans == nullptr ? Span{at, at + Index(n)}
                                                            : chunk.spans[i + k]);
            i += n;
        }
        chunk = {made.text, 0, made.spans.data()};
    }
    if (!s.pattern)
        out.push_back(chunk);
    else
        cutBy(chunk, parts(s.pattern->find(chunk.text), chunk.text.size()), Behavior::Isolated,
              out);
}

}  // namespace

std::vector<Chunk> preTokenize(const PreTokenizer& stage, const std::vector<Chunk>& chunks,
                               Arena& arena) {
    std::vector<Chunk> out;
    std::visit(
        [&](const auto& s) {
            for (const Chunk& c : chunks) apply(s, c, arena, out);
        },
        stage);
    return out;
}

}  // namespace sparsight::text
