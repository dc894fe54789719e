#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <chrono>

#include "kernels/base/error.h"
#include "sessions/fault.h"
#include "sessions/schema.h"
#include "sessions/session_impl.h"

namespace sparsight::sessions {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kKept = 3;
constexpr auto kInterval = std::chrono::minutes(30);

struct Copy {
    int number = 0;
    fs::path file;
};

/// session-<schema>-<n>.db, oldest first.
std::vector<Copy> copies(const fs::path& folder) {
    std::vector<Copy> found;
    std::error_code ec;
    const std::string start = "session-" + std::to_string(kSchemaVersion) + "-";
    for (const auto& entry : fs::directory_iterator(folder, ec)) {
        const std::string name = entry.path().filename().string();
        if (!name.starts_with(start) || !name.ends_with(".db")) continue;
        int n = 0;
        const char *first = name.data() + start.size(), *last = name.data() + name.size() - 3;
        if (const auto parsed = std::from_chars(first, last, n);
            parsed.ec == std::errc{} && parsed.ptr == last && n >= 0)
            found.push_back({n, entry.path()});
    }
    std::sort(found.begin(), found.end(),
              [](const Copy& a, const Copy& b) { return a.number < b.number; });
    return found;
}

void copyCatalogue(Database& db, const fs::path& part) {
    faultPoint("B1", "write", part);
    Database out(part, Database::Access::Create);
    sqlite3_backup* backup = sqlite3_backup_init(out.handle(), "main", db.handle(), "main");
    if (!backup) out.fail(sqlite3_errcode(out.handle()), "copy the catalogue to");
    sqlite3_backup_step(backup, -1);
    if (const int code = sqlite3_backup_finish(backup); code != SQLITE_OK)
        out.fail(code, "copy the catalogue to");
}

}  // namespace

std::string backUp(Database& db, const fs::path& root) {
    const fs::path folder = root / "backup";
    const fs::path part = root / "tmp" / (randomUuid() + ".part");
    try {
        std::vector<Copy> old = copies(folder);
        std::error_code ec;
        if (!old.empty()) {
            const auto time = fs::last_write_time(old.back().file, ec);
            const auto age = fs::file_time_type::clock::now() - time;
            // A time in the future (a clock set back) must not stop the copies.
            if (!ec && age >= age.zero() && age < kInterval) return {};
        }
        const int number = old.empty() ? 1 : old.back().number + 1;
        copyCatalogue(db, part);
        ::unlink((part.string() + "-journal").c_str());
        const fs::path file = folder / ("session-" + std::to_string(kSchemaVersion) + "-" +
                                        std::to_string(number) + ".db");
        faultPoint("B2", "name", file);
        if (::rename(part.c_str(), file.c_str()) != 0) throwErrno(errno, "name", file);
        syncDirectory(folder);
        old.push_back({number, file});
        for (std::size_t i = 0; i + kKept < old.size(); ++i) ::unlink(old[i].file.c_str());
        return {};
    } catch (const Error& e) {
        ::unlink(part.c_str());
        ::unlink((part.string() + "-journal").c_str());
        return std::string("no backup copy of the catalogue could be made: ") + e.what();
    }
}

}  // namespace sparsight::sessions
