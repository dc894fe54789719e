#pragma once

#include <filesystem>
#include <optional>
#include <utility>

#include "core/model/config.h"
#include "core/model/input.h"

namespace sparsight {

/// {height, width} in pixels.
using ImageSize = std::pair<Index, Index>;

/// An image as the model reads it: a PNG or JPEG file, resized, cropped and normalised as
/// preprocessor_config.json says (its class's rules where the file or a key is missing); or a .npy
/// file of finished pixel values [3, H, W], float32 or float64.
/// @param size  fit to this size instead, without a crop: positions are then interpolated
/// @throws Error as readImage(); Error(Unsupported) when the model reads no images or the
///         preprocessing is not known; Error(Shape) for a .npy of another shape
Pixels readPixels(const std::filesystem::path& file, const std::filesystem::path& modelDirectory,
                  const ModelConfig& config, std::optional<ImageSize> size = {});

/// "448" or "448x336" (height x width). @throws Error(Usage)
ImageSize parseImageSize(std::string_view text);

}  // namespace sparsight
