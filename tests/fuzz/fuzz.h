#pragma once

#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
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

/// A directory in memory for targets whose functions read files.
class FuzzDirectory {
public:
    FuzzDirectory()
        : m_path("/dev/shm/sparsight_fuzz_" + std::to_string(static_cast<long>(getpid()))) {
        std::filesystem::create_directories(m_path);
    }
    ~FuzzDirectory() { std::filesystem::remove_all(m_path); }
    const std::filesystem::path& path() const { return m_path; }
    void write(const char* name, std::string_view bytes) const {
        std::FILE* f = std::fopen((m_path / name).c_str(), "wb");
        require(f != nullptr, "the directory can be written");
        require(std::fwrite(bytes.data(), 1, bytes.size(), f) == bytes.size(), "the disk has room");
        std::fclose(f);
    }

private:
    std::filesystem::path m_path;
};
