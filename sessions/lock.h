#pragma once

#include <filesystem>
#include <string>

#include "sessions/io.h"

namespace sparsight::sessions {

/// The writer's lock: an open-file-description write lock on session.lock, which the kernel drops
/// when the process dies, plus a JSON text that says who holds it.
class WriterLock {
public:
    WriterLock() = default;
    /// @throws Error(Resources) naming the holder; Error(Io) when the folder cannot be written
    explicit WriterLock(const std::filesystem::path& folder);
    WriterLock(WriterLock&&) = default;
    WriterLock& operator=(WriterLock&&) = default;
    ~WriterLock();

private:
    Fd m_fd;
};

/// Who holds the writer's lock, in words ("process 123 on host since ..."); "" = nobody.
std::string lockHolder(const std::filesystem::path& folder);

}  // namespace sparsight::sessions
