#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "kernels/base/view.h"

namespace sparsight {

/// An 8-bit RGB picture, [height][width][3].
struct Image {
    Index height = 0, width = 0;
    std::vector<std::uint8_t> rgb;
};

/// Reads a PNG or JPEG file by what it holds, whatever its name. Grey becomes RGB, transparency is
/// dropped as PIL's convert("RGB") does.
/// @throws Error(NotFound), Error(Io), Error(Format) damaged, Error(Unsupported) another format,
///         Error(Resources) more than 2^26 pixels
Image readImage(const std::filesystem::path& file);

/// How an image is fitted, as PIL.Image.resize does for each.
enum class Resample { Lanczos = 1, Bilinear = 2, Bicubic = 3 };
/// PIL's resize: separable, width first, the filter widened when shrinking, 8 bits between the two
/// passes.
Image resize(const Image& image, Index height, Index width, Resample filter);

}  // namespace sparsight
