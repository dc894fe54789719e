#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>

namespace sparsight::sessions {

/// Makes an HDF5 file of final size whose contiguous datasets hold no data yet; the writer fills
/// them with pwrite at the returned offsets. Runs in the helper process only: on a full disk HDF5
/// may leave itself in a state that crashes later (session-store.md F2).
///
/// @param spec  {"root": {attribute: value}, "tensors": [{"name", "type", "shape", "attributes"}]}
/// @return      {"bytes": n, "tensors": {name: {"type", "shape", "offset"}}}
/// @throws Error
nlohmann::json createSkeleton(const std::filesystem::path& file, const nlohmann::json& spec);

/// What a segment says about itself. Runs in the helper process only.
/// @return {"root": {...}, "tensors": {"/mass/L0": {"type", "shape", "offset" (-1 = chunked)}}}
/// @throws Error(Format) also for links, external storage, foreign filters and types
nlohmann::json describeSegment(const std::filesystem::path& file);

}  // namespace sparsight::sessions
