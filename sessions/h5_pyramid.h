#pragma once

#include <cstddef>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/capture/layer_capture.h"
#include "kernels/base/job.h"

namespace sparsight::sessions {

/// The bytes of a pyr segment, built in memory by HDF5's core driver, so that a full disk never
/// reaches HDF5. Chunks without a value (above the diagonal) are not allocated.
/// @param root  root attributes
/// @throws Error(Shape) when the vectors are not as LayerStats says, Cancelled between chunks
std::vector<std::byte> pyramidImage(const nlohmann::json& root, const LayerStats& stats,
                                    const Job& job);

/// The statistics in such a file, without top keys. Call after its checksum was found right.
/// @param fd     open for reading
/// @param where  names the segment in messages
/// @throws Error(Format) when anything is missing or not of the shape that heads, Nq and Nk ask for
LayerStats readPyramid(int fd, Index layer, Index heads, Index Nq, Index Nk,
                       const std::string& where);

/// The top keys of some rows of one head in such a file; nothing else is read.
/// @throws as readPyramid; Error(NotFound) for a head or rows that the layer does not have
TopKeys readTopKeys(int fd, Index heads, Index Nq, Index Nk, Index head, TokenSpan rows,
                    const std::string& where);

}  // namespace sparsight::sessions
