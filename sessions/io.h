#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "kernels/base/view.h"

namespace sparsight::sessions {

/// Bytes of file under one CRC-32C, and the piece in which segments are written.
constexpr Index kCrcChunk = Index(4) << 20;

/// Owner of a file descriptor.
class Fd {
public:
    Fd() = default;
    explicit Fd(int fd) : m_fd(fd) {}
    Fd(Fd&& other) noexcept : m_fd(std::exchange(other.m_fd, -1)) {}
    Fd& operator=(Fd&& other) noexcept {
        reset(std::exchange(other.m_fd, -1));
        return *this;
    }
    ~Fd() { reset(); }
    void reset(int fd = -1);
    int get() const { return m_fd; }
    explicit operator bool() const { return m_fd >= 0; }

private:
    int m_fd = -1;
};

/// Throws what a failed system call means: Resources for a full disk or no memory, else Io.
/// @param what  e.g. "write"; the sentence is "cannot <what> '<path>': <reason>"
[[noreturn]] void throwErrno(int error, const std::string& what, const std::filesystem::path& path);

/// Opens a regular file without following a link in its last component and without waiting on a
/// fifo. @throws Error(NotFound), Error(Format) when it is not a regular file, Error(Io)
Fd openRegular(const std::filesystem::path& path, int flags, unsigned mode = 0644);
Index sizeOf(const Fd& fd, const std::filesystem::path& path);
/// @throws Error(Io) also when the file is shorter
void readFully(const Fd& fd, std::span<std::byte> bytes, Index offset,
               const std::filesystem::path& path);
void writeFully(const Fd& fd, std::span<const std::byte> bytes, Index offset,
                const std::filesystem::path& path);
/// fsync of the file or, given a directory, of its entries.
void syncFile(const Fd& fd, const std::filesystem::path& path);
void syncDirectory(const std::filesystem::path& directory);
/// A whole small file, written, synced and renamed into place.
void writeFileDurably(const std::filesystem::path& path, std::string_view text);
/// A whole small file. @throws Error(Format) when longer than `most`
std::string readSmallFile(const std::filesystem::path& path, Index most);

/// 32 hexadecimal digits of a random number.
std::string randomUuid();
/// Now, as 2026-01-31T12:34:56.789Z.
std::string utcNow();
std::string toBase64(std::span<const std::byte> bytes);
/// @throws Error(Format) naming `what`
std::string fromBase64(std::string_view text, const std::string& what);
/// 1234567 -> "1,234,567 bytes".
std::string bytesInWords(Index bytes);

}  // namespace sparsight::sessions
