#include "sessions/session.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "kernels/base/error.h"
#include "sessions/schema.h"
#include "sessions/session_impl.h"

namespace sparsight::sessions {
namespace {

namespace fs = std::filesystem;

constexpr Index kMostCatalogue = Index(8) << 30;

constexpr char kReadme[] =
    R"(This folder is one Sparsight session. Move, copy or delete it as a whole.

session.db     SQLite catalogue: models, prompts, captures, metrics, plans (the source of truth)
seg/           one HDF5 file per layer and kind; never changed after it was written
               *-qkv.h5  /Q /K /V /LSE      *-pyr.h5  /mass/L0.. /max/L0.. /colsum /diagsum ...
               *.crc     sizes and CRC-32C of the file beside it
session.lock   says who has the session open for writing
tmp/           unfinished files; backup/ copies of session.db

From Python:
    import sqlite3, h5py
    db = sqlite3.connect("file:session.db?mode=ro", uri=True)
    path, = db.execute("select path from segment where kind='qkv' and layer=0").fetchone()
    q = h5py.File(path, "r")["Q"][:]
)";

/// Open sessions of this process, so that a second opening for writing shares the first.
struct Registry {
    std::mutex mutex;
    std::map<fs::path, std::weak_ptr<Session>> open;
};
Registry& registry() {
    static Registry r;
    return r;
}

/// The folder without symbolic links, when it can be a session.
/// @throws Error(NotFound), Error(Format)
fs::path sessionRoot(const fs::path& folder) {
    const std::string who = "session '" + folder.string() + "'";
    std::error_code ec;
    const fs::path root = fs::canonical(folder, ec);
    if (ec) throw Error(Errc::NotFound, who + " does not exist");
    if (!fs::is_directory(root, ec))
        throw Error(Errc::Format, who + " is a file; a session is a folder with a session.db");
    struct stat st {};
    if (::lstat((root / "session.db").c_str(), &st) != 0)
        throw Error(Errc::Format,
                    "'" + folder.string() + "' is not a session: it holds no session.db");
    if (!S_ISREG(st.st_mode))
        throw Error(Errc::Format, who + " is damaged: its session.db is not a plain file");
    if (Index(st.st_size) > kMostCatalogue)
        throw Error(Errc::Format, who + " is damaged: its session.db is larger than 8 GiB");
    return root;
}

void makeFolder(const fs::path& folder) {
    if (::mkdir(folder.c_str(), 0777) != 0) throwErrno(errno, "create the folder", folder);
}

}  // namespace

Session::Impl::~Impl() {
    if (db && mode == OpenMode::ReadWrite) {
        try {
            setMeta(*db, "clean_close", 1);
        } catch (const Error&) {
            // A full disk: the next opening looks for leftovers and finds none.
        }
    }
    db.reset();
    std::error_code ec;
    if (!recovered.empty()) fs::remove_all(recovered, ec);
}

void Session::Impl::requireWritable() const {
    if (mode != OpenMode::ReadWrite)
        throw Error(Errc::Usage,
                    "session '" + path.string() + "' is open for reading only: nothing is saved");
}

Session::Session(std::unique_ptr<Impl> impl) : m_impl(std::move(impl)) {}
Session::~Session() = default;

std::shared_ptr<Session> Session::create(const fs::path& folder) {
    std::error_code ec;
    fs::path target = folder;
    if (!target.has_filename()) target = target.parent_path();  // "NAME.sparsight/"
    if (target.empty()) throw Error(Errc::Usage, "a session needs a name");
    if (fs::symlink_status(target, ec).type() != fs::file_type::not_found)
        throw Error(Errc::Usage, "'" + target.string() + "' exists already: open it instead");
    const fs::path parent = target.has_parent_path() ? target.parent_path() : fs::path(".");
    if (!fs::is_directory(parent, ec))
        throw Error(Errc::NotFound,
                    "the folder '" + parent.string() + "' for the new session does not exist");
    // Whole or not at all: built beside its place, then renamed.
    const fs::path part =
        fs::canonical(parent) / ("." + target.filename().string() + "." + randomUuid() + ".part");
    try {
        makeFolder(part);
        for (const char* name : {"seg", "tmp", "backup"}) makeFolder(part / name);
        createCatalogue(part / "session.db", randomUuid());
        writeFileDurably(part / "README.txt", kReadme);
        syncDirectory(part);
        if (::rename(part.c_str(), target.c_str()) != 0) throwErrno(errno, "create", target);
        syncDirectory(part.parent_path());
    } catch (...) {
        fs::remove_all(part, ec);
        throw;
    }
    return open(target, OpenMode::ReadWrite);
}

std::shared_ptr<Session> Session::open(const fs::path& folder, OpenMode mode) {
    const fs::path root = sessionRoot(folder);
    std::unique_lock<std::mutex> registered;
    if (mode == OpenMode::ReadWrite) {
        registered = std::unique_lock(registry().mutex);
        if (auto already = registry().open[root].lock()) return already;
    }
    auto impl = std::make_unique<Impl>();
    impl->path = folder;
    impl->root = root;
    impl->mode = mode;
    // Before anything of a foreign folder is touched; also what a read-only session goes on with.
    impl->db = openForReading(root, impl->recovered);
    if (mode == OpenMode::ReadWrite) {
        if (!impl->recovered.empty())
            throw Error(Errc::Io, "session '" + folder.string() +
                                      "' cannot be repaired where it is: its folder is read-only");
        impl->lock = WriterLock(root);
        impl->db.reset();
        impl->db = std::make_unique<Database>(root / "session.db", Database::Access::Write);
        // A folder that was copied without its empty parts.
        for (const char* name : {"seg", "tmp", "backup"}) ::mkdir((root / name).c_str(), 0777);
    }
    impl->uuid = metaText(*impl->db, "session_uuid");
    impl->warnings = findLost(*impl->db, root, impl->lost);
    if (!impl->recovered.empty())
        impl->warnings.push_back(
            "the folder is read-only and its last writer crashed: a repaired copy of the "
            "catalogue is shown");
    if (mode == OpenMode::ReadWrite) {
        const auto said = recover(*impl);
        impl->warnings.insert(impl->warnings.end(), said.begin(), said.end());
        try {
            setMeta(*impl->db, "clean_close", 0);
        } catch (const Error& e) {
            // A full disk can still be read from, and captures on it removed.
            if (e.code() != Errc::Resources) throw;
            impl->warnings.push_back(e.what());
        }
    } else if (lockHolder(root).empty()) {
        for (const CaptureInfo& c : readCaptures(*impl->db, impl->lost))
            if (c.state == "open")
                impl->warnings.push_back("capture " + c.uuid.substr(0, 8) + " was interrupted: " +
                                         std::to_string(c.layersDone.size()) + " of " +
                                         std::to_string(c.layersAsked.size()) +
                                         " layers are there; resume goes on with the others");
    }
    std::shared_ptr<Session> session(new Session(std::move(impl)));
    if (mode == OpenMode::ReadWrite) registry().open[root] = session;
    return session;
}

const fs::path& Session::path() const {
    return m_impl->path;
}
OpenMode Session::mode() const {
    return m_impl->mode;
}

SessionInfo Session::info() const {
    SessionInfo info;
    info.path = m_impl->path;
    info.uuid = m_impl->uuid;
    info.writable = m_impl->mode == OpenMode::ReadWrite;
    if (!info.writable) info.lockHolder = lockHolder(m_impl->root);
    const std::lock_guard lock(m_impl->catalogue);
    Database& db = *m_impl->db;
    info.warnings = m_impl->warnings;
    info.createdUtc = metaText(db, "created_utc");
    info.appVersion = metaText(db, "app_version");
    info.captures = readCaptures(db, m_impl->lost);
    info.bytes = db.integer("SELECT coalesce(sum(bytes), 0) FROM segment");
    struct stat st {};
    if (::stat((m_impl->root / "session.db").c_str(), &st) == 0) info.bytes += Index(st.st_size);
    return info;
}

bool isSession(const fs::path& folder) {
    struct stat st {};
    // By name and type only: opening session.db would drop SQLite's locks of this process.
    return ::lstat((folder / "session.db").c_str(), &st) == 0 && S_ISREG(st.st_mode);
}

std::vector<SessionInfo> listSessions(const fs::path& directory) {
    std::error_code ec;
    if (!fs::is_directory(directory, ec))
        throw Error(Errc::NotFound, "the directory '" + directory.string() + "' does not exist");
    std::vector<fs::path> found;
    for (const auto& entry : fs::directory_iterator(directory, ec))
        if (isSession(entry.path())) found.push_back(entry.path());
    std::sort(found.begin(), found.end());
    std::vector<SessionInfo> list;
    for (const fs::path& folder : found) {
        try {
            list.push_back(Session::open(folder, OpenMode::ReadOnly)->info());
        } catch (const Error& e) {
            SessionInfo damaged;
            damaged.path = folder;
            damaged.warnings.push_back(e.what());
            list.push_back(std::move(damaged));
        }
    }
    return list;
}

}  // namespace sparsight::sessions
