#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "core/import/tensor_file.h"

namespace sparsight {

/// The header of a .npy array, format versions 1, 2 and 3.
struct NpyHeader {
    ForeignTensor tensor;  ///< without a name
    Index dataOffset = 0;  ///< of the first element, from the start of the array's file
};

/// Bytes that a header may take, the magic included: numpy itself writes a few hundred.
constexpr Index kMostNpyHeader = Index(1) << 16;

/// Reads `begin`, the first bytes of an array's file (all of them, or kMostNpyHeader).
/// @param where  names the file and entry in messages
/// @throws Error(Format) when it is no .npy header or lies outside of `begin`,
///         Error(Unsupported) for pickled objects, structured and big-endian types
NpyHeader parseNpyHeader(std::span<const std::byte> begin, const std::string& where);

}  // namespace sparsight
