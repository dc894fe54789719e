#pragma once

#include <filesystem>
#include <memory>

#include "core/import/tensor_map.h"

namespace sparsight::sessions {

/// The datasets of an HDF5 file of any origin, by their paths ("layers/0/q"); contiguous, chunked
/// and compressed ones, read piece by piece. Links to other files are not followed.
std::unique_ptr<TensorFile> openHdf5File(const std::filesystem::path& file);

/// Opens files for an import, each by what its first bytes say.
/// @throws Error as tensorFormat(), Error(Format) for a damaged file
TensorSet openTensors(const std::vector<std::filesystem::path>& files);

}  // namespace sparsight::sessions
