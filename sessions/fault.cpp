#include "sessions/fault.h"

#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdlib>

#include "sessions/io.h"

namespace sparsight::sessions {
namespace {

struct Fault {
    std::string point, action;
    long nth = 1;
};

/// Empty point = no fault asked for.
Fault readFault() {
    Fault fault;
    const char* text = std::getenv("SPARSIGHT_FAULT");
    if (!text) return fault;
    const std::string all = text;
    const auto first = all.find(':'), last = all.rfind(':');
    if (first == std::string::npos) return fault;
    fault.point = all.substr(0, first);
    fault.action = all.substr(last + 1);
    if (last > first)
        fault.nth = std::strtol(all.substr(first + 1, last - first - 1).c_str(), nullptr, 10);
    return fault;
}

}  // namespace

void faultPoint(const char* point, const std::string& what, const std::filesystem::path& path) {
    static const Fault fault = readFault();
    static std::atomic<long> arrivals{0};
    if (fault.point.empty() || fault.point != point) return;
    if (++arrivals != fault.nth) return;
    if (fault.action == "kill") {
        ::kill(::getpid(), SIGKILL);
        ::pause();
    }
    if (fault.action == "enospc") throwErrno(ENOSPC, what, path);
    if (fault.action == "eio") throwErrno(EIO, what, path);
}

}  // namespace sparsight::sessions
