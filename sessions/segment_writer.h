#pragma once

#include <cstddef>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "core/capture/layer_capture.h"
#include "sessions/helper_process.h"
#include "sessions/segment.h"

namespace sparsight::sessions {

/// Where segments go and what each says about itself.
struct SegmentPlace {
    std::filesystem::path root;
    std::string session, capture, configSha256;
};

/// Disk space that a qkv segment of this layer takes, headers and alignment included.
Index qkvBytes(const LayerCapture& layer);

/// S1: @throws Error(Resources) with the exact shortfall when `bytes` and a reserve (256 MiB, at
/// most a twentieth of the file system) are not free
void requireSpace(const std::filesystem::path& root, Index bytes, const std::string& what);
/// Free bytes for this user.
Index freeSpace(const std::filesystem::path& root);

/// Root attributes of a segment.
nlohmann::json rootAttributes(const SegmentPlace& place, const Segment& segment);

/// S2 to S6: the complete, durable and re-read file tmp/<uuid>.part and its sidecar.
/// @throws Error; nothing is left behind then
Segment writeQkv(const SegmentPlace& place, HelperProcess& helper, const LayerCapture& layer);
/// @param segment  as `image`'s root attributes were made from; its crc and size are filled in
Segment writeImage(const SegmentPlace& place, HelperProcess& helper, Segment segment,
                   std::span<const std::byte> image);

/// S7: into seg/, durably.
void publish(const SegmentPlace& place, const Segment& segment);
/// Removes a segment that has no row, wherever it stands. Never throws.
void discard(const SegmentPlace& place, const Segment& segment) noexcept;

}  // namespace sparsight::sessions
