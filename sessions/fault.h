#pragma once

#include <filesystem>
#include <string>

namespace sparsight::sessions {

/// Fault injection for the crash and disk-full tests, in every build: one comparison per call when
/// the environment does not ask for it.
///
///     SPARSIGHT_FAULT=point[:nth]:kill|enospc|eio      e.g. S4:2:enospc, S7:kill
///
/// At the nth (default first) arrival at `point` the process is killed with SIGKILL, or the step
/// fails as if the system call had returned that error. Points: S0-S9 write protocol (arrival is
/// before the step's own work; S4 counts 4 MiB pieces, S7 and S8 have the variants S7b, S8b after
/// the first rename and before the COMMIT), D1-D4 deletion, B1-B2 backup; see docs/sessions.md.
/// @throws Error as throwErrno(ENOSPC or EIO, what, path)
void faultPoint(const char* point, const std::string& what, const std::filesystem::path& path);

}  // namespace sparsight::sessions
