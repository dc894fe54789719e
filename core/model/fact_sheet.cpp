#include <algorithm>
#include <cmath>
#include <map>
#include <optional>

#include "core/model/config.h"
#include "core/model/encoder_config.h"
#include "core/model/json_input.h"
#include "core/model/tokenizer.h"
#include "core/model/weights.h"
#include "kernels/base/error.h"

namespace sparsight {
namespace {

namespace fs = std::filesystem;

std::string thousands(Index n) {
    std::string text = std::to_string(n);
    for (Index at = Index(text.size()) - 3; at > 0; at -= 3) text.insert(std::size_t(at), ",");
    return text;
}

std::string number(double v) {
    return nlohmann::json(v == std::floor(v) && std::abs(v) < 1e15 ? nlohmann::json(Index(v))
                                                                   : nlohmann::json(v))
        .dump();
}

std::string titleOf(const std::string& arch) {
    for (const Architecture& a : architectures())
        if (a.modelType == arch) return a.title;
    for (const Architecture& a : encoderArchitectures())
        if (a.modelType == arch) return a.title;
    return {};
}

/// The second name of the embedding, and buffers of old files.
bool isParameter(const std::string& name, const ModelConfig& c) {
    for (const char* end : {".inv_freq", ".masked_bias", ".position_ids", ".attn.bias"})
        if (name.ends_with(end)) return false;
    return !(c.tiedEmbeddings && (name == "lm_head.weight" || name == "embed_out.weight"));
}

void countWeights(const SafeTensors& weights, ModelInfo& info) {
    info.bytes = weights.fileBytes();
    info.files = weights.fileCount();
    std::map<std::string, Index> byType;
    for (const auto& [name, tensor] : weights.tensors()) {
        if (!isParameter(name, info.config)) continue;
        // A byte of MXFP4 blocks holds two values; scales are no parameters.
        const bool blocks = name.ends_with("_blocks");
        if (!name.ends_with("_scales") && !name.ends_with("_scale_inv"))
            info.parameters += tensor.elements() * (blocks ? 2 : 1);
        byType[tensor.dtypeName] += tensor.elements();
    }
    std::vector<std::pair<Index, std::string>> order;
    for (const auto& [type, count] : byType) order.emplace_back(count, type);
    std::sort(order.rbegin(), order.rend());
    for (const auto& [count, type] : order)
        info.storedAs += (info.storedAs.empty() ? "" : ", ") + type;
}

std::string layersText(const ModelConfig& c) {
    Index window = 0, windowed = 0, still = 0, mixtures = 0;
    for (Index l = 0; l < c.layers; ++l) {
        const LayerConfig layer = c.layer(l);
        if (layer.window > 0) ++windowed;
        window = std::max(window, layer.window);
        if (!layer.rotates) ++still;
        if (layer.experts) ++mixtures;
    }
    std::string text = std::to_string(c.layers);
    if (windowed > 0)
        text += (windowed == c.layers ? std::string(", all") : ", " + std::to_string(windowed)) +
                " with a window of " + thousands(window) + " keys";
    if (still > 0) text += ", " + std::to_string(still) + " without position embedding";
    if (mixtures > 0)
        text += ", " + std::to_string(mixtures) + " with " + std::to_string(c.experts.count) +
                " experts (" + std::to_string(c.experts.perToken) + " per token" +
                (c.experts.sharedIntermediate > 0 ? " and a shared one)" : ")");
    return text;
}

std::string headsText(const ModelConfig& c) {
    std::string text =
        std::to_string(c.heads) + " query, " + std::to_string(c.kvHeads) + " key/value";
    if (c.kvGroup() > 1) text += " (GQA, groups of " + std::to_string(c.kvGroup()) + ")";
    if (!c.block.sinks.empty()) text += ", learned sinks";
    if (c.softcap > 0) text += ", scores capped at " + number(c.softcap);
    return text;
}

std::string widthText(const ModelConfig& c) {
    std::string text = std::to_string(c.headDim);
    if (c.valueWidth() != c.headDim) text += ", of values " + std::to_string(c.valueWidth());
    if (c.latent.used())
        text += " (latent attention: a latent of " + std::to_string(c.latent.kvRank) + " + " +
                std::to_string(c.latent.rope) + ")";
    return text;
}

std::string ropeText(const RopeConfig& r) {
    if (r.kind == "none") return "none";
    std::string text = r.kind + ", base " + number(r.theta);
    if (r.kind != "default" && r.factor > 0) text += ", factor " + number(r.factor);
    if (r.partial < 1) text += ", " + number(100 * r.partial) + " % of the dimensions";
    return text;
}

std::string positionsText(const ModelConfig& c) {
    if (c.positionRows > 0) return "learned";
    std::string text = "RoPE " + ropeText(c.rope);
    for (const LayerConfig& layer : c.layerConfigs)
        if (layer.localRope) return text + "; with a window " + ropeText(c.localRope);
    return text;
}

}  // namespace

ModelInfo modelInfo(const fs::path& modelDirectory) {
    ModelInfo info;
    std::optional<SafeTensors> weights;  // of a model that only its files tell something about
    try {
        info.config = readConfig(modelDirectory);
    } catch (const Error& e) {
        if (e.code() != Errc::Unsupported) throw;
        info.unsupported = e.what();
        std::error_code code;
        const auto full = fs::canonical(modelDirectory, code);
        info.config.name = (code ? modelDirectory : full).filename().string();
        const std::string where = (modelDirectory / "config.json").string();
        const nlohmann::json file = parseJson(readTextFile(where, 16u << 20), where, true);
        if (file.contains("model_type") && file["model_type"].is_string())
            info.config.arch = file["model_type"].get<std::string>();
        try {
            weights = SafeTensors::openModel(modelDirectory);
        } catch (const Error&) {
            throw e;  // there is nothing to add to it
        }
    }
    info.title = titleOf(info.config.arch);
    if (info.unsupported.empty() && !info.config.encoder) {
        WeightFile file = openWeights(modelDirectory, info.config);
        countWeights(file.file(), info);
        try {
            for (std::string& note : checkWeights(file, info.config))
                info.config.notes.push_back(std::move(note));
        } catch (const Error& e) {
            info.unsupported = e.what();
        }
    } else {
        if (!weights) weights = SafeTensors::openModel(modelDirectory);
        countWeights(*weights, info);
        for (const std::string& note : weights->notes()) info.config.notes.push_back(note);
    }
    try {
        info.tokenizer = Tokenizer::load(modelDirectory)->summary();
    } catch (const Error& e) {  // the model itself can still be run on token ids
        info.tokenizer =
            e.code() == Errc::NotFound ? std::string("none") : std::string("unusable: ") + e.what();
    }
    return info;
}

std::vector<std::pair<std::string, std::string>> modelFacts(const ModelInfo& info) {
    const ModelConfig& c = info.config;
    std::vector<std::pair<std::string, std::string>> rows{
        {"model", c.name},
        {"architecture", c.arch + (info.title.empty() ? "" : " (" + info.title + ")")}};
    const bool known = c.layers > 0;
    if (known && c.stacks.empty()) {
        rows.emplace_back("layers", layersText(c));
        rows.emplace_back("heads", headsText(c));
        rows.emplace_back("head width", widthText(c));
        rows.emplace_back("positions", positionsText(c));
    }
    for (const AttentionStack& s : c.stacks)
        rows.emplace_back(s.name.empty() ? "layers" : "layers, " + s.name,
                          std::to_string(s.layers) + " with " + std::to_string(s.heads) +
                              " heads of width " + std::to_string(s.headDim) +
                              (s.causal ? ", causal" : ", not causal"));
    if (known && c.maxPositions > 0) rows.emplace_back("context", thousands(c.maxPositions));
    if (known && c.vocab > 0) rows.emplace_back("vocabulary", thousands(c.vocab));
    rows.emplace_back("parameters", thousands(info.parameters));
    rows.emplace_back("weights",
                      info.storedAs + (c.quantisation.empty() ? "" : " (" + c.quantisation + ")") +
                          ", " + thousands(info.bytes) + " bytes in " + std::to_string(info.files) +
                          (info.files == 1 ? " file" : " files"));
    rows.emplace_back("tokenizer", info.tokenizer);
    if (!info.unsupported.empty()) rows.emplace_back("not supported", info.unsupported);
    return rows;
}

}  // namespace sparsight
