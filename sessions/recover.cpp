#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "kernels/base/error.h"
#include "sessions/fault.h"
#include "sessions/schema.h"
#include "sessions/session_impl.h"

namespace sparsight::sessions {
namespace {

namespace fs = std::filesystem;

constexpr Index kMostSidecar = Index(16) << 20;
constexpr std::size_t kMostSegments = 2'000'000;

bool isPlainFile(const fs::path& file, Index* bytes = nullptr) {
    struct stat st {};
    if (::lstat(file.c_str(), &st) != 0 || !S_ISREG(st.st_mode)) return false;
    if (bytes) *bytes = Index(st.st_size);
    return true;
}

void copyFile(const fs::path& from, const fs::path& to) {
    const Fd in = openRegular(from, O_RDONLY);
    const Fd out = openRegular(to, O_WRONLY | O_CREAT | O_EXCL);
    std::vector<std::byte> buffer(std::size_t(1) << 20);
    const Index size = sizeOf(in, from);
    for (Index at = 0; at < size; at += Index(buffer.size())) {
        const auto piece =
            std::span(buffer).first(std::size_t(std::min<Index>(Index(buffer.size()), size - at)));
        readFully(in, piece, at, from);
        writeFully(out, piece, at, to);
    }
}

void deletePartFiles(const fs::path& root) {
    std::error_code ec;
    std::vector<fs::path> parts;
    for (const auto& entry : fs::directory_iterator(root / "tmp", ec))
        // Also the journal of a copy of the catalogue, "<uuid>.part-journal".
        if (entry.path().extension().string().starts_with(".part")) parts.push_back(entry.path());
    for (const fs::path& part : parts) ::unlink(part.c_str());
}

/// Files in seg/ that look like segments or sidecars, as relative paths.
std::vector<std::string> filesInSeg(const fs::path& root, const std::string& ending) {
    std::vector<std::string> found;
    std::error_code ec;
    for (const auto& folder : fs::directory_iterator(root / "seg", ec)) {
        if (folder.is_symlink(ec) || !folder.is_directory(ec)) continue;
        for (const auto& entry : fs::directory_iterator(folder.path(), ec))
            if (entry.path().extension() == ending && found.size() < kMostSegments)
                found.push_back("seg/" + folder.path().filename().string() + "/" +
                                entry.path().filename().string());
    }
    std::sort(found.begin(), found.end());
    return found;
}

struct Orphan {
    std::string path;
    std::optional<Segment> segment;  ///< when its sidecar and every checksum are right
};

Orphan examineOrphan(Session::Impl& session, const std::string& path) {
    Orphan orphan{path, std::nullopt};
    try {
        if (!isSegmentPath(path)) return orphan;
        const fs::path sidecar = session.root / sidecarPath(path);
        const Segment s = readSidecar(readSmallFile(sidecar, kMostSidecar), path, session.uuid);
        const Fd fd = openBeneath(session.root, path);
        verifySegment(fd, session.root / path, s);
        const auto root = session.helper.describe(session.root / path).at("root");
        if (root.value("capture_uuid", "") == s.capture &&
            root.value("segment_uuid", "") == s.uuid && root.value("layer", Index(-1)) == s.layer)
            orphan.segment = s;
    } catch (const Error&) {
        // Not one of ours, or not whole: it is set aside.
    } catch (const nlohmann::json::exception&) {
    }
    return orphan;
}

/// Enters complete layers (both segments) of unfinished captures. @return the layers in words
std::vector<std::string> adopt(Session::Impl& session, std::vector<Orphan>& orphans) {
    std::vector<std::string> said;
    std::map<std::pair<std::string, Index>, std::map<std::string, Orphan*>> layers;
    for (Orphan& o : orphans)
        if (o.segment) layers[{o.segment->capture, o.segment->layer}][o.segment->kind] = &o;
    for (auto& [key, parts] : layers) {
        const auto& [uuid, layer] = key;
        if (!parts.contains("qkv") || !parts.contains("pyr")) continue;
        Statement known(*session.db, "SELECT id FROM capture WHERE uuid=?");
        known.bind(1, uuid);
        if (!known.step()) continue;
        const std::int64_t row = known.integer(0);
        known.reset();
        const CaptureInfo capture = readCapture(*session.db, row, session.lost);
        const auto holds = [&](const std::vector<Index>& list) {
            return std::find(list.begin(), list.end(), layer) != list.end();
        };
        if (!holds(capture.layersAsked) || holds(capture.layersDone)) continue;
        Statement taken(*session.db,
                        "SELECT 1 FROM segment WHERE capture_id=? AND layer=? LIMIT 1");
        taken.bind(1, row).bind(2, layer);
        if (taken.step()) continue;
        taken.reset();
        Transaction transaction(*session.db);
        for (const char* kind : {"qkv", "pyr"})
            insertSegment(*session.db, row, *parts[kind]->segment);
        transaction.commit();
        for (const char* kind : {"qkv", "pyr"}) parts[kind]->path.clear();
        said.push_back("layer " + std::to_string(layer) + " of capture " + uuid.substr(0, 8) +
                       " was complete but not yet entered: it is now");
    }
    return said;
}

/// Orphans that nobody claims go to tmp/ under their own name: after restoring an older catalogue
/// they may be the user's data.
void setAside(Session::Impl& session, const std::string& path, std::vector<std::string>& said) {
    const fs::path from = session.root / path, to = session.root / "tmp" / from.filename();
    if (::rename(from.c_str(), to.c_str()) != 0) return;
    ::unlink((session.root / sidecarPath(path)).c_str());
    said.push_back("'" + path + "' belongs to no capture: it was moved to tmp/ and may be deleted");
}

void handleOrphans(Session::Impl& session, std::vector<std::string>& said) {
    std::set<std::string> known;
    for (const SegmentRow& row : segmentRows(*session.db)) known.insert(row.segment.path);
    std::vector<Orphan> orphans;
    for (const std::string& path : filesInSeg(session.root, ".h5"))
        if (!known.contains(path)) orphans.push_back(examineOrphan(session, path));
    const auto adopted = adopt(session, orphans);
    said.insert(said.end(), adopted.begin(), adopted.end());
    for (const Orphan& o : orphans)
        if (!o.path.empty()) setAside(session, o.path, said);
    // A crash between the two renames leaves a sidecar alone.
    for (const std::string& path : filesInSeg(session.root, ".crc")) {
        const std::string segment = path.substr(0, path.size() - 4) + ".h5";
        if (!isPlainFile(session.root / segment)) ::unlink((session.root / path).c_str());
    }
}

void closeCaptures(Session::Impl& session, std::vector<std::string>& said) {
    for (const CaptureInfo& c : readCaptures(*session.db, session.lost)) {
        if (c.state != "open") continue;
        if (c.layersDone == c.layersAsked) {
            Transaction transaction(*session.db);
            Statement(
                *session.db,
                "UPDATE capture SET state='complete', finished_utc=?, error=NULL WHERE uuid=?")
                .bind(1, utcNow())
                .bind(2, c.uuid)
                .run();
            transaction.commit();
            continue;
        }
        said.push_back("capture " + c.uuid.substr(0, 8) +
                       " was interrupted: " + std::to_string(c.layersDone.size()) + " of " +
                       std::to_string(c.layersAsked.size()) +
                       " layers are there; resume goes on with the others");
    }
}

std::unique_ptr<Database> openChecked(const fs::path& file, const fs::path& root,
                                      Database::Access access) {
    auto db = std::make_unique<Database>(file, access);
    checkCatalogue(*db, root);
    return db;
}

}  // namespace

std::unique_ptr<Database> openForReading(const fs::path& root, fs::path& recovered) {
    const fs::path file = root / "session.db", journal = root / "session.db-journal";
    try {
        return openChecked(file, root, Database::Access::Read);
    } catch (const Error&) {
        Index bytes = 0;
        if (!isPlainFile(journal, &bytes) || bytes == 0) throw;
    }
    // A writer died inside a commit: SQLite must roll back, which a reader may not.
    try {
        const WriterLock lock(root);
        openChecked(file, root, Database::Access::Write).reset();
        return openChecked(file, root, Database::Access::Read);
    } catch (const Error& e) {
        if (e.code() == Errc::Format || e.code() == Errc::Unsupported) throw;
    }
    recovered = fs::temp_directory_path() / ("sparsight-" + randomUuid());
    fs::create_directory(recovered);
    copyFile(file, recovered / "session.db");
    copyFile(journal, recovered / "session.db-journal");
    const fs::path copy = fs::canonical(recovered) / "session.db";
    openChecked(copy, root, Database::Access::Write).reset();
    return openChecked(copy, root, Database::Access::Read);
}

std::vector<std::string> findLost(Database& db, const fs::path& root,
                                  std::set<std::int64_t>& lost) {
    std::vector<std::string> said;
    for (const SegmentRow& row : segmentRows(db)) {
        const Segment& s = row.segment;
        Index bytes = 0;
        const bool there = isSegmentPath(s.path) && isPlainFile(root / s.path, &bytes);
        if (there && bytes == s.bytes) continue;
        lost.insert(row.row);
        said.push_back("layer " + std::to_string(s.layer) + " of capture " +
                       s.capture.substr(0, 8) + " is left out: '" + s.path + "' " +
                       (there
                            ? "has " + bytesInWords(bytes) + " instead of " + bytesInWords(s.bytes)
                            : std::string("is missing")));
    }
    return said;
}

void emptyTrash(Database& db, const fs::path& root) {
    std::vector<std::string> paths;
    {
        Statement s(db, "SELECT path FROM trash");
        while (s.step()) paths.push_back(s.text(0));
    }
    if (paths.empty()) return;
    faultPoint("D3", "delete", root);
    for (const std::string& path : paths) {
        if (!isSegmentPath(path)) continue;
        ::unlink((root / path).c_str());
        ::unlink((root / sidecarPath(path)).c_str());
    }
    faultPoint("D4", "delete", root);
    Transaction transaction(db);
    db.exec("DELETE FROM trash");
    transaction.commit();
}

std::vector<std::string> recover(Session::Impl& session) {
    std::vector<std::string> said;
    deletePartFiles(session.root);
    emptyTrash(*session.db, session.root);
    handleOrphans(session, said);
    closeCaptures(session, said);
    return said;
}

}  // namespace sparsight::sessions
