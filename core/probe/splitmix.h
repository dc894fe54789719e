#pragma once

#include <cstdint>
#include <span>

namespace sparsight {

/// splitmix64 (Steele, Lea, Flood 2014): a stream of 64-bit numbers from one seed, the same on
/// every machine.
struct SplitMix {
    std::uint64_t state;

    std::uint64_t next() {
        std::uint64_t z = (state += 0x9e3779b97f4a7c15ull);
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
        return z ^ (z >> 31);
    }
    /// From 0 to n - 1. The bias of taking the upper product is below n / 2^64.
    std::uint64_t below(std::uint64_t n) {
        __extension__ using Wide = unsigned __int128;
        return std::uint64_t((Wide(next()) * n) >> 64);
    }
    template <class T, std::size_t N>
    const T& pick(const T (&list)[N]) {
        return list[below(N)];
    }
};

}  // namespace sparsight
