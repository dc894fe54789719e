#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "sessions/io.h"

namespace sparsight::sessions {

/// Version of the HDF5 layout that this program writes and reads.
constexpr int kSegmentFormat = 1;

/// One segment as its catalogue row and its sidecar describe it.
struct Segment {
    std::string uuid, kind;  ///< kind: qkv or pyr
    std::string path;        ///< relative to the session, "seg/ab/<uuid>-<kind>.h5"
    std::string capture;     ///< uuid
    Index layer = 0, bytes = 0;
    std::vector<std::uint32_t> crc;  ///< CRC-32C of every 4 MiB of the file
    double massError = 0;            ///< pyr: LayerStats::massError
};

std::string segmentPath(const std::string& uuid, const std::string& kind);
/// Whether a catalogue's path is exactly one that segmentPath() makes.
bool isSegmentPath(std::string_view path);
/// "seg/ab/x.h5" -> "seg/ab/x.crc".
std::string sidecarPath(const std::string& segment);

/// The JSON text beside a segment: what its row says, for adopting it after a crash.
std::string sidecarText(const Segment& segment, const std::string& session);
/// @throws Error(Format) when the text is no sidecar of that file of that session
Segment readSidecar(const std::string& text, const std::string& path, const std::string& session);

/// The catalogue's form of the checksums: u32 little-endian.
std::string crcBlob(const std::vector<std::uint32_t>& crc);
/// @throws Error(Format) when the count does not belong to `bytes`
std::vector<std::uint32_t> crcFromBlob(std::string_view blob, Index bytes, const std::string& what);

/// Opens a file below a session folder; no component of `relative` may be a symbolic link.
Fd openBeneath(const std::filesystem::path& root, const std::string& relative);

/// Compares every 4 MiB with its checksum.
/// @param progress  called after each piece with the bytes done; may throw
/// @throws Error(Format) naming the first damaged range or a wrong size
void verifySegment(const Fd& fd, const std::filesystem::path& file, const Segment& segment,
                   const std::function<void(Index)>& progress = {});

}  // namespace sparsight::sessions
