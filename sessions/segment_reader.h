#pragma once

#include <filesystem>
#include <memory>

#include "core/capture/layer_capture.h"
#include "core/model/stacks.h"
#include "sessions/segment.h"

namespace sparsight::sessions {

/// Maps the tensors of a qkv segment, all checksums verified first when `verify`.
/// dv is 0 when the capture holds no V.
/// @param shape  what the capture says about this layer: heads, rows and keys
/// @throws Error(Format) damaged, or not of that shape
std::shared_ptr<const LayerCapture> readQkv(const std::filesystem::path& root,
                                            const Segment& segment, const LayerShape& shape,
                                            bool verify);

/// The statistics of a pyr segment, without top keys. @throws as readQkv
std::shared_ptr<const LayerStats> readPyr(const std::filesystem::path& root, const Segment& segment,
                                          const LayerShape& shape, bool verify);
/// The top keys of some rows of a head, in a pyr segment that holds them. @throws as readQkv;
/// Error(NotFound) for a head or rows that are not there
TopKeys readTop(const std::filesystem::path& root, const Segment& segment, const LayerShape& shape,
                Index head, TokenSpan rows, bool verify);

}  // namespace sparsight::sessions
