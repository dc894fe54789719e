#include "sessions/sqlite.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "kernels/base/error.h"
#include "sessions/io.h"

namespace sparsight::sessions {

// --- Statement ----------------------------------------------------------------------------------

Statement::Statement(Database& db, std::string_view sql) : m_db(db) {
    sqlite3_stmt* statement = nullptr;
    const int code =
        sqlite3_prepare_v2(db.handle(), sql.data(), int(sql.size()), &statement, nullptr);
    m_statement.reset(statement);
    if (code != SQLITE_OK) db.fail(code, "read the catalogue");
}

Statement& Statement::bind(int at, std::string_view text) {
    const int code = sqlite3_bind_text64(m_statement.get(), at, text.data() ? text.data() : "",
                                         text.size(), SQLITE_TRANSIENT, SQLITE_UTF8);
    if (code != SQLITE_OK) m_db.fail(code, "pass a text to the catalogue");
    return *this;
}

Statement& Statement::bind(int at, std::int64_t number) {
    sqlite3_bind_int64(m_statement.get(), at, number);
    return *this;
}

Statement& Statement::bind(int at, std::nullptr_t) {
    sqlite3_bind_null(m_statement.get(), at);
    return *this;
}

Statement& Statement::bindReal(int at, std::optional<double> number) {
    if (!number || !std::isfinite(*number)) return bind(at, nullptr);
    sqlite3_bind_double(m_statement.get(), at, *number);
    return *this;
}

Statement& Statement::bindBlob(int at, std::span<const std::byte> bytes) {
    // A null pointer would bind NULL, also for an empty blob.
    const void* data = bytes.empty() ? static_cast<const void*>("") : bytes.data();
    const int code =
        sqlite3_bind_blob64(m_statement.get(), at, data, bytes.size(), SQLITE_TRANSIENT);
    if (code != SQLITE_OK) m_db.fail(code, "pass bytes to the catalogue");
    return *this;
}

bool Statement::step() {
    const int code = sqlite3_step(m_statement.get());
    if (code == SQLITE_ROW) return true;
    if (code == SQLITE_DONE) return false;
    m_db.fail(code, sqlite3_stmt_readonly(m_statement.get()) ? "read the catalogue"
                                                             : "write the catalogue");
}

void Statement::run() {
    while (step()) {
    }
    reset();
}

void Statement::reset() {
    sqlite3_reset(m_statement.get());
    sqlite3_clear_bindings(m_statement.get());
}

bool Statement::isNull(int column) const {
    return sqlite3_column_type(m_statement.get(), column) == SQLITE_NULL;
}
std::int64_t Statement::integer(int column) const {
    return sqlite3_column_int64(m_statement.get(), column);
}
double Statement::real(int column) const {
    return sqlite3_column_double(m_statement.get(), column);
}
std::optional<double> Statement::maybeReal(int column) const {
    if (isNull(column)) return std::nullopt;
    return real(column);
}
std::string Statement::text(int column) const {
    const auto* p = reinterpret_cast<const char*>(sqlite3_column_text(m_statement.get(), column));
    return p ? std::string(p, std::size_t(sqlite3_column_bytes(m_statement.get(), column)))
             : std::string();
}
std::string Statement::blob(int column) const {
    const auto* p = static_cast<const char*>(sqlite3_column_blob(m_statement.get(), column));
    return p ? std::string(p, std::size_t(sqlite3_column_bytes(m_statement.get(), column)))
             : std::string();
}

// --- Database -----------------------------------------------------------------------------------

namespace {

void setLimits(sqlite3* db) {
    sqlite3_limit(db, SQLITE_LIMIT_LENGTH, 64 << 20);
    sqlite3_limit(db, SQLITE_LIMIT_SQL_LENGTH, 100000);
    sqlite3_limit(db, SQLITE_LIMIT_EXPR_DEPTH, 20);
    sqlite3_limit(db, SQLITE_LIMIT_COMPOUND_SELECT, 4);
    sqlite3_limit(db, SQLITE_LIMIT_VDBE_OP, 100000);
    sqlite3_limit(db, SQLITE_LIMIT_ATTACHED, 0);
    sqlite3_limit(db, SQLITE_LIMIT_VARIABLE_NUMBER, 1000);
    sqlite3_db_config(db, SQLITE_DBCONFIG_DEFENSIVE, 1, nullptr);
    sqlite3_db_config(db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, nullptr);
    sqlite3_db_config(db, SQLITE_DBCONFIG_ENABLE_TRIGGER, 0, nullptr);
    sqlite3_db_config(db, SQLITE_DBCONFIG_ENABLE_VIEW, 0, nullptr);
    sqlite3_db_config(db, SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 0, nullptr);
    sqlite3_db_config(db, SQLITE_DBCONFIG_DQS_DML, 0, nullptr);
    sqlite3_db_config(db, SQLITE_DBCONFIG_DQS_DDL, 0, nullptr);
}

/// SQLite 3.40 refuses its own json_valid() in the CHECK of a schema that is not trusted; ours, the
/// same rule, is declared harmless instead of trusting every schema.
void addJsonValid(sqlite3* db) {
    const auto function = [](sqlite3_context* context, int, sqlite3_value** values) {
        const auto* text = reinterpret_cast<const char*>(sqlite3_value_text(values[0]));
        if (!text) return sqlite3_result_null(context);
        try {
            const auto size = std::size_t(sqlite3_value_bytes(values[0]));
            sqlite3_result_int(context, nlohmann::json::accept(text, text + size));
        } catch (const std::exception&) {
            sqlite3_result_error_nomem(context);
        }
    };
    sqlite3_create_function_v2(db, "json_valid", 1,
                               SQLITE_UTF8 | SQLITE_DETERMINISTIC | SQLITE_INNOCUOUS, nullptr,
                               function, nullptr, nullptr, nullptr);
}

}  // namespace

Database::Database(const std::filesystem::path& file, Access access) : m_file(file) {
    static const auto heap = sqlite3_hard_heap_limit64(Index(512) << 20);
    static_cast<void>(heap);
    const int how = access == Access::Read    ? SQLITE_OPEN_READONLY
                    : access == Access::Write ? SQLITE_OPEN_READWRITE
                                              : SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE;
    sqlite3* db = nullptr;
    const int code = sqlite3_open_v2(
        file.c_str(), &db,
        how | SQLITE_OPEN_FULLMUTEX | SQLITE_OPEN_NOFOLLOW | SQLITE_OPEN_EXRESCODE, nullptr);
    m_db.reset(db);
    if (code != SQLITE_OK) fail(code, "open the catalogue");
    setLimits(db);
    addJsonValid(db);
    exec(
        "PRAGMA busy_timeout=5000; PRAGMA cell_size_check=ON; PRAGMA mmap_size=0;"
        "PRAGMA temp_store=MEMORY; PRAGMA cache_size=-65536; PRAGMA foreign_keys=ON");
    if (access == Access::Read) exec("PRAGMA query_only=ON");
    // The journal mode reads the file: a foreign file is found out here.
    else
        exec("PRAGMA journal_mode=TRUNCATE; PRAGMA synchronous=FULL");
}

void Database::exec(const char* sql) {
    const int code = sqlite3_exec(m_db.get(), sql, nullptr, nullptr, nullptr);
    if (code != SQLITE_OK) fail(code, "use the catalogue");
}

std::int64_t Database::integer(std::string_view sql) {
    Statement s(*this, sql);
    return s.step() ? s.integer(0) : 0;
}

std::string Database::text(std::string_view sql) {
    Statement s(*this, sql);
    return s.step() ? s.text(0) : std::string();
}

void Database::fail(int code, const std::string& doing) const {
    const std::string why = m_db ? sqlite3_errmsg(m_db.get()) : sqlite3_errstr(code);
    const int system = m_db ? sqlite3_system_errno(m_db.get()) : 0;
    const std::string start = "cannot " + doing + " '" + m_file.string() + "'";
    const int plain = code & 0xff;
    if (plain == SQLITE_FULL || (plain == SQLITE_IOERR && (system == ENOSPC || system == EDQUOT)))
        throw Error(Errc::Resources, start + ": the disk is full; free some space and try again");
    if (plain == SQLITE_BUSY || plain == SQLITE_LOCKED)
        throw Error(Errc::Resources,
                    start + ": another program uses it; close that program or try again");
    if (plain == SQLITE_NOMEM) throw Error(Errc::Resources, start + ": out of memory");
    if (plain == SQLITE_NOTADB || plain == SQLITE_CORRUPT)
        throw Error(Errc::Format, "the session's catalogue '" + m_file.string() +
                                      "' is damaged or not a catalogue at all (" + why +
                                      "); a copy may be in the folder backup/");
    if (plain == SQLITE_CONSTRAINT || plain == SQLITE_TOOBIG || plain == SQLITE_MISMATCH)
        throw Error(Errc::Format, start + ": a value breaks the session's rules (" + why + ")");
    throw Error(Errc::Io, start + ": " + why);
}

// --- Transaction --------------------------------------------------------------------------------

Transaction::Transaction(Database& db) : m_db(db) {
    db.exec("BEGIN IMMEDIATE");
}

Transaction::~Transaction() {
    // SQLite may have rolled back by itself (disk full): then this says so and changes nothing.
    if (m_open) sqlite3_exec(m_db.handle(), "ROLLBACK", nullptr, nullptr, nullptr);
}

void Transaction::commit() {
    m_db.exec("COMMIT");
    m_open = false;
}

}  // namespace sparsight::sessions
