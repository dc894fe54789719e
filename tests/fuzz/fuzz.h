#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>

#include "kernels/base/error.h"

/// Stops the fuzzer: a promise of the code under test is broken.
inline void require(bool holds, const char* promise) {
    if (holds) return;
    std::fprintf(stderr, "broken: %s\n", promise);
    std::abort();
}

/// Runs `work`; bad input may end in an Error with a message, and in nothing else.
template <class Work>
void expectErrorOrNothing(const Work& work) {
    try {
        work();
    } catch (const sparsight::Error& e) {
        require(*e.what() != '\0', "an error has a message");
    }
}

/// A directory in memory for targets whose functions read files. Files stay open: to open one costs
/// as much as to read it.
class FuzzDirectory {
public:
    FuzzDirectory()
        : m_path("/dev/shm/sparsight_fuzz_" + std::to_string(static_cast<long>(getpid()))) {
        std::filesystem::create_directories(m_path);
    }
    FuzzDirectory(const FuzzDirectory&) = delete;
    ~FuzzDirectory() {
        for (const auto& [name, fd] : m_files) ::close(fd);
        std::filesystem::remove_all(m_path);
    }
    const std::filesystem::path& path() const { return m_path; }
    void write(const std::string& name, std::string_view bytes) {
        auto at = m_files.find(name);
        if (at == m_files.end())
            at = m_files.emplace(name, ::open((m_path / name).c_str(), O_RDWR | O_CREAT, 0600))
                     .first;
        const int fd = at->second;
        require(fd >= 0, "the directory can be written");
        require(::pwrite(fd, bytes.data(), bytes.size(), 0) == ssize_t(bytes.size()) &&
                    ::ftruncate(fd, off_t(bytes.size())) == 0,
                "the disk has room");
    }

private:
    std::filesystem::path m_path;
    std::map<std::string, int> m_files;
};
