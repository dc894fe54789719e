#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

namespace sparsight {

/// SHA-256 (FIPS 180-4) of bytes that come in pieces. Identifies files and plans; not for secrets.
struct Sha256 {
    /// Appends bytes. Not after hex().
    void add(const void* data, std::size_t size);
    void add(std::string_view bytes) { add(bytes.data(), bytes.size()); }
    /// Ends the message: 64 lower-case hex digits. Call once.
    std::string hex();

private:
    void block(const unsigned char* p);

    std::array<std::uint32_t, 8> m_state{0x6a09e667u, 0xbb67ae85u, 0x3c6ef372u, 0xa54ff53au,
                                         0x510e527fu, 0x9b05688cu, 0x1f83d9abu, 0x5be0cd19u};
    std::array<unsigned char, 64> m_tail{};
    std::uint64_t m_bytes = 0;
};

/// Hex digest of bytes in memory.
std::string sha256Hex(std::string_view bytes);

/// Hex digest of a file, read in pieces. @throws Error(NotFound), Error(Io)
std::string sha256File(const std::filesystem::path& file);

}  // namespace sparsight
