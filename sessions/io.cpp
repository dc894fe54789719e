#include "sessions/io.h"

#include <fcntl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <ctime>

#include "kernels/base/error.h"

namespace sparsight::sessions {

void Fd::reset(int fd) {
    if (m_fd >= 0) ::close(m_fd);
    m_fd = fd;
}

void throwErrno(int error, const std::string& what, const std::filesystem::path& path) {
    const std::string place = "'" + path.string() + "'";
    if (error == ENOSPC || error == EDQUOT)
        throw Error(Errc::Resources, "cannot " + what + " " + place +
                                         ": the disk is full; free some space and try again");
    const bool resources = error == ENOMEM || error == EMFILE || error == ENFILE || error == ENOLCK;
    const Errc code = error == ENOENT ? Errc::NotFound : resources ? Errc::Resources : Errc::Io;
    throw Error(code, "cannot " + what + " " + place + ": " + std::strerror(error));
}

Fd openRegular(const std::filesystem::path& path, int flags, unsigned mode) {
    // O_NONBLOCK: opening a fifo for reading must not wait for a writer.
    Fd fd(::open(path.c_str(), flags | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, mode_t(mode)));
    if (!fd) {
        if (errno == ELOOP)
            throw Error(Errc::Format, "'" + path.string() +
                                          "' is a symbolic link; a session holds only plain files");
        throwErrno(errno, "open", path);
    }
    struct stat st {};
    if (::fstat(fd.get(), &st) != 0) throwErrno(errno, "examine", path);
    if (!S_ISREG(st.st_mode))
        throw Error(Errc::Format, "'" + path.string() + "' is not a plain file");
    return fd;
}

Index sizeOf(const Fd& fd, const std::filesystem::path& path) {
    struct stat st {};
    if (::fstat(fd.get(), &st) != 0) throwErrno(errno, "examine", path);
    return Index(st.st_size);
}

void readFully(const Fd& fd, std::span<std::byte> bytes, Index offset,
               const std::filesystem::path& path) {
    std::size_t done = 0;
    while (done < bytes.size()) {
        const ssize_t n = ::pread(fd.get(), bytes.data() + done, bytes.size() - done,
                                  off_t(offset) + off_t(done));
        if (n < 0) {
            if (errno == EINTR) continue;
            throwErrno(errno, "read", path);
        }
        if (n == 0)
            throw Error(Errc::Io, "cannot read '" + path.string() + "': it ends before byte " +
                                      std::to_string(offset + Index(bytes.size())));
        done += std::size_t(n);
    }
}

void writeFully(const Fd& fd, std::span<const std::byte> bytes, Index offset,
                const std::filesystem::path& path) {
    std::size_t done = 0;
    while (done < bytes.size()) {
        const ssize_t n = ::pwrite(fd.get(), bytes.data() + done, bytes.size() - done,
                                   off_t(offset) + off_t(done));
        if (n < 0) {
            if (errno == EINTR) continue;
            throwErrno(errno, "write", path);
        }
        done += std::size_t(n);
    }
}

void syncFile(const Fd& fd, const std::filesystem::path& path) {
    if (::fsync(fd.get()) != 0) throwErrno(errno, "make durable", path);
}

void syncDirectory(const std::filesystem::path& directory) {
    const Fd fd(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!fd) throwErrno(errno, "open", directory);
    // Some network file systems do not sync directories; the entry is then theirs to keep.
    if (::fsync(fd.get()) != 0 && errno != EINVAL) throwErrno(errno, "make durable", directory);
}

void writeFileDurably(const std::filesystem::path& path, std::string_view text) {
    const std::filesystem::path part = path.string() + ".part";
    try {
        const Fd fd = openRegular(part, O_WRONLY | O_CREAT | O_TRUNC);
        writeFully(fd, std::as_bytes(std::span(text)), 0, part);
        syncFile(fd, part);
        if (::rename(part.c_str(), path.c_str()) != 0) throwErrno(errno, "rename", part);
    } catch (...) {
        ::unlink(part.c_str());
        throw;
    }
    syncDirectory(path.parent_path());
}

std::string readSmallFile(const std::filesystem::path& path, Index most) {
    const Fd fd = openRegular(path, O_RDONLY);
    const Index size = sizeOf(fd, path);
    if (size > most)
        throw Error(Errc::Format, "'" + path.string() + "' has " + bytesInWords(size) +
                                      ", more than the " + bytesInWords(most) + " expected");
    std::string text(std::size_t(size), '\0');
    readFully(fd, std::as_writable_bytes(std::span(text)), 0, path);
    return text;
}

std::string randomUuid() {
    std::array<unsigned char, 16> bytes{};
    if (::getrandom(bytes.data(), bytes.size(), 0) != ssize_t(bytes.size()))
        throw Error(Errc::Resources, "the system gives no random numbers for a new identifier");
    std::string text;
    for (const unsigned char b : bytes) {
        text += "0123456789abcdef"[b >> 4];
        text += "0123456789abcdef"[b & 15];
    }
    return text;
}

std::string utcNow() {
    const auto now = std::chrono::system_clock::now();
    const auto ms =
        std::chrono::duration_cast<std::chrono::milliseconds>(now.time_since_epoch()).count() %
        1000;
    const std::time_t seconds = std::chrono::system_clock::to_time_t(now);
    std::tm tm{};
    ::gmtime_r(&seconds, &tm);
    char text[64];
    const std::size_t n = std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &tm);
    std::snprintf(text + n, sizeof text - n, ".%03dZ", int(ms));
    return text;
}

namespace {
constexpr char kDigits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
}

std::string toBase64(std::span<const std::byte> bytes) {
    std::string text;
    text.reserve((bytes.size() + 2) / 3 * 4);
    for (std::size_t i = 0; i < bytes.size(); i += 3) {
        const std::size_t left = bytes.size() - i;
        const auto at = [&](std::size_t k) { return k < left ? unsigned(bytes[i + k]) : 0u; };
        const unsigned word = at(0) << 16 | at(1) << 8 | at(2);
        text += kDigits[word >> 18];
        text += kDigits[word >> 12 & 63];
        text += left > 1 ? kDigits[word >> 6 & 63] : '=';
        text += left > 2 ? kDigits[word & 63] : '=';
    }
    return text;
}

std::string fromBase64(std::string_view text, const std::string& what) {
    std::array<signed char, 256> value{};
    value.fill(-1);
    for (int i = 0; i < 64; ++i)
        value[std::size_t(static_cast<unsigned char>(kDigits[i]))] = static_cast<signed char>(i);
    while (!text.empty() && text.back() == '=') text.remove_suffix(1);
    std::string bytes;
    bytes.reserve(text.size() * 3 / 4);
    unsigned word = 0;
    int bits = 0;
    for (const char c : text) {
        const int v = value[static_cast<unsigned char>(c)];
        if (v < 0) throw Error(Errc::Format, what + " is damaged: it is not base64");
        word = word << 6 | unsigned(v);
        bits += 6;
        if (bits >= 8) {
            bits -= 8;
            bytes += char(word >> bits & 255);
        }
    }
    return bytes;
}

std::string bytesInWords(Index bytes) {
    std::string digits = std::to_string(bytes);
    const std::size_t first = digits[0] == '-' ? 1 : 0;
    for (std::size_t i = digits.size(); i > first + 3;) {
        i -= 3;
        digits.insert(i, 1, ',');
    }
    return digits + (bytes == 1 ? " byte" : " bytes");
}

}  // namespace sparsight::sessions
