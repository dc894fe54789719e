#pragma once

#include <cstdint>
#include <span>

namespace sparsight::sessions {

/// CRC-32C (Castagnoli, reflected, as iSCSI and ext4 use it). crc32c of "123456789" is 0xe3069283.
/// @param crc  result of the bytes before, 0 at the start
std::uint32_t crc32c(std::span<const std::byte> bytes, std::uint32_t crc = 0);

}  // namespace sparsight::sessions
