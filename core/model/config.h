#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "kernels/base/view.h"

namespace sparsight {

/// Which RoPE, with every parameter that the kinds of model-formats.md 3 need. rope.h computes the
/// frequencies.
struct RopeConfig {
    std::string kind = "default";  ///< default, linear, dynamic, yarn, longrope, llama3, none
    double theta = 10000.0;
    double partial = 1.0;                              ///< share of the head's dimensions that turn
    double factor = 1.0;                               ///< 0 = maxPositions / originalMaxPositions
    double lowFreqFactor = 1.0, highFreqFactor = 4.0;  ///< llama3
    double originalMaxPositions = 0;                   ///< 0 = maxPositions
    double maxPositions = 0;                           ///< the model's, for dynamic and longrope
    double attentionFactor = 0;                        ///< 0 = by the kind's own rule
    double betaFast = 32.0, betaSlow = 1.0;            ///< yarn, turns
    double mscale = 0, mscaleAllDim = 0;               ///< yarn, 0 = not given
    bool truncate = true;                         ///< yarn: round the ramp's ends to whole pairs
    std::vector<double> shortFactor, longFactor;  ///< longrope, one per pair
    bool interleaved = false;
};

/// The effective description of a model: what config.json says, completed with class defaults.
/// The forward pass, the capture and the exports read only this.
struct ModelConfig {
    std::string name;  ///< directory name, or the bundled model's name
    std::string arch;  ///< model_type, e.g. "llama"
    Index layers = 0, heads = 0, kvHeads = 0, headDim = 0;
    Index hidden = 0, intermediate = 0, vocab = 0, maxPositions = 0;
    double normEps = 1e-6;
    RopeConfig rope;
    std::string activation = "silu";
    bool attentionBias = false, mlpBias = false, tiedEmbeddings = false;
    std::string dtype;  ///< of the weights, as config.json spells it: "bfloat16", "float32", ...
    std::vector<std::int32_t> eosTokens;
    std::string json;                ///< config.json as read
    std::string sha256;              ///< of config.json's bytes, hex
    std::vector<std::string> notes;  ///< keys ignored, defaults taken: for the model panel

    Index kvGroup() const { return heads / kvHeads; }
    double scale() const;  ///< 1 / sqrt(headDim)
};

/// One supported architecture: a row of the table in architectures.cpp. The class defaults fill in
/// keys that config.json leaves out; 0 means "by the common rule" (kvHeads = heads, headDim =
/// hidden / heads).
struct Architecture {
    std::string modelType;
    std::string title;
    Index vocab = 32000, hidden = 4096, intermediate = 11008, layers = 32, heads = 32;
    Index kvHeads = 0, headDim = 0;
    Index maxPositions = 2048;
    double normEps = 1e-6;
    double theta = 10000.0;
    double partial = 1.0;
    std::string activation = "silu";
    bool tiedEmbeddings = false;
    bool interleavedRope = false;
    bool slidingWindow = false;  ///< the key sliding_window means something to this architecture
};
/// Supported architectures, for messages ("supported: llama, ...").
std::vector<Architecture> architectures();

/// Reads config.json, v4 and v5 spellings.
/// @throws Error(Format) bad JSON or values, Error(Unsupported) an architecture or feature that the
///         forward pass cannot run (the sentence names the supported ones), Error(NotFound)
ModelConfig readConfig(const std::filesystem::path& modelDirectory);
/// The same from a config.json's text, which sessions keep.
/// @param where  names the source in messages
ModelConfig parseConfig(std::string text, const std::string& name, const std::string& where);

/// What `sparsight info` and the model panel show; from headers only, no weights are read.
struct ModelInfo {
    ModelConfig config;
    Index parameters = 0;
    Index bytes = 0;        ///< of the weight files
    std::string tokenizer;  ///< one line, e.g. "byte-level BPE, 4096 tokens"
};
ModelInfo modelInfo(const std::filesystem::path& modelDirectory);

/// Turns what the user typed into a directory: an existing path, or the name of a bundled model
/// (searched in SPARSIGHT_RESOURCES, beside the program, then the build's and the installed
/// resources). @throws Error(NotFound) naming the bundled models
std::filesystem::path resolveModel(const std::string& nameOrPath);

/// The resources directory (models, prompts). @throws Error(NotFound)
std::filesystem::path resourcesDirectory();

}  // namespace sparsight
