#include "sessions/schema.h"

#include <chrono>
#include <map>

#include "core/model/sha256.h"
#include "kernels/base/error.h"
#include "sessions/io.h"

namespace sparsight::sessions {
namespace {

constexpr int kApplicationId = 1397772884;  // 0x53505254, 'SPRT'

// Schema v1. Opening compares every object of a file with this text (white space aside), so it is
// frozen: a change is version 2 with a migration.
constexpr char kSchema[] = R"sql(
CREATE TABLE meta(key TEXT PRIMARY KEY, value ANY NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE migration(version INTEGER PRIMARY KEY, applied_utc TEXT NOT NULL,
  app_version TEXT NOT NULL, sha256 TEXT NOT NULL) STRICT;
CREATE TABLE model(id INTEGER PRIMARY KEY, uuid TEXT NOT NULL UNIQUE, name TEXT NOT NULL,
  dir_hint TEXT, arch TEXT NOT NULL,
  n_layer INTEGER NOT NULL CHECK(n_layer BETWEEN 1 AND 4096),
  n_q_head INTEGER NOT NULL CHECK(n_q_head BETWEEN 1 AND 4096),
  n_kv_head INTEGER NOT NULL CHECK(n_kv_head BETWEEN 1 AND n_q_head),
  head_dim INTEGER NOT NULL, v_head_dim INTEGER,
  vocab INTEGER, max_pos INTEGER, config_json TEXT NOT NULL CHECK(json_valid(config_json)),
  CHECK(n_q_head % n_kv_head = 0)) STRICT;
CREATE TABLE model_file(model_id INTEGER NOT NULL REFERENCES model ON DELETE CASCADE,
  name TEXT NOT NULL, bytes INTEGER NOT NULL,
  mtime_ns INTEGER, sha256 TEXT, PRIMARY KEY(model_id,name)) STRICT, WITHOUT ROWID;
CREATE TABLE prompt(id INTEGER PRIMARY KEY, uuid TEXT NOT NULL UNIQUE, name TEXT NOT NULL,
  text TEXT NOT NULL, sha256 TEXT NOT NULL,
  generator_json TEXT, truth_json TEXT) STRICT;
CREATE TABLE capture(id INTEGER PRIMARY KEY, uuid TEXT NOT NULL UNIQUE,
  model_id INTEGER NOT NULL REFERENCES model ON DELETE RESTRICT,
  prompt_id INTEGER NOT NULL REFERENCES prompt ON DELETE RESTRICT,
  parent_id INTEGER REFERENCES capture ON DELETE SET NULL,
  state TEXT NOT NULL CHECK(state IN('open','complete','failed','cancelled')),
  n_token INTEGER NOT NULL, token_ids BLOB NOT NULL,
  options_json TEXT NOT NULL, device TEXT, created_utc TEXT NOT NULL, finished_utc TEXT,
  error TEXT) STRICT;
CREATE TABLE segment(id INTEGER PRIMARY KEY, uuid TEXT NOT NULL UNIQUE,
  kind TEXT NOT NULL CHECK(kind IN('qkv','pyr','mask','res','logits','fig')),
  path TEXT NOT NULL UNIQUE CHECK(path GLOB 'seg/[0-9a-f][0-9a-f]/*.h5' AND instr(path,'..')=0),
  bytes INTEGER NOT NULL CHECK(bytes>0), crc BLOB NOT NULL, sha256 TEXT,
  format INTEGER NOT NULL, layer INTEGER,
  capture_id INTEGER REFERENCES capture ON DELETE CASCADE,
  mask_id INTEGER REFERENCES mask ON DELETE CASCADE,
  run_id INTEGER REFERENCES run ON DELETE CASCADE, committed_utc TEXT NOT NULL,
  verified_utc TEXT) STRICT;
CREATE INDEX segment_cap ON segment(capture_id,kind,layer);
CREATE INDEX segment_mask ON segment(mask_id);
CREATE INDEX segment_run ON segment(run_id);
CREATE TABLE metric(id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, unit TEXT NOT NULL,
  lo REAL, hi REAL, definition TEXT NOT NULL, version INTEGER NOT NULL) STRICT;
CREATE TABLE head_metric(capture_id INTEGER NOT NULL REFERENCES capture ON DELETE CASCADE,
  metric_id INTEGER NOT NULL REFERENCES metric,
  layer INTEGER NOT NULL, head INTEGER NOT NULL, value REAL, ci_lo REAL, ci_hi REAL, n INTEGER,
  PRIMARY KEY(capture_id,metric_id,layer,head)) STRICT, WITHOUT ROWID;
CREATE TABLE head_label(model_id INTEGER NOT NULL REFERENCES model ON DELETE CASCADE,
  layer INTEGER NOT NULL, head INTEGER NOT NULL,
  label TEXT NOT NULL, source TEXT NOT NULL CHECK(source IN('user','auto','import')),
  PRIMARY KEY(model_id,layer,head,label)) STRICT, WITHOUT ROWID;
CREATE TABLE mask(id INTEGER PRIMARY KEY, uuid TEXT NOT NULL UNIQUE,
  capture_id INTEGER NOT NULL REFERENCES capture ON DELETE CASCADE,
  name TEXT NOT NULL, method TEXT NOT NULL, params_json TEXT NOT NULL,
  block_q INTEGER NOT NULL, block_k INTEGER NOT NULL) STRICT;
CREATE TABLE plan(id INTEGER PRIMARY KEY, uuid TEXT NOT NULL UNIQUE,
  model_id INTEGER NOT NULL REFERENCES model ON DELETE CASCADE, name TEXT NOT NULL,
  parent_id INTEGER REFERENCES plan ON DELETE SET NULL,
  json TEXT NOT NULL CHECK(json_valid(json)), sha256 TEXT NOT NULL,
  created_utc TEXT NOT NULL) STRICT;
CREATE TABLE run(id INTEGER PRIMARY KEY, uuid TEXT NOT NULL UNIQUE, kind TEXT NOT NULL,
  capture_id INTEGER REFERENCES capture ON DELETE CASCADE,
  mask_id INTEGER REFERENCES mask ON DELETE SET NULL,
  plan_id INTEGER REFERENCES plan ON DELETE SET NULL, backend TEXT NOT NULL, device TEXT,
  params_json TEXT NOT NULL, seed INTEGER,
  state TEXT NOT NULL CHECK(state IN('open','complete','failed','cancelled')),
  started_utc TEXT NOT NULL, finished_utc TEXT, error TEXT) STRICT;
CREATE TABLE run_metric(run_id INTEGER NOT NULL REFERENCES run ON DELETE CASCADE,
  metric_id INTEGER NOT NULL REFERENCES metric, layer INTEGER NOT NULL DEFAULT -1,
  head INTEGER NOT NULL DEFAULT -1, value REAL, ci_lo REAL, ci_hi REAL, n INTEGER,
  PRIMARY KEY(run_id,metric_id,layer,head)) STRICT, WITHOUT ROWID;
CREATE TABLE trial(run_id INTEGER NOT NULL REFERENCES run ON DELETE CASCADE,
  idx INTEGER NOT NULL, prompt_id INTEGER NOT NULL REFERENCES prompt,
  task TEXT NOT NULL, length INTEGER, depth REAL, output TEXT, score REAL,
  PRIMARY KEY(run_id,idx)) STRICT, WITHOUT ROWID;
CREATE TABLE note(id INTEGER PRIMARY KEY, uuid TEXT NOT NULL UNIQUE, target_kind TEXT NOT NULL,
  target_uuid TEXT NOT NULL, layer INTEGER, head INTEGER,
  region_json TEXT, body TEXT NOT NULL, author TEXT, created_utc TEXT NOT NULL,
  edited_utc TEXT) STRICT;
CREATE TABLE provenance(id INTEGER PRIMARY KEY, utc TEXT NOT NULL, activity TEXT NOT NULL,
  app_version TEXT NOT NULL, git_commit TEXT, host_json TEXT NOT NULL,
  inputs_json TEXT NOT NULL, outputs_json TEXT NOT NULL, argv_json TEXT, wall_s REAL) STRICT;
CREATE TABLE ui_state(key TEXT PRIMARY KEY, json TEXT NOT NULL CHECK(json_valid(json)),
  utc TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE undo(seq INTEGER PRIMARY KEY, label TEXT NOT NULL, forward_json TEXT NOT NULL,
  inverse_json TEXT NOT NULL, utc TEXT NOT NULL) STRICT;
CREATE TABLE trash(path TEXT PRIMARY KEY, deleted_utc TEXT NOT NULL) STRICT, WITHOUT ROWID;
)sql";

constexpr Metric kMetrics[] = {
    {"sinkMass", "1", 0, 1, "attention mass on the first 4 keys, mean over rows >= 64"},
    {"localMass", "1", 0, 1, "attention mass on distances 0..63, mean over rows >= 64"},
    {"entropy", "nat", 0, {}, "entropy of the attention row, mean over rows >= 64"},
    {"distance", "token", 0, {}, "mean attention distance, mean over rows >= 64"},
    {"retrieval", "1", 0, 1,
     "retrieval score retr_set, teacher-forced: distinct needle positions copied by argmax / "
     "needle "
     "size; NULL without a needle"},
    {"streamingRecall", "1", 0, 1, "recall of sink 4 + window 256, mean over rows"},
    {"massError",
     "1",
     0,
     {},
     "largest |sum of block mass - rows| / rows over the heads of a layer (head -1)"},
    {"coverage", "1", 0, 1, "nominal kept pairs / valid pairs"},
    {"density", "1", 0, 1, "executed tile area / valid tile area"},
    {"recall", "1", 0, 1, "softmax mass in the nominal set, mean over rows"},
    {"recallMin", "1", 0, 1, "least row recall"},
    {"recallP1", "1", 0, 1, "first percentile of the row recall"},
    {"recallP5", "1", 0, 1, "fifth percentile of the row recall"},
    {"tileRecall", "1", 0, 1, "softmax mass in the executed tiles, mean over rows"},
    {"needleRecall", "1", 0, 1,
     "kept share of the mass of answer rows x needle columns; NULL without a needle"},
    {"outputError", "1", 0, {}, "sqrt(sum ||o_M - o||^2 / sum ||o||^2), renormalised softmax"},
    {"tiles", "count", 0, {}, "executed key/value tiles"},
};

std::string withoutSpace(const std::string& text) {
    std::string out;
    for (const char c : text)
        if (c != ' ' && c != '\n' && c != '\t' && c != '\r') out += c;
    return out;
}

using Objects = std::map<std::string, std::string>;  // "type name" -> SQL without white space

Objects objects(Database& db) {
    Objects all;
    Statement s(db, "SELECT type, name, sql FROM sqlite_schema");
    while (s.step()) all[s.text(0) + " " + s.text(1)] = withoutSpace(s.text(2));
    return all;
}

/// What a file of this version holds, made by SQLite itself.
const Objects& expectedObjects() {
    static const Objects expected = [] {
        Database memory(":memory:", Database::Access::Create);
        memory.exec(kSchema);
        return objects(memory);
    }();
    return expected;
}

struct QuickCheckLimit {
    std::chrono::steady_clock::time_point end;
    static int tick(void* self) {
        return std::chrono::steady_clock::now() > static_cast<QuickCheckLimit*>(self)->end;
    }
};

}  // namespace

std::span<const Metric> metrics() {
    return kMetrics;
}

void createCatalogue(const std::filesystem::path& file, const std::string& sessionUuid) {
    Database db(file, Database::Access::Create);
    Transaction transaction(db);
    db.exec("PRAGMA application_id=1397772884; PRAGMA user_version=1");
    db.exec(kSchema);
    const std::string now = utcNow();
    Statement meta(db, "INSERT INTO meta(key, value) VALUES(?, ?)");
    const auto put = [&](const char* key, const std::string& value) {
        meta.bind(1, key).bind(2, value).run();
    };
    put("session_uuid", sessionUuid);
    put("created_utc", now);
    put("app_version", SPARSIGHT_VERSION);
    meta.bind(1, "min_reader_version").bind(2, 1).run();
    meta.bind(1, "min_writer_version").bind(2, 1).run();
    meta.bind(1, "crc_chunk_bytes").bind(2, kCrcChunk).run();
    meta.bind(1, "clean_close").bind(2, 1).run();
    Statement(db, "INSERT INTO migration VALUES(1, ?, ?, ?)")
        .bind(1, now)
        .bind(2, SPARSIGHT_VERSION)
        .bind(3, sha256Hex(kSchema))
        .run();
    Statement metric(db,
                     "INSERT INTO metric(key, unit, lo, hi, definition, version) "
                     "VALUES(?, ?, ?, ?, ?, 1)");
    for (const Metric& m : kMetrics)
        metric.bind(1, m.key)
            .bind(2, m.unit)
            .bindReal(3, m.lo)
            .bindReal(4, m.hi)
            .bind(5, m.definition)
            .run();
    transaction.commit();
}

void checkCatalogue(Database& db, const std::filesystem::path& folder) {
    const std::string who = "session '" + folder.string() + "': ";
    if (db.integer("PRAGMA application_id") != kApplicationId)
        throw Error(Errc::Format,
                    who + "its session.db is not a Sparsight catalogue (another application id)");
    const auto version = db.integer("PRAGMA user_version");
    if (version > kSchemaVersion)
        throw Error(Errc::Unsupported, who + "it was written by a newer Sparsight (schema " +
                                           std::to_string(version) + ", this program knows " +
                                           std::to_string(kSchemaVersion) +
                                           "); update the program");
    if (version != kSchemaVersion)
        throw Error(Errc::Format, who + "its schema version " + std::to_string(version) +
                                      " was never in use: the file is damaged");
    const Objects found = objects(db);
    for (const auto& [name, sql] : expectedObjects())
        if (const auto at = found.find(name); at == found.end() || at->second != sql)
            throw Error(Errc::Format, who + "the catalogue's " + name +
                                          " is missing or not as Sparsight made it");
    for (const auto& [name, sql] : found)
        if (!expectedObjects().contains(name))
            throw Error(Errc::Format, who + "the catalogue holds the foreign object '" + name +
                                          "', which no version of Sparsight makes");
    QuickCheckLimit limit{std::chrono::steady_clock::now() + std::chrono::seconds(10)};
    sqlite3_progress_handler(db.handle(), 100000, &QuickCheckLimit::tick, &limit);
    std::string verdict;
    try {
        verdict = db.text("PRAGMA quick_check(1)");
    } catch (...) {
        sqlite3_progress_handler(db.handle(), 0, nullptr, nullptr);
        throw;
    }
    sqlite3_progress_handler(db.handle(), 0, nullptr, nullptr);
    if (verdict != "ok")
        throw Error(Errc::Format, who + "its catalogue is damaged (" + verdict +
                                      "); a copy may be in the folder backup/");
}

std::string metaText(Database& db, const std::string& key) {
    Statement s(db, "SELECT value FROM meta WHERE key = ?");
    s.bind(1, key);
    return s.step() ? s.text(0) : std::string();
}

void setMeta(Database& db, const std::string& key, std::int64_t value) {
    Statement(db, "INSERT OR REPLACE INTO meta(key, value) VALUES(?, ?)")
        .bind(1, key)
        .bind(2, value)
        .run();
}

}  // namespace sparsight::sessions
