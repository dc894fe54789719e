#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace sparsight {

/// A whole text file. @throws Error(NotFound), Error(Io), Error(Format) when larger than `maxBytes`
std::string readTextFile(const std::filesystem::path& file, std::size_t maxBytes);

/// JSON from outside: duplicate keys and deep nesting are refused (both are ways to make two
/// readers see two different files).
/// @param what  names the source in messages, usually the path
/// @param looseNumbers  also take Python's bare Infinity, -Infinity and NaN; they become the
///        {"__float__": "Infinity"} objects that newer files write
/// @throws Error(Format) with `what` and the position
nlohmann::json parseJson(std::string_view text, const std::string& what, bool looseNumbers = false);

/// The JSON library's own words about damaged text, without its number and without the bytes that
/// it quotes: "parse error at line 1, column 3: ...".
std::string jsonComplaint(const nlohmann::json::exception& e);

}  // namespace sparsight
