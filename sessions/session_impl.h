#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "sessions/catalogue.h"
#include "sessions/helper_process.h"
#include "sessions/lock.h"
#include "sessions/segment_writer.h"
#include "sessions/session.h"
#include "sessions/sqlite.h"

namespace sparsight::sessions {

/// Lock order: writing before catalogue.
struct Session::Impl {
    std::filesystem::path path;  ///< as the user gave it
    std::filesystem::path root;  ///< without symbolic links
    OpenMode mode = OpenMode::ReadOnly;
    std::filesystem::path recovered;  ///< temporary folder with a repaired copy of the catalogue
    WriterLock lock;
    std::string uuid;

    mutable std::mutex catalogue;  ///< held for every use of db
    std::unique_ptr<Database> db;
    std::set<std::int64_t> lost;  ///< segments whose file is missing or of a wrong size
    std::vector<std::string> warnings;

    /// Of all layers of a capture, by its uuid: they never change. Guarded by `catalogue`.
    using Shapes = std::vector<LayerShape>;
    mutable std::map<std::string, std::shared_ptr<Shapes>> shapes;

    std::mutex writing;  ///< one layer at a time
    HelperProcess helper;

    mutable std::mutex cache;
    mutable std::set<std::string> verified;  ///< paths whose checksums were right
    mutable std::map<std::string, std::weak_ptr<const LayerCapture>> layers;
    mutable std::map<std::string, std::weak_ptr<const LayerStats>> stats;
    /// Whether a segment's checksums are still to be compared; `verified` takes it when they were.
    bool unverified(const std::string& segmentPath) const {
        const std::lock_guard guard(cache);
        return !verified.contains(segmentPath);
    }

    ~Impl();
    /// @throws Error(Usage) when the session is open for reading only
    void requireWritable() const;
    SegmentPlace place(const CaptureInfo& capture) const {
        return {root, uuid, capture.uuid, capture.config.sha256};
    }
};

/// The catalogue of a session, checked, for reading. A journal that a crash left is rolled back:
/// in place, or in a copy when the folder cannot be written.
/// @param recovered  set to the temporary folder of the copy
std::unique_ptr<Database> openForReading(const std::filesystem::path& root,
                                         std::filesystem::path& recovered);

/// Finds segments without a sound file. @param lost  filled in
/// @return sentences
std::vector<std::string> findLost(Database& db, const std::filesystem::path& root,
                                  std::set<std::int64_t>& lost);

/// What a crash left, put right by the holder of the writer's lock: partial files deleted, the
/// trash emptied, complete layers without a row adopted, other orphans set aside in tmp/.
/// Whole captures whose end was not recorded are marked complete.
/// @return sentences about what was found and done
std::vector<std::string> recover(Session::Impl& session);

/// D3 and D4: removes the files that the trash names, then the trash.
void emptyTrash(Database& db, const std::filesystem::path& root);

/// A copy of the catalogue in backup/ when the newest is older than 30 minutes; the three newest
/// are kept. @return a sentence when it failed, else ""
std::string backUp(Database& db, const std::filesystem::path& root);

}  // namespace sparsight::sessions
