#pragma once

#include <string>

#include "core/import/tensor_map.h"
#include "core/model/config.h"

namespace sparsight {

/// The description of a "model" of which only tensors are known. Its config.json is our own:
/// {"model_type": "sparsight_import", "num_hidden_layers": .., "num_attention_heads": ..,
///  "num_key_value_heads": .., "head_dim": .., "files": [..]}.
ModelConfig importedModel(const ImportPlan& plan, const TensorSet& set, const std::string& name);

/// Whether a config.json is one of importedModel().
bool isImportedModel(const ModelConfig& config);
bool isImportedModel(const std::string& json);
/// Reads such a config.json back. @throws Error(Format)
ModelConfig parseImportedModel(std::string json, const std::string& name);

}  // namespace sparsight
