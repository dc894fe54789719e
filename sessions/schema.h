#pragma once

#include <filesystem>
#include <optional>
#include <span>
#include <string>

#include "sessions/sqlite.h"

namespace sparsight::sessions {

constexpr int kSchemaVersion = 1;

/// A row of the metric table: the numbers of heads and masks that a session stores.
struct Metric {
    const char* key;
    const char* unit;
    std::optional<double> lo, hi;  ///< empty = unbounded
    const char* definition;
};
std::span<const Metric> metrics();

/// Makes session.db with schema v1 (session-store.md 3), its meta and metric rows.
void createCatalogue(const std::filesystem::path& file, const std::string& sessionUuid);

/// The gate for a catalogue from outside: application id, version, every table exactly ours, no
/// other object, quick_check within 10 s. @param folder  for messages
/// @throws Error(Format), Error(Unsupported) for a newer version
void checkCatalogue(Database& db, const std::filesystem::path& folder);

std::string metaText(Database& db, const std::string& key);  ///< "" = no such key
void setMeta(Database& db, const std::string& key, std::int64_t value);

}  // namespace sparsight::sessions
