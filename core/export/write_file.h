#pragma once

#include <filesystem>
#include <string_view>

namespace sparsight {

/// Writes `bytes` to a temporary file beside `file` and renames it, so that a reader sees the old
/// file or the whole new one. @throws Error(Io); the temporary file is removed then
void writeFile(const std::filesystem::path& file, std::string_view bytes);

}  // namespace sparsight
