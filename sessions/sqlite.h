#pragma once

#include <sqlite3.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "kernels/base/view.h"

namespace sparsight::sessions {

class Database;

/// One prepared statement: bind, then step until it says false.
class Statement {
public:
    Statement(Database& db, std::string_view sql);

    Statement& bind(int at, std::string_view text);
    Statement& bind(int at, const char* text) { return bind(at, std::string_view(text)); }
    Statement& bind(int at, const std::string& text) { return bind(at, std::string_view(text)); }
    Statement& bind(int at, std::int64_t number);
    Statement& bind(int at, int number) { return bind(at, std::int64_t(number)); }
    Statement& bind(int at, std::nullptr_t);
    /// Not finite = NULL: the schema holds no NaN.
    Statement& bindReal(int at, std::optional<double> number);
    Statement& bindBlob(int at, std::span<const std::byte> bytes);

    bool step();  ///< true = a row. @throws Error
    void run();   ///< to the end, then reset for the next bind
    void reset();

    bool isNull(int column) const;
    std::int64_t integer(int column) const;
    double real(int column) const;
    std::optional<double> maybeReal(int column) const;
    std::string text(int column) const;  ///< "" for NULL
    std::string blob(int column) const;

private:
    struct Finalize {
        void operator()(sqlite3_stmt* s) const { sqlite3_finalize(s); }
    };
    Database& m_db;
    std::unique_ptr<sqlite3_stmt, Finalize> m_statement;
};

/// A connection with the settings and limits of session-store.md 3 and 6.
class Database {
public:
    enum class Access { Read, Write, Create };
    /// @param file  without symbolic links. @throws Error
    Database(const std::filesystem::path& file, Access access);

    void exec(const char* sql);
    std::int64_t integer(std::string_view sql);
    std::string text(std::string_view sql);
    std::int64_t lastRow() const { return sqlite3_last_insert_rowid(m_db.get()); }
    int changes() const { return sqlite3_changes(m_db.get()); }
    sqlite3* handle() const { return m_db.get(); }
    const std::filesystem::path& file() const { return m_file; }
    /// Turns an SQLite result code into Error: Resources (full, busy, memory), Format (corrupt, not
    /// a database), Io.
    [[noreturn]] void fail(int code, const std::string& doing) const;

private:
    struct Close {
        void operator()(sqlite3* db) const { sqlite3_close_v2(db); }
    };
    std::filesystem::path m_file;
    std::unique_ptr<sqlite3, Close> m_db;
};

/// BEGIN IMMEDIATE ... COMMIT; rolls back when it is left without commit().
class Transaction {
public:
    explicit Transaction(Database& db);
    ~Transaction();
    Transaction(const Transaction&) = delete;
    Transaction& operator=(const Transaction&) = delete;
    void commit();

private:
    Database& m_db;
    bool m_open = true;
};

}  // namespace sparsight::sessions
