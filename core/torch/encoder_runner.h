#pragma once

#include <memory>

#include "core/model/runner.h"

namespace sparsight {

/// The runner of a model with `config.encoder`: encoders of text and images, encoder-decoders.
/// @throws Error as loadModel
std::unique_ptr<ModelRunner> loadEncoder(const std::filesystem::path& directory, ModelConfig config,
                                         int threads, const Job& job);

}  // namespace sparsight
