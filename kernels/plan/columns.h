#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <vector>

#include "kernels/plan.h"

/// Bit sets of the planner: the columns of a tile row, the keys of a head.
namespace sparsight::kernels::planner {

constexpr Index kHalf = kTile / 2;

/// The 128 columns of one tile row.
struct Columns {
    std::uint64_t low = 0, high = 0;

    Columns operator&(const Columns& o) const { return {low & o.low, high & o.high}; }
    Columns operator|(const Columns& o) const { return {low | o.low, high | o.high}; }
    bool operator==(const Columns&) const = default;
    Index count() const { return std::popcount(low) + std::popcount(high); }
};

inline std::uint64_t wordBelow(Index n) {
    return n <= 0 ? 0 : n >= 64 ? ~std::uint64_t(0) : (std::uint64_t(1) << n) - 1;
}
/// Columns 0 .. n-1.
inline Columns below(Index n) {
    return {wordBelow(n), wordBelow(n - 64)};
}
/// Columns begin .. end-1.
inline Columns between(Index begin, Index end) {
    const Columns b = below(begin), e = below(end);
    return {e.low & ~b.low, e.high & ~b.high};
}

/// A set of keys as bits; reads past both ends give zeros.
class KeyBits {
public:
    explicit KeyBits(Index keys) : m_words(std::size_t((keys + 63) / 64)) {}

    void set(Index key) { m_words[std::size_t(key >> 6)] |= std::uint64_t(1) << (key & 63); }
    void set(Index begin, Index end) {
        while (begin < end) {
            const Index word = begin >> 6, stop = std::min(end, (word + 1) * 64);
            m_words[std::size_t(word)] |= wordBelow(stop - word * 64) & ~wordBelow(begin & 63);
            begin = stop;
        }
    }
    void clear() { std::fill(m_words.begin(), m_words.end(), 0); }
    bool has(Index key) const { return (m_words[std::size_t(key >> 6)] >> (key & 63)) & 1; }
    /// The first member >= key, or -1.
    Index next(Index key) const {
        for (auto w = std::size_t(key >> 6); w < m_words.size(); ++w, key = Index(w) * 64) {
            const std::uint64_t rest = m_words[w] & ~wordBelow(key & 63);
            if (rest) return Index(w) * 64 + std::countr_zero(rest);
        }
        return -1;
    }
    /// Members key .. key+127; key may be negative.
    Columns columns(Index key) const {
        const Index word = key >> 6, shift = key & 63;
        const std::uint64_t a = at(word), b = at(word + 1);
        if (shift == 0) return {a, b};
        return {a >> shift | b << (64 - shift), b >> shift | at(word + 2) << (64 - shift)};
    }

private:
    std::uint64_t at(Index word) const {
        return word < 0 || word >= Index(m_words.size()) ? 0 : m_words[std::size_t(word)];
    }
    std::vector<std::uint64_t> m_words;
};

using Block = std::array<std::uint64_t, 2 * std::size_t(kTile)>;

inline Index countPlain(const Block& block) {
    Index n = 0;
    for (const std::uint64_t word : block) n += std::popcount(word);
    return n;
}
#if defined(__x86_64__) && defined(__GNUC__)
/// The baseline of the architecture lacks the instruction.
__attribute__((target("popcnt"))) inline Index countByInstruction(const Block& block) {
    Index n = 0;
    for (const std::uint64_t word : block) n += __builtin_popcountll(word);
    return n;
}
inline Index countBits(const Block& block) {
    static const bool has = __builtin_cpu_supports("popcnt");
    return has ? countByInstruction(block) : countPlain(block);
}
#else
inline Index countBits(const Block& block) {
    return countPlain(block);
}
#endif

}  // namespace sparsight::kernels::planner
