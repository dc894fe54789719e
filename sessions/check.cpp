#include <algorithm>

#include "core/model/sha256.h"
#include "kernels/base/error.h"
#include "sessions/session_impl.h"

namespace sparsight::sessions {
namespace {

namespace fs = std::filesystem;

constexpr Index kMostSidecar = Index(16) << 20;

void checkSegment(Database& db, HelperProcess& helper, const fs::path& root,
                  const std::string& session, const SegmentRow& row,
                  const std::function<void(Index)>& progress) {
    Segment s = row.segment;
    if (!isSegmentPath(s.path) || segmentPath(s.uuid, s.kind) != s.path)
        throw Error(Errc::Format,
                    "the catalogue names the file '" + s.path + "', which Sparsight never makes");
    s.crc = segmentCrc(db, row);
    {
        const Fd fd = openBeneath(root, s.path);
        verifySegment(fd, root / s.path, s, progress);
    }
    const auto about = helper.describe(root / s.path).at("root");
    if (about.value("segment_uuid", "") != s.uuid || about.value("session_uuid", "") != session ||
        about.value("capture_uuid", "") != s.capture ||
        about.value("layer", Index(-1)) != s.layer || about.value("kind", "") != s.kind)
        throw Error(Errc::Format, "'" + s.path + "' says that it is another layer's segment");
    const Segment beside =
        readSidecar(readSmallFile(root / sidecarPath(s.path), kMostSidecar), s.path, session);
    if (beside.crc != s.crc || beside.bytes != s.bytes || beside.layer != s.layer)
        throw Error(Errc::Format, "'" + sidecarPath(s.path) + "' contradicts the catalogue");
}

void checkPlans(Database& db, std::vector<std::string>& problems) {
    Statement s(db, "SELECT name, json, sha256 FROM plan");
    while (s.step())
        if (sha256Hex(s.text(1)) != s.text(2))
            problems.push_back("plan '" + s.text(0) + "' does not match its SHA-256");
}

}  // namespace

CheckReport checkSession(const fs::path& folder, const Job& job) {
    CheckReport report;
    std::shared_ptr<Session> opened;
    try {
        // Also the catalogue's gate: application id, schema, quick_check.
        opened = Session::open(folder, OpenMode::ReadOnly);
        opened->info();
    } catch (const Error& e) {
        if (e.code() != Errc::Format) throw;
        report.problems.push_back(e.what());
        report.ok = false;
        return report;
    }
    const fs::path root = fs::canonical(folder);
    fs::path recovered;
    const auto db = openForReading(root, recovered);
    const std::string session = opened->info().uuid;
    HelperProcess helper;
    const auto rows = segmentRows(*db);
    Index all = 1;
    for (const SegmentRow& row : rows) all += row.segment.bytes;
    for (const SegmentRow& row : rows) {
        const auto progress = [&](Index done) {
            job.step(double(report.bytes + done) / double(all), row.segment.path);
        };
        try {
            checkSegment(*db, helper, root, session, row, progress);
        } catch (const Error& e) {
            report.problems.push_back(e.what());
        } catch (const nlohmann::json::exception& e) {
            report.problems.push_back("'" + row.segment.path +
                                      "' cannot be understood: " + e.what());
        }
        ++report.segments;
        report.bytes += row.segment.bytes;
    }
    checkPlans(*db, report.problems);
    std::error_code ec;
    if (!recovered.empty()) fs::remove_all(recovered, ec);
    report.ok = report.problems.empty();
    return report;
}

}  // namespace sparsight::sessions
