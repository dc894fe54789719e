#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "sessions/segment.h"
#include "sessions/session.h"
#include "sessions/sqlite.h"

namespace sparsight::sessions {

// Rows of the catalogue to values and back. None of these begins a transaction.

/// Row number of a capture; uuid "" = the newest. @throws Error(NotFound)
std::int64_t captureRow(Database& db, const std::string& uuid);
/// Row number of a capture's model.
std::int64_t modelRow(Database& db, std::int64_t capture);

/// @param lost  segments (row numbers) whose files are missing or of a wrong size: their layers
///              count as not captured
/// @throws Error(Format) when a row breaks the rules of session-store.md 6
CaptureInfo readCapture(Database& db, std::int64_t row, const std::set<std::int64_t>& lost);
std::vector<CaptureInfo> readCaptures(Database& db, const std::set<std::int64_t>& lost);

/// Model, prompt and capture rows. @return the capture's uuid
std::string insertCapture(Database& db, const CaptureRequest& request,
                          const std::vector<Index>& layers);
void insertSegment(Database& db, std::int64_t capture, const Segment& segment);

/// A capture's segment of one layer. @throws Error(NotFound) naming the captured layers
Segment findSegment(Database& db, const std::string& capture, const std::string& kind, Index layer);

struct SegmentRow {
    std::int64_t row = 0;
    Segment segment;  ///< without crc
};
std::vector<SegmentRow> segmentRows(Database& db);
std::vector<std::uint32_t> segmentCrc(Database& db, const SegmentRow& row);

}  // namespace sparsight::sessions
