#pragma once

#include <memory>

#include "core/model/runner.h"

namespace sparsight {

/// The runner of a model with `config.encoder`: encoders of text and images, encoder-decoders.
/// @param device  "cpu" or "cuda:N"
/// @throws Error as loadModel
std::unique_ptr<ModelRunner> loadEncoder(const std::filesystem::path& directory, ModelConfig config,
                                         int threads, const Job& job, std::string_view device);

}  // namespace sparsight
