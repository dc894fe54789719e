#include "sessions/crc32c.h"

#include <array>
#include <cstring>

#if defined(__x86_64__)
#include <nmmintrin.h>
#endif

namespace sparsight::sessions {
namespace {

constexpr std::array<std::uint32_t, 256> makeTable() {
    std::array<std::uint32_t, 256> table{};
    for (std::uint32_t i = 0; i < 256; ++i) {
        std::uint32_t c = i;
        for (int bit = 0; bit < 8; ++bit) c = (c >> 1) ^ (c & 1 ? 0x82f63b78u : 0u);
        table[i] = c;
    }
    return table;
}
constexpr auto kTable = makeTable();

std::uint32_t plain(std::span<const std::byte> bytes, std::uint32_t c) {
    for (const std::byte b : bytes) c = kTable[(c ^ std::uint32_t(b)) & 0xffu] ^ (c >> 8);
    return c;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) std::uint32_t hardware(std::span<const std::byte> bytes,
                                                         std::uint32_t c) {
    std::uint64_t wide = c;
    std::size_t i = 0;
    for (; i + 8 <= bytes.size(); i += 8) {
        std::uint64_t word;
        std::memcpy(&word, bytes.data() + i, 8);
        wide = _mm_crc32_u64(wide, word);
    }
    return plain(bytes.subspan(i), std::uint32_t(wide));
}
#endif

}  // namespace

std::uint32_t crc32c(std::span<const std::byte> bytes, std::uint32_t crc) {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("sse4.2")) return ~hardware(bytes, ~crc);
#endif
    return ~plain(bytes, ~crc);
}

}  // namespace sparsight::sessions
