#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/model/stacks.h"
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
    bool interleaved = false;  ///< pairs (2k, 2k+1) turn; false: (k, k + half)
    bool writesHalves = false;  ///< interleaved pairs are read, (k, k + half) written (DeepSeek V3)
};

/// The function that a norm applies to each row, in float32.
enum class NormKind {
    Rms,         ///< w x / sqrt(mean(x^2) + eps)
    RmsOnePlus,  ///< the same with 1 + w (Gemma)
    Layer        ///< w (x - mean) / sqrt(variance + eps) + b
};

/// How the rows of a fused query, key and value matrix are ordered.
enum class QkvOrder {
    Stacked,   ///< all of q, all of k, all of v
    HeadMajor  ///< for each head its q, k and v (GPT-NeoX)
};

/// The block of a decoder as data: where its norms are, how its matrices are named and stored.
/// Names are below the layer's prefix and without ".weight" and ".bias"; "" = there is none.
///
///     a = attentionOutNorm(attention(attentionNorm(x)));  x = attentionSumNorm(x + a)
///     m = mlpOutNorm(mlp(mlpNorm(x)));                    x = mlpSumNorm(x + m)
///
/// Parallel blocks read both norms from the same x and add both branches to it.
struct DecoderBlock {
    std::string layers = "layers.";  ///< below the model's prefix; the number and a dot follow
    NormKind norm = NormKind::Rms;
    std::string attentionNorm = "input_layernorm", attentionOutNorm, attentionSumNorm;
    std::string mlpNorm = "post_attention_layernorm", mlpOutNorm, mlpSumNorm;
    bool parallel = false;
    bool transposed = false;  ///< matrices are stored [in, out] (GPT-2's Conv1D)

    std::string q = "self_attn.q_proj", k = "self_attn.k_proj", v = "self_attn.v_proj";
    std::string o = "self_attn.o_proj";
    std::string qkv;  ///< one matrix in place of q, k and v
    QkvOrder order = QkvOrder::Stacked;
    std::string qNorm, kNorm;  ///< on q and k before RoPE
    bool wholeNorms = false;   ///< over all heads together, not head by head (OLMo 2)
    std::string sinks;         ///< [Hq] learned sink logits, a tensor name as it is
    bool qkvBias = false, oBias = false, mlpBias = false;

    /// down(act(gate x) * up x), or down(act(up x)) when gate and gateUp are "".
    std::string gate = "mlp.gate_proj", up = "mlp.up_proj", down = "mlp.down_proj";
    std::string gateUp;  ///< one matrix in place of gate and up: rows of gate, then of up
};

/// How the experts of a token are chosen and weighted, from the router's logits.
enum class Router {
    None,
    SoftmaxTop,   ///< softmax over all, the largest k
    TopSoftmax,   ///< the largest k, softmax over these (gpt_oss)
    SigmoidBias   ///< sigmoid; chosen by sigmoid + learned bias, within the best groups (DeepSeek V3)
};

/// The mixture of experts of a model; `router` None = there is none.
struct ExpertsConfig {
    Router router = Router::None;
    Index count = 0, perToken = 0;
    Index intermediate = 0;        ///< width of one expert
    Index sharedIntermediate = 0;  ///< width of the expert that every token takes, 0 = none
    bool renormalise = false;      ///< the chosen weights are divided by their sum
    double scaling = 1.0;          ///< then multiplied by this
    Index groups = 0, groupsKept = 0;  ///< experts come from the best groups only; 0 = no groups
    double clamp = 0, sigmoidSlope = 1.702;  ///< gpt_oss: (up + 1) gate sigma(slope gate), clamped
    /// Names below the layer's prefix. Experts lie below "<block>experts.".
    std::string block = "mlp.", routerName = "mlp.gate";
    std::string gate = "gate_proj", up = "up_proj", down = "down_proj";
    bool routerBias = false;
    std::string correctionBias;  ///< SigmoidBias's tensor
};

/// Multi-head latent attention (DeepSeek): q, k and v come from low-rank latents.
struct LatentConfig {
    Index qRank = 0;  ///< 0 = queries come straight from the hidden state
    Index kvRank = 0;  ///< 0 = the model has no latent attention
    Index nope = 0, rope = 0;  ///< dimensions of a head without and with rotation
    bool bias = false;         ///< of the matrices into the latents
    bool used() const { return kvRank > 0; }
};

/// What differs from layer to layer.
struct LayerConfig {
    Index window = 0;        ///< newest keys that a query sees, itself included; 0 = all
    bool rotates = true;     ///< false: no position embedding here (NoPE)
    bool localRope = false;  ///< rotates by ModelConfig::localRope
    bool experts = false;    ///< a mixture of experts in place of the MLP
};

struct EncoderConfig;  // encoder_config.h

/// The effective description of a model: what config.json says, completed with class defaults.
/// The forward pass, the capture and the exports read only this.
struct ModelConfig {
    std::string name;  ///< directory name, or the bundled model's name
    std::string arch;  ///< model_type, e.g. "llama"
    Index layers = 0, heads = 0, kvHeads = 0, headDim = 0;
    Index valueDim = 0;  ///< width of a value head; 0 = headDim
    Index hidden = 0, intermediate = 0, vocab = 0, maxPositions = 0;
    double normEps = 1e-6;
    RopeConfig rope;
    RopeConfig localRope;  ///< of layers with LayerConfig::localRope
    std::string activation = "silu";
    bool tiedEmbeddings = false;
    std::string dtype;  ///< of the weights, as config.json spells it: "bfloat16", "float32", ...
    std::string quantisation;  ///< "", "mxfp4" or "fp8"
    std::vector<std::int32_t> eosTokens;

    double attentionScale = 0;       ///< of the scores; 0 = 1 / sqrt(headDim)
    bool scaleByLayer = false;       ///< the scale is divided by layer + 1 (GPT-2's option)
    double softcap = 0;              ///< c of c tanh(score / c), 0 = none
    double logitSoftcap = 0;         ///< the same for logits
    double embeddingScale = 1.0;     ///< factor of token embeddings
    Index embeddingWidth = 0;        ///< of a token's row before project_in; 0 = hidden
    Index positionRows = 0, positionOffset = 0;  ///< learned positions: rows, index of position 0
    bool finalNorm = true;
    bool recomputesAtSwitch = false;  ///< longrope: the cache is dropped when the factors switch
    DecoderBlock block;
    ExpertsConfig experts;
    LatentConfig latent;
    std::vector<LayerConfig> layerConfigs;  ///< one per layer; empty = all as LayerConfig{}

    /// Models that are not one causal decoder: their attention stacks and everything else.
    std::vector<AttentionStack> stacks;
    std::shared_ptr<const EncoderConfig> encoder;

    std::string json;                ///< config.json as read
    std::string sha256;              ///< of config.json's bytes, hex
    std::vector<std::string> notes;  ///< keys ignored, defaults taken: for the model panel

    Index kvGroup() const { return heads / kvHeads; }
    Index valueWidth() const { return valueDim > 0 ? valueDim : headDim; }
    double scale(Index layer = 0) const;  ///< factor of q.k
    LayerConfig layer(Index l) const {
        return layerConfigs.empty() ? LayerConfig{} : layerConfigs.at(std::size_t(l));
    }
};

/// Which layers see a window when config.json lists no layer_types.
enum class WindowRule {
    None,         ///< sliding_window means nothing to this architecture
    All,          ///< every layer, when sliding_window is not null
    FromLayer,    ///< from max_window_layers on, if use_sliding_window (Qwen)
    AllIfUsed,    ///< every layer, if use_sliding_window
    EvenLayers,   ///< 0, 2, ..
    Pattern,      ///< all but each sliding_window_pattern-th (Gemma 3)
    WithoutRope   ///< those that do not rotate, if use_sliding_window (SmolLM3)
};

/// Whether projections have biases.
enum class Bias { Never, Always, ByKey };  // ByKey: attention_bias or mlp_bias

/// One supported decoder: a row of the table in architectures.cpp. The class defaults fill in keys
/// that config.json leaves out; 0 means "by the common rule" (kvHeads = heads, headDim =
/// hidden / heads).
struct Architecture {
    std::string modelType;
    std::string title;
    std::vector<std::string> alsoCalled;  ///< other model_type spellings
    Index vocab = 32000, hidden = 4096, intermediate = 11008, layers = 32, heads = 32;
    Index kvHeads = 0, headDim = 0;
    bool sharesKeys = true;  ///< knows num_key_value_heads
    Index maxPositions = 2048;
    double normEps = 1e-6;
    double theta = 10000.0;
    double partial = 1.0;
    bool partialRope = false;  ///< unscaled RoPE too knows partial_rotary_factor
    std::string activation = "silu";
    bool tiedEmbeddings = false;
    bool rope = true;
    bool interleavedRope = false;
    double localTheta = 0;           ///< a second RoPE for layers with a window; 0 = none
    double originalMaxPositions = 0;  ///< default of the key; 0 = max_position_embeddings
    RopeConfig scaledRope;  ///< of files that say nothing about RoPE, when its kind is not default
    bool longropeByOldNames = false;  ///< rope kinds su and yarn mean longrope (Phi-3)
    Index window = 0;                ///< default of sliding_window; 0 = null
    WindowRule windows = WindowRule::None;
    Index experts = 0, expertsPerToken = 0, expertWidth = 0;
    Bias qkvBias = Bias::Never, oBias = Bias::Never, mlpBias = Bias::Never;
    bool biasDefault = false;  ///< of attention_bias
    std::map<std::string, std::string> keys;  ///< llama's spelling of a key -> this class's

    DecoderBlock block;
    ExpertsConfig expertsConfig;
    /// Where its tensors are: the first prefix under which the embedding exists.
    std::vector<std::string> prefixes = {"model.", "", "language_model.model.",
                                         "model.language_model."};
    std::string embedding = "embed_tokens.weight", positions, finalNorm = "norm";
    std::vector<std::string> headNames = {"lm_head.weight", "language_model.lm_head.weight"};
};
/// Supported decoders, for messages ("supported: llama, ...").
const std::vector<Architecture>& architectures();
/// The row of a model_type. @throws Error(Unsupported) naming the nearest
const Architecture& architecture(const std::string& modelType);

/// Reads config.json, v4 and v5 spellings.
/// @throws Error(Format) bad JSON or values, Error(Unsupported) an architecture or feature that the
///         forward pass cannot run (the sentence names the supported ones), Error(NotFound)
ModelConfig readConfig(const std::filesystem::path& modelDirectory);
/// The same from a config.json's text, which sessions keep.
/// @param where  names the source in messages
ModelConfig parseConfig(std::string text, const std::string& name, const std::string& where);

/// What `sparsight info` and the model panel show; from headers only, no weights are read.
struct ModelInfo {
    ModelConfig config;     ///< of an unsupported model only the name and what it calls itself
    std::string title;      ///< models of this architecture
    Index parameters = 0;
    Index bytes = 0;        ///< of the weight files
    Index files = 0;
    std::string storedAs;   ///< types of the tensors, the largest share first: "BF16", "U8, BF16"
    std::string tokenizer;  ///< one line, e.g. "byte-level BPE, 4096 tokens"
    std::string unsupported;  ///< why it cannot be run, a sentence; "" = it can
};
/// @throws Error as readConfig and SafeTensors::openModel, but for what is only unsupported
ModelInfo modelInfo(const std::filesystem::path& modelDirectory);
/// The facts as rows of a table: what, in words. They describe any supported model; those of an
/// unsupported one are its name and its files.
std::vector<std::pair<std::string, std::string>> modelFacts(const ModelInfo& info);

/// Turns what the user typed into a directory: an existing path, or the name of a bundled model
/// (searched in SPARSIGHT_RESOURCES, beside the program, then the build's and the installed
/// resources). @throws Error(NotFound) naming the bundled models
std::filesystem::path resolveModel(const std::string& nameOrPath);

/// The resources directory (models, prompts). @throws Error(NotFound)
std::filesystem::path resourcesDirectory();

}  // namespace sparsight
