#pragma once

#include <cstddef>
#include <nlohmann/json.hpp>
#include <span>
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

/// The statistics in such an image. Call after its checksum was found right.
/// @param where  names the segment in messages
/// @throws Error(Format) when anything is missing or not of the shape that heads, Nq and Nk ask for
LayerStats readPyramid(std::span<const std::byte> image, Index layer, Index heads, Index Nq,
                       Index Nk, const std::string& where);

}  // namespace sparsight::sessions
