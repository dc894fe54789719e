#pragma once

#include <filesystem>
#include <memory>

#include "core/capture/layer_capture.h"
#include "sessions/segment.h"

namespace sparsight::sessions {

/// Maps the tensors of a qkv segment, all checksums verified first when `verify`.
/// @throws Error(Format) damaged, or not of the shapes that a capture of `tokens` tokens with
///         these head counts has
std::shared_ptr<const LayerCapture> readQkv(const std::filesystem::path& root,
                                            const Segment& segment, Index heads, Index kvHeads,
                                            Index tokens, bool verify);

/// The statistics of a pyr segment; always verified.
std::shared_ptr<const LayerStats> readPyr(const std::filesystem::path& root, const Segment& segment,
                                          Index heads, Index tokens);

}  // namespace sparsight::sessions
