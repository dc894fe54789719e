// Damaged, foreign and hostile folders: one clear sentence each, never a crash, and the sound
// layers stay readable.

#include <sqlite3.h>
#include <sys/stat.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <fstream>
#include <random>

#include "kernels/base/error.h"
#include "tests/sessions/process.h"
#include "tests/sessions/synthetic.h"

using namespace sparsight;
using namespace sparsight::sessions;
using namespace sparsight::sessions::test;

namespace {

constexpr Index kTokens = 130;

bool contains(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

/// A sound session to damage copies of.
struct Sound {
    TempFolder temp;
    fs::path folder = temp / "sound.sparsight";
    std::string uuid;
    Sound() {
        const auto session = Session::create(folder);
        uuid = writeCapture(*session, kTokens);
        session->setUiState("window", "{}");
    }
    fs::path copy(const std::string& name) const {
        const fs::path to = temp.path / (name + ".sparsight");
        fs::remove_all(to);
        fs::copy(folder, to, fs::copy_options::recursive);
        return to;
    }
};

void sql(const fs::path& folder, const std::string& text) {
    sqlite3* db = nullptr;
    REQUIRE(sqlite3_open((folder / "session.db").c_str(), &db) == SQLITE_OK);
    char* why = nullptr;
    const int code = sqlite3_exec(db, text.c_str(), nullptr, nullptr, &why);
    INFO((why ? why : ""));
    REQUIRE(code == SQLITE_OK);
    sqlite3_close(db);
}

/// The message of the Error with which both ways of opening fail; "" when either works.
std::string refusal(const fs::path& folder, std::optional<Errc> code = {}) {
    std::string text;
    for (const OpenMode mode : {OpenMode::ReadOnly, OpenMode::ReadWrite}) {
        try {
            Session::open(folder, mode);
            return {};
        } catch (const Error& e) {
            text = e.what();
            if (code) CHECK(e.code() == *code);
        }
    }
    CHECK(!contains(text, "\n"));
    return text;
}

/// Opens and reads everything; any Error is fine, anything else is not.
/// @return whether every stored number could be read
bool tryAll(const fs::path& folder) {
    bool whole = true;
    for (const OpenMode mode : {OpenMode::ReadOnly, OpenMode::ReadWrite}) {
        try {
            const auto session = Session::open(folder, mode);
            for (const auto& c : session->info().captures) {
                for (const Index l : c.layersAsked) {
                    try {
                        if (!sameLayer(*session, c.uuid, l, kTokens)) whole = false;
                    } catch (const Error& e) {
                        CHECK(std::string(e.what()).size() > 10);
                        whole = false;
                    }
                }
                session->headFacts(c.uuid);
            }
            session->plans();
            session->uiState("window");
        } catch (const Error& e) {
            CHECK(std::string(e.what()).size() > 10);
            whole = false;
        }
    }
    return whole;
}

std::string segmentOf(const fs::path& folder, const std::string& kind, int layer) {
    sqlite3* db = nullptr;
    sqlite3_stmt* s = nullptr;
    REQUIRE(sqlite3_open((folder / "session.db").c_str(), &db) == SQLITE_OK);
    const std::string query =
        "SELECT path FROM segment WHERE kind='" + kind + "' AND layer=" + std::to_string(layer);
    REQUIRE(sqlite3_prepare_v2(db, query.c_str(), -1, &s, nullptr) == SQLITE_OK);
    REQUIRE(sqlite3_step(s) == SQLITE_ROW);
    const std::string path = reinterpret_cast<const char*>(sqlite3_column_text(s, 0));
    sqlite3_finalize(s);
    sqlite3_close(db);
    return path;
}

}  // namespace

TEST_CASE("a catalogue that is none") {
    const Sound sound;
    const fs::path folder = sound.copy("bad");
    const fs::path db = folder / "session.db";
    const std::string whole = slurp(db);

    spill(db, "Dear diary, this is a text file.\n");
    CHECK(contains(refusal(folder, Errc::Format), "damaged or not a catalogue"));
    spill(db, "");
    CHECK(contains(refusal(folder, Errc::Format), "not a Sparsight catalogue"));
    std::mt19937 random(5);
    std::string garbage(8192, '\0');
    for (char& c : garbage) c = char(random());
    spill(db, garbage);
    CHECK(!refusal(folder, Errc::Format).empty());
    for (const std::size_t n :
         {std::size_t(1), std::size_t(99), std::size_t(511), std::size_t(4095), whole.size() / 2}) {
        INFO(n << " bytes");
        spill(db, whole.substr(0, n));
        CHECK(!refusal(folder, Errc::Format).empty());
    }
    // A last byte that SQLite never wrote to changes nothing.
    spill(db, whole.substr(0, whole.size() - 1));
    tryAll(folder);
    fs::remove(db);
    CHECK(contains(refusal(folder, Errc::Format), "no session.db"));
    fs::create_directory(db);
    CHECK(contains(refusal(folder, Errc::Format), "not a plain file"));
    fs::remove(db);
    REQUIRE(::mkfifo(db.c_str(), 0600) == 0);
    CHECK(contains(refusal(folder, Errc::Format), "not a plain file"));
    fs::remove(db);
    fs::create_symlink(sound.folder / "session.db", db);
    CHECK(contains(refusal(folder, Errc::Format), "not a plain file"));
    spill(sound.temp / "file.sparsight", "x");
    CHECK(contains(refusal(sound.temp / "file.sparsight", Errc::Format), "is a file"));
}

TEST_CASE("somebody else's database") {
    const Sound sound;
    const auto changed = [&](const std::string& text) {
        const fs::path folder = sound.copy("foreign");
        sql(folder, text);
        return folder;
    };
    CHECK(contains(refusal(changed("PRAGMA application_id=252006675"), Errc::Format),
                   "another application id"));
    CHECK(
        contains(refusal(changed("PRAGMA user_version=2"), Errc::Unsupported), "newer Sparsight"));
    CHECK(contains(refusal(changed("PRAGMA user_version=-3"), Errc::Format), "never in use"));
    CHECK(contains(refusal(changed("CREATE TRIGGER t AFTER INSERT ON ui_state BEGIN "
                                   "DELETE FROM capture; END"),
                           Errc::Format),
                   "foreign object"));
    CHECK(contains(refusal(changed("CREATE VIEW v AS SELECT 1"), Errc::Format), "foreign object"));
    CHECK(contains(refusal(changed("DROP TABLE undo"), Errc::Format), "missing or not as"));
    CHECK(contains(refusal(changed("ALTER TABLE note ADD COLUMN evil TEXT"), Errc::Format),
                   "missing or not as"));
    // Foreign files are not touched: the write-ahead mode of somebody else's database stays.
    const fs::path wal = changed("PRAGMA application_id=7; PRAGMA journal_mode=WAL");
    const std::string before = slurp(wal / "session.db");
    CHECK(!refusal(wal).empty());
    CHECK(slurp(wal / "session.db") == before);
    CHECK(!fs::exists(wal / "session.lock") == !fs::exists(sound.folder / "session.lock"));
}

TEST_CASE("rows that lie") {
    const Sound sound;
    for (const std::string text :
         {"UPDATE segment SET path='seg/00/../../../etc/passwd.h5' WHERE layer=0 AND kind='pyr'",
          "UPDATE capture SET n_token=n_token+1",
          "UPDATE capture SET token_ids=x'00'",
          "UPDATE capture SET options_json='{}'",
          "UPDATE capture SET options_json='[1'",
          "UPDATE capture SET options_json='{\"layers\":[9999],\"store\":\"f32\"}'",
          "UPDATE capture SET options_json='{\"layers\":[3,1],\"store\":\"f32\"}'",
          "UPDATE capture SET options_json='{\"layers\":[0],\"store\":\"f99\"}'",
          "UPDATE model SET config_json='{}'",
          "UPDATE model SET config_json='\"x\"'",
          "UPDATE model SET n_q_head=2, n_kv_head=1",
          "UPDATE segment SET crc=x'00112233' WHERE layer=1",
          "UPDATE segment SET crc=x'' WHERE layer=1",
          "UPDATE segment SET bytes=bytes+1",
          "UPDATE segment SET format=99",
          "UPDATE segment SET layer=7 WHERE layer=2",
          "UPDATE prompt SET truth_json='{\"needle\":[5,900000]}'",
          "UPDATE prompt SET truth_json='nonsense'",
          "UPDATE segment SET uuid='zz'||uuid",
          "PRAGMA ignore_check_constraints=1; UPDATE segment SET bytes=-5"}) {
        INFO(text);
        const fs::path folder = sound.copy("lie");
        bool applied = true;
        try {
            sqlite3* db = nullptr;
            sqlite3_open((folder / "session.db").c_str(), &db);
            applied = sqlite3_exec(db, text.c_str(), nullptr, nullptr, nullptr) == SQLITE_OK;
            sqlite3_close(db);
        } catch (...) {
        }
        if (applied)
            CHECK(!tryAll(folder));
        else
            CHECK(tryAll(folder));  // the schema itself refuses the lie
    }
}

TEST_CASE("a damaged segment costs its own layer only") {
    const Sound sound;
    for (const std::string kind : {"qkv", "pyr"}) {
        const std::string path = segmentOf(sound.folder, kind, 1);
        const std::string whole = slurp(sound.folder / path);
        const auto others = [&](const fs::path& folder) {
            const auto session = Session::open(folder, OpenMode::ReadOnly);
            for (const Index l : {0, 2, 3}) CHECK(sameLayer(*session, sound.uuid, l, kTokens));
            CHECK(!checkSession(folder).ok);
        };
        const auto spoilt = [&](const fs::path& folder) {
            const auto session = Session::open(folder, OpenMode::ReadOnly);
            std::string text;
            try {
                sameLayer(*session, sound.uuid, 1, kTokens);
            } catch (const Error& e) {
                text = e.what();
            }
            return text;
        };
        std::mt19937 random(9);
        // One bit anywhere: superblock, headers, data, gaps.
        for (int i = 0; i < 60; ++i) {
            const fs::path folder = sound.copy("bit");
            std::string bytes = whole;
            const std::size_t at = i < 20 ? random() % 2048 : random() % bytes.size();
            bytes[at] = char(bytes[at] ^ (1 << random() % 8));
            spill(folder / path, bytes);
            CHECK(contains(spoilt(folder), "do not match their checksum"));
            if (i == 0) others(folder);
        }
        for (const std::size_t n :
             {std::size_t(0), std::size_t(1), std::size_t(511), whole.size() - 1}) {
            const fs::path folder = sound.copy("short");
            spill(folder / path, whole.substr(0, n));
            const auto session = Session::open(folder, OpenMode::ReadOnly);
            CHECK(session->captureInfo().layersDone == std::vector<Index>{0, 2, 3});
            REQUIRE(session->info().warnings.size() == 1);
            CHECK(contains(session->info().warnings[0], "instead of"));
            CHECK(!spoilt(folder).empty());
            others(folder);
        }
        {
            // Another layer's file under this name.
            const fs::path folder = sound.copy("swapped");
            spill(folder / path, slurp(sound.folder / segmentOf(sound.folder, kind, 2)));
            CHECK(!spoilt(folder).empty());
            others(folder);
        }
        {
            const fs::path folder = sound.copy("link");
            fs::remove(folder / path);
            fs::create_symlink(sound.folder / path, folder / path);
            CHECK(!spoilt(folder).empty());
            others(folder);
        }
        {
            const fs::path folder = sound.copy("linked-folder");
            const fs::path parent = (folder / path).parent_path();
            fs::rename(parent, sound.temp / ("elsewhere-" + kind));
            fs::create_directory_symlink(sound.temp / ("elsewhere-" + kind), parent);
            CHECK(contains(spoilt(folder), "symbolic link"));
        }
        {
            const fs::path folder = sound.copy("folder");
            fs::remove(folder / path);
            fs::create_directory(folder / path);
            CHECK(!spoilt(folder).empty());
            others(folder);
        }
        {
            // A missing file is made again by a resume.
            const fs::path folder = sound.copy("gone");
            fs::remove(folder / path);
            CHECK(!spoilt(folder).empty());
            others(folder);
            const auto session = Session::open(folder, OpenMode::ReadWrite);
            CHECK(session->resumeCapture(sound.uuid) == std::vector<Index>{1});
            const auto layer = smallLayer(1, kTokens);
            session->addLayer(sound.uuid, layer->capture, layer->stats);
            session->finishCapture(sound.uuid, "complete");
            CHECK(sameLayer(*session, sound.uuid, 1, kTokens));
            CHECK(checkSession(folder).ok);
        }
    }
}

TEST_CASE("bits flipped in the catalogue never crash") {
    const Sound sound;
    const std::string whole = slurp(sound.folder / "session.db");
    const fs::path folder = sound.copy("flip");
    std::mt19937 random(3);
    int refused = 0;
    for (int i = 0; i < 300; ++i) {
        std::string bytes = whole;
        // Half of them in the first pages, where the structure is.
        for (int k = 0; k < 1 + i % 3; ++k) {
            const std::size_t at = i % 2 ? random() % 4096 : random() % bytes.size();
            bytes[at] = char(bytes[at] ^ (1 << random() % 8));
        }
        fs::remove_all(folder);
        fs::copy(sound.folder, folder, fs::copy_options::recursive);
        spill(folder / "session.db", bytes);
        fs::remove(folder / "session.db-journal");
        refused += !tryAll(folder);
    }
    CHECK(refused > 0);
}

TEST_CASE("a journal that a dead writer left") {
    // The child dies inside a commit: the catalogue is half written and its journal hot.
    const Sound sound;
    const fs::path folder = sound.copy("hot");
    const pid_t pid = ::fork();
    if (pid == 0) {
        sqlite3* db = nullptr;
        sqlite3_open((folder / "session.db").c_str(), &db);
        sqlite3_exec(db,
                     "PRAGMA journal_mode=TRUNCATE; PRAGMA cache_size=1; PRAGMA cache_spill=1;"
                     "BEGIN IMMEDIATE; UPDATE prompt SET text=text||hex(zeroblob(300000));"
                     "UPDATE ui_state SET json='{\"changed\": 1}';"
                     "INSERT INTO ui_state VALUES('x','\"'||hex(zeroblob(300000))||'\"','');",
                     nullptr, nullptr, nullptr);
        ::kill(::getpid(), SIGKILL);
    }
    int status = 0;
    ::waitpid(pid, &status, 0);
    REQUIRE(fs::file_size(folder / "session.db-journal") > 0);
    REQUIRE(slurp(folder / "session.db") != slurp(sound.folder / "session.db"));
    for (const OpenMode mode : {OpenMode::ReadOnly, OpenMode::ReadWrite}) {
        const auto session = Session::open(folder, mode);
        CHECK(session->uiState("window") == "{}");
        CHECK(sameLayer(*session, sound.uuid, 0, kTokens));
    }
    CHECK(checkSession(folder).ok);
}

TEST_CASE("a damaged lock file does not lock") {
    const Sound sound;
    const fs::path folder = sound.copy("lock");
    spill(folder / "session.lock", std::string(10000, '\xff'));
    CHECK(Session::open(folder, OpenMode::ReadWrite)->info().writable);
    fs::remove(folder / "session.lock");
    fs::create_symlink(sound.temp / "victim", folder / "session.lock");
    CHECK_THROWS_AS(Session::open(folder, OpenMode::ReadWrite), Error);
    CHECK(!fs::exists(sound.temp / "victim"));
    CHECK_NOTHROW(Session::open(folder, OpenMode::ReadOnly));
}

TEST_CASE("a read-only folder can be read") {
    if (::geteuid() == 0) {
        WARN("root may write everywhere: not tested");
        return;
    }
    const Sound sound;
    const fs::path folder = sound.copy("ro");
    fs::permissions(folder, fs::perms::owner_read | fs::perms::owner_exec);
    CHECK(sameLayer(*Session::open(folder, OpenMode::ReadOnly), sound.uuid, 0, kTokens));
    CHECK_THROWS_AS(Session::open(folder, OpenMode::ReadWrite), Error);
    fs::permissions(folder, fs::perms::owner_all);
}

TEST_CASE("a list of sessions names the damaged ones") {
    const Sound sound;
    const fs::path bad = sound.copy("bad");
    spill(bad / "session.db", "no");
    const auto list = listSessions(sound.temp.path);
    REQUIRE(list.size() == 2);
    CHECK(list[0].warnings.size() == 1);
    CHECK(list[0].captures.empty());
    CHECK(list[1].captures.size() == 1);
    CHECK_THROWS_AS(listSessions(sound.temp / "nowhere"), Error);
    const auto report = checkSession(bad);
    CHECK(!report.ok);
    CHECK(report.problems.size() == 1);
}
