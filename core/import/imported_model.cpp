#include "core/import/imported_model.h"

#include <nlohmann/json.hpp>

#include "core/model/sha256.h"
#include "kernels/base/error.h"

namespace sparsight {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kType = "sparsight_import";

}  // namespace

ModelConfig importedModel(const ImportPlan& plan, const TensorSet& set, const std::string& name) {
    const kernels::Problem& p = plan.problem();
    Json files = Json::array();
    for (const auto& f : set.files()) files.push_back(f->path().filename().string());
    const Json config = {{"model_type", kType},
                         {"num_hidden_layers", plan.layerCount()},
                         {"num_attention_heads", p.Hq},
                         {"num_key_value_heads", p.Hkv},
                         {"head_dim", p.d},
                         {"files", files}};
    return parseImportedModel(config.dump(2, ' ', false, Json::error_handler_t::replace), name);
}

bool isImportedModel(const ModelConfig& config) {
    return config.arch == kType;
}

bool isImportedModel(const std::string& json) {
    const Json config = Json::parse(json, nullptr, false);
    return config.is_object() && config.contains("model_type") && config["model_type"] == kType;
}

ModelConfig parseImportedModel(std::string json, const std::string& name) {
    ModelConfig c;
    const Json config = Json::parse(json, nullptr, false);
    const auto number = [&](const char* key, Index most) {
        const bool there =
            config.is_object() && config.contains(key) && config[key].is_number_integer();
        const Index n = there ? config[key].get<Index>() : 0;
        if (n < 1 || n > most)
            throw Error(Errc::Format, std::string("the description of imported tensors has no "
                                                  "sensible ") +
                                          key);
        return n;
    };
    c.name = name;
    c.arch = kType;
    c.layers = number("num_hidden_layers", 4096);
    c.heads = number("num_attention_heads", 4096);
    c.kvHeads = number("num_key_value_heads", c.heads);
    c.headDim = number("head_dim", 1 << 20);
    if (c.heads % c.kvHeads != 0)
        throw Error(Errc::Format,
                    "the description of imported tensors has query heads that are no multiple of "
                    "its key heads");
    c.hidden = c.heads * c.headDim;
    c.sha256 = sha256Hex(json);
    c.json = std::move(json);
    return c;
}

}  // namespace sparsight
