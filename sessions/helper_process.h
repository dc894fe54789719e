#pragma once

#include <sys/types.h>

#include <filesystem>
#include <mutex>
#include <nlohmann/json.hpp>

#include "sessions/io.h"

namespace sparsight::sessions {

/// HDF5 in a process of its own: a crash or a broken state of libhdf5 costs that process, never
/// ours. Started at the first call, kept for the next ones, replaced after any failure.
///
/// The process is this program again with a hidden sub-command when main() called
/// runSessionHelper(), else a plain fork (test programs).
class HelperProcess {
public:
    HelperProcess() = default;
    HelperProcess(const HelperProcess&) = delete;
    HelperProcess& operator=(const HelperProcess&) = delete;
    ~HelperProcess();

    /// Starts the process, if it does not run, without waiting for it: loading a program with many
    /// libraries takes up to a second, which a forward pass can hide.
    void warm();
    /// createSkeleton() there. @throws Error as that does, Error(Io) when the process died
    nlohmann::json skeleton(const std::filesystem::path& file, const nlohmann::json& spec);
    /// describeSegment() there.
    nlohmann::json describe(const std::filesystem::path& file);

private:
    nlohmann::json call(const nlohmann::json& request, const std::filesystem::path& file);
    void start();
    /// Ends the process; @return how it had ended by itself, in words
    std::string stop();
    /// Whether SIGKILL ended it, which HDF5 itself never does.
    bool killedFromOutside() const;

    std::mutex m_mutex;
    Fd m_socket;
    pid_t m_pid = -1;
};

/// Held around every use of HDF5 inside this process.
std::mutex& h5Mutex();

}  // namespace sparsight::sessions
