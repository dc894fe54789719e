#include "sessions/lock.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <nlohmann/json.hpp>

#include "kernels/base/error.h"

namespace sparsight::sessions {
namespace {

constexpr Index kMostText = 4096;

std::string firstLine(const char* file) {
    try {
        std::string text(64, '\0');
        const Fd fd(::open(file, O_RDONLY | O_CLOEXEC));
        const ssize_t n = fd ? ::read(fd.get(), text.data(), text.size()) : 0;
        text.resize(n > 0 ? std::size_t(n) : 0);
        return text.substr(0, text.find('\n'));
    } catch (const std::exception&) {
        return {};
    }
}

std::string hostName() {
    char name[256] = {};
    return ::gethostname(name, sizeof name - 1) == 0 ? name : "";
}

/// The holder's text is another program's: only what is well formed and printable is shown.
std::string holderInWords(const Fd& fd, const std::filesystem::path& path) {
    const std::string unknown = "another process";
    try {
        const Index size = std::min(sizeOf(fd, path), kMostText);
        std::string text(std::size_t(size), '\0');
        readFully(fd, std::as_writable_bytes(std::span(text)), 0, path);
        const auto j = nlohmann::json::parse(text);
        const auto word = [&](const char* key) {
            std::string s = j.at(key).get<std::string>();
            std::erase_if(s, [](char c) { return c < 0x20 || c > 0x7e; });
            return s.substr(0, 80);
        };
        return "process " + std::to_string(j.at("pid").get<long>()) + " on " + word("host") +
               " since " + word("start");
    } catch (const std::exception&) {
        return unknown;
    }
}

struct flock wholeFile(short type) {
    struct flock lock {};
    lock.l_type = type;
    lock.l_whence = SEEK_SET;
    return lock;
}

}  // namespace

WriterLock::WriterLock(const std::filesystem::path& folder) {
    const auto path = folder / "session.lock";
    m_fd = openRegular(path, O_RDWR | O_CREAT);
    // A holder that was just killed may leave the descriptor to a child for a moment.
    constexpr int kTries = 15;
    for (int tries = 1;; ++tries) {
        struct flock lock = wholeFile(F_WRLCK);
        if (::fcntl(m_fd.get(), F_OFD_SETLK, &lock) == 0) break;
        if (errno != EAGAIN && errno != EACCES) throwErrno(errno, "lock", path);
        if (tries == kTries)
            throw Error(Errc::Resources,
                        "session '" + folder.string() + "' is open for writing by " +
                            holderInWords(m_fd, path) + "; close it there, or open it read-only");
        ::usleep(20'000);
    }
    const nlohmann::json j = {{"pid", long(::getpid())},
                              {"host", hostName()},
                              {"boot_id", firstLine("/proc/sys/kernel/random/boot_id")},
                              {"start", utcNow()},
                              {"app_version", SPARSIGHT_VERSION},
                              {"mode", "write"}};
    const std::string text = j.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace) + "\n";
    // The lock itself is what counts; on a full disk its text stays short and holders nameless.
    if (::ftruncate(m_fd.get(), 0) == 0 &&
        ::pwrite(m_fd.get(), text.data(), text.size(), 0) != ssize_t(text.size()))
        static_cast<void>(::ftruncate(m_fd.get(), 0));
}

WriterLock::~WriterLock() {
    if (m_fd && ::ftruncate(m_fd.get(), 0) != 0) return;  // closing the descriptor unlocks anyway
}

std::string lockHolder(const std::filesystem::path& folder) {
    const auto path = folder / "session.lock";
    try {
        const Fd fd = openRegular(path, O_RDONLY);
        struct flock lock = wholeFile(F_RDLCK);
        if (::fcntl(fd.get(), F_OFD_GETLK, &lock) != 0 || lock.l_type == F_UNLCK) return {};
        return holderInWords(fd, path);
    } catch (const Error&) {
        return {};  // no lock file: nobody ever wrote
    }
}

}  // namespace sparsight::sessions
