#include "core/model/config.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/model/config_reader.h"
#include "core/model/encoder_config.h"
#include "core/model/json_input.h"
#include "core/model/nearest.h"
#include "core/model/rope.h"
#include "core/model/sha256.h"
#include "kernels/base/error.h"

namespace sparsight {
namespace {

using nlohmann::json;

constexpr std::size_t kMaxConfigBytes = 16u << 20;
constexpr Index kMostLayers = 4096, kMostExperts = 65536, kMostHeadDim = 65536;
constexpr Index kMxfp4Group = 32;  // values of a row that share a scale

// --- RoPE
// -----------------------------------------------------------------------------------------

/// One rope object; keys that it leaves out come from the top level (`top`), then from the row.
RopeConfig readRope(ConfigReader& top, const json& object, const std::string& name,
                    const Architecture& row, double theta, Index maxPositions,
                    std::vector<std::string>& notes) {
    ConfigReader r(object, top.where() + ": " + name, notes);
    RopeConfig rope;
    rope.maxPositions = double(maxPositions);
    rope.interleaved = row.interleavedRope;
    rope.kind = r.text("rope_type", r.text("type", "default", false), false);
    if (rope.kind == "su" || (rope.kind == "yarn" && row.longropeByOldNames))
        rope.kind = "longrope";
    if (rope.kind == "mrope") rope.kind = "default";  // equal for text alone
    r.has("mrope_section");
    rope.theta = r.has("rope_theta") ? r.positive("rope_theta", 0) : theta;
    rope.partial = r.has("partial_rotary_factor")
                       ? r.positive("partial_rotary_factor", 1)
                       : top.positive("partial_rotary_factor", row.partial, false);
    if (rope.partial > 1) top.fail("partial_rotary_factor", "must be at most 1");
    if (rope.partial < 1 && rope.kind == "default" && !row.partialRope) {
        top.note("partial_rotary_factor ignored: the heads of " + row.modelType +
                 " turn as a whole");
        rope.partial = 1;
    }

    static const std::vector<std::string> kinds = {"default", "linear", "dynamic",
                                                   "llama3",  "yarn",   "longrope"};
    if (std::find(kinds.begin(), kinds.end(), rope.kind) == kinds.end())
        top.unsupported("rope_type \"" + rope.kind + "\" is not supported (" +
                        supportedSentence(rope.kind, kinds) + ")");
    const bool scaled = rope.kind != "default";
    // Phi-3 writes it whatever the kind; its class has a default, which wins over a nested key.
    const char* key = "original_max_position_embeddings";
    const double nested = r.positive(key, double(maxPositions), false);
    const double original = row.originalMaxPositions > 0 || top.has(key)
                                ? top.positive(key, row.originalMaxPositions, scaled)
                                : nested;
    if (!scaled) return rope;

    const bool mayDerive = rope.kind == "yarn" || rope.kind == "longrope";
    if (r.has("factor"))
        rope.factor = r.positive("factor", 1);
    else if (mayDerive)
        rope.factor = 0;
    else
        r.fail("factor", "is missing (rope_type " + rope.kind + " needs it)");
    rope.originalMaxPositions = original;
    rope.attentionFactor = r.number("attention_factor", 0, false);
    rope.lowFreqFactor = r.positive("low_freq_factor", 1, rope.kind == "llama3");
    rope.highFreqFactor = r.positive("high_freq_factor", 4, rope.kind == "llama3");
    if (rope.kind == "llama3" && rope.highFreqFactor <= rope.lowFreqFactor)
        r.fail("high_freq_factor", "must be above low_freq_factor");
    rope.betaFast = r.positive("beta_fast", 32, false);
    rope.betaSlow = r.positive("beta_slow", 1, false);
    rope.mscale = r.number("mscale", 0, false);
    rope.mscaleAllDim = r.number("mscale_all_dim", 0, false);
    rope.truncate = r.flag("truncate", true);
    rope.shortFactor = r.numbers("short_factor");
    rope.longFactor = r.numbers("long_factor");
    for (const auto* list : {&rope.shortFactor, &rope.longFactor})
        for (const double f : *list)
            if (!(f > 0)) r.fail("short_factor and long_factor", "must hold numbers above 0");
    r.noteUnread();
    return rope;
}

void checkRope(ConfigReader& r, const ModelConfig& c, const RopeConfig& rope) {
    const Index width = c.latent.used() ? c.latent.rope : c.headDim;
    const Index turned = Index(double(width) * rope.partial);
    const std::string key = c.latent.used() ? "qk_rope_head_dim" : "head_dim";
    if (turned < 1 || 2 * ropePairs(turned) > width)
        r.fail(key, "times the rotated share is " + std::to_string(turned) +
                        "; RoPE needs an even number above 0");
    if (rope.kind == "dynamic" && turned < 3) r.fail(key, "must be at least 4 for dynamic RoPE");
    if (rope.kind != "longrope") return;
    const auto check = [&](const char* name, const std::vector<double>& list) {
        if (Index(list.size()) != ropePairs(turned))
            r.fail(name, "must hold " + std::to_string(ropePairs(turned)) +
                             " numbers, one for every two rotated dimensions, not " +
                             std::to_string(list.size()));
    };
    check("short_factor", rope.shortFactor);
    check("long_factor", rope.longFactor);
}

void readRopes(ConfigReader& r, const Architecture& row, ModelConfig& c) {
    if (!row.rope) {
        c.rope.kind = "none";
        return;
    }
    // v4 writes rope_scaling, v5 rope_parameters; a non-null rope_scaling wins.
    const bool v4 = r.has("rope_scaling"), v5 = r.has("rope_parameters");
    static const json kEmpty = json::object();
    const std::string key = v4 ? "rope_scaling" : "rope_parameters";
    const json& object = v4 || v5 ? r.at(key) : kEmpty;
    if (!object.is_object()) r.fail(key, "must be an object");
    const bool nested = std::any_of(object.begin(), object.end(), [](const json& v) {
        return v.is_object() && !v.contains("__float__");
    });
    const bool twoRopes = row.localTheta > 0;
    if (nested && !twoRopes)
        r.unsupported(key + " differs by layer type (" + object.begin().key() +
                      "), which architecture " + row.modelType + " does not have");
    const bool localGiven = r.has("rope_local_base_freq");
    const bool inside = nested || object.contains("rope_theta");
    const double theta = inside ? row.theta : r.positive("rope_theta", row.theta);
    const double localTheta = localGiven && twoRopes
                                  ? r.positive("rope_local_base_freq", row.localTheta)
                                  : row.localTheta;
    r.has("rope_theta");
    const auto part = [&](const char* type) -> const json& {
        if (!object.contains(type)) return kEmpty;
        if (!object[type].is_object()) r.fail(key, std::string(type) + " must be an object");
        return object[type];
    };
    c.rope = readRope(r, nested ? part("full_attention") : object,
                      nested ? key + ".full_attention" : key, row, theta, c.maxPositions, c.notes);
    c.recomputesAtSwitch = row.longropeByOldNames && c.rope.kind == "longrope";
    if (!v4 && !v5 && row.scaledRope.kind != "default") {
        const RopeConfig plain = c.rope;
        c.rope = row.scaledRope;
        c.rope.theta = plain.theta;
        c.rope.maxPositions = plain.maxPositions;
        r.note("RoPE not given: " + c.rope.kind + ", factor " + json(c.rope.factor).dump());
    }
    checkRope(r, c, c.rope);
    if (!twoRopes) return;
    c.localRope = readRope(r, nested ? part("sliding_attention") : kEmpty,
                           key + ".sliding_attention", row, localTheta, c.maxPositions, c.notes);
    checkRope(r, c, c.localRope);
}

// --- layers
// ---------------------------------------------------------------------------------------

Index readWindow(ConfigReader& r, const Architecture& row) {
    const WindowRule rule = row.windows;
    if (rule == WindowRule::None) {
        if (r.has("sliding_window"))
            r.note("sliding_window ignored: architecture " + row.modelType + " has none");
        return 0;
    }
    const bool byFlag = rule == WindowRule::FromLayer || rule == WindowRule::AllIfUsed ||
                        rule == WindowRule::WithoutRope;
    const bool used = !byFlag || r.flag("use_sliding_window", false);
    // null is none; a key that is missing is the class default.
    Index window = row.window;
    if (r.has("sliding_window"))
        window = r.count("sliding_window", 1);
    else if (r.given("sliding_window"))
        window = 0;
    else if (window > 0 && used)
        r.note("sliding_window not given: " + std::to_string(window));
    return used ? window : 0;
}

/// layer_types, checked: whether each layer has a window; empty when the key is not there.
std::vector<bool> readLayerTypes(ConfigReader& r, const Architecture& row, const ModelConfig& c) {
    std::vector<bool> sliding;
    if (!r.has("layer_types")) return sliding;
    const json& types = r.at("layer_types");
    if (!types.is_array() || Index(types.size()) != c.layers)
        r.fail("layer_types",
               "must list one type for each of the " + std::to_string(c.layers) + " layers");
    const bool windows = row.windows != WindowRule::None;
    for (std::size_t l = 0; l < types.size(); ++l) {
        const bool full = types[l] == "full_attention" || types[l] == "attention";
        if (!full && !(windows && types[l] == "sliding_attention"))
            r.unsupported("layer " + std::to_string(l) + " has type " +
                          types[l].dump(-1, ' ', true).substr(0, 60) + ", which architecture " +
                          row.modelType + " does not have here (supported: full_attention" +
                          (windows ? ", sliding_attention)" : ")"));
        sliding.push_back(!full);
    }
    return sliding;
}

void readLayers(ConfigReader& r, const Architecture& row, ModelConfig& c) {
    c.layerConfigs.resize(std::size_t(c.layers));
    if (row.windows == WindowRule::WithoutRope) {
        const std::vector<double> rotates = r.numbers("no_rope_layers");
        const Index every = r.count("no_rope_layer_interval", 4, false);
        if (!rotates.empty() && Index(rotates.size()) != c.layers)
            r.fail("no_rope_layers",
                   "must list one number for each of the " + std::to_string(c.layers) + " layers");
        for (Index l = 0; l < c.layers; ++l)  // 1 = rotate, in spite of the name
            c.layerConfigs[std::size_t(l)].rotates =
                rotates.empty() ? (l + 1) % every != 0 : rotates[std::size_t(l)] != 0;
    }
    const Index window = readWindow(r, row);
    const Index from =
        row.windows == WindowRule::FromLayer ? r.countOrZero("max_window_layers", 28) : 0;
    const Index pattern =
        row.windows == WindowRule::Pattern ? r.count("sliding_window_pattern", 6, false) : 1;
    const std::vector<bool> types = readLayerTypes(r, row, c);
    const auto byRule = [&](Index l) {
        switch (row.windows) {
            case WindowRule::None:
                return false;
            case WindowRule::All:
            case WindowRule::AllIfUsed:
                return true;
            case WindowRule::FromLayer:
                return l >= from;
            case WindowRule::EvenLayers:
                return l % 2 == 0;
            case WindowRule::Pattern:
                return (l + 1) % pattern != 0;
            case WindowRule::WithoutRope:
                return !c.layerConfigs[std::size_t(l)].rotates;
        }
        return false;
    };
    // Classes with one window for every layer do not look at layer_types.
    const bool oneWindow = row.windows == WindowRule::All || row.windows == WindowRule::AllIfUsed;
    for (Index l = 0; l < c.layers; ++l) {
        LayerConfig& layer = c.layerConfigs[std::size_t(l)];
        const bool sliding = types.empty() || oneWindow ? byRule(l) : types[std::size_t(l)];
        layer.window = sliding ? window : 0;
        layer.localRope = sliding && row.localTheta > 0;
    }
}

// --- what single families add
// ---------------------------------------------------------------------

void readExperts(ConfigReader& r, const Architecture& row, ModelConfig& c) {
    c.experts = row.expertsConfig;
    ExpertsConfig& e = c.experts;
    if (e.router == Router::None) return;
    const bool deepseek = row.modelType.starts_with("deepseek");
    e.count = row.experts;
    bool counted = false;
    for (const char* key : {"num_local_experts", "num_experts", "n_routed_experts"})
        if (r.has(key)) {
            e.count = r.count(key, 1);
            counted = true;
        }
    if (!counted) r.note("number of experts not given: " + std::to_string(e.count));
    if (e.count > kMostExperts)
        r.fail("the number of experts", "is " + std::to_string(e.count) + "; at most " +
                                            std::to_string(kMostExperts) + " are read");
    if (!r.has("num_experts_per_tok") && row.expertsPerToken == 0)
        r.fail("num_experts_per_tok", "is missing");
    e.perToken = r.count("num_experts_per_tok", row.expertsPerToken);
    if (e.perToken > e.count)
        r.fail("num_experts_per_tok", "(" + std::to_string(e.perToken) + ") is above the " +
                                          std::to_string(e.count) + " experts");
    e.intermediate =
        row.expertWidth > 0 ? r.count("moe_intermediate_size", row.expertWidth) : c.intermediate;
    if (e.clamp > 0) {
        e.clamp = r.positive("swiglu_limit", e.clamp, false);
        e.sigmoidSlope = r.positive("swiglu_alpha", e.sigmoidSlope, false);
    }
    std::vector<bool> dense(std::size_t(c.layers), false);
    if (row.modelType == "qwen3_moe") {
        e.renormalise = r.flag("norm_topk_prob", false);
        const Index step = r.count("decoder_sparse_step", 1, false);
        for (Index l = 0; l < c.layers; ++l) dense[std::size_t(l)] = (l + 1) % step != 0;
        for (const double l : r.numbers("mlp_only_layers"))
            if (l >= 0 && l < double(c.layers)) dense[std::size_t(l)] = true;
    }
    if (deepseek) {
        const bool v3 = e.router == Router::SigmoidBias;
        const Index first = r.countOrZero("first_k_dense_replace", v3 ? 3 : 0);
        for (Index l = 0; l < std::min(first, c.layers); ++l) dense[std::size_t(l)] = true;
        e.sharedIntermediate = e.intermediate * r.countOrZero("n_shared_experts", v3 ? 1 : 2);
        e.scaling = r.number("routed_scaling_factor", v3 ? 2.5 : 1.0);
        e.renormalise = r.flag("norm_topk_prob", v3) && v3;
        const std::string method = r.text("topk_method", v3 ? "noaux_tc" : "greedy", false);
        const std::vector<std::string> methods = {"greedy", "group_limited_greedy"};
        if (!v3 && std::find(methods.begin(), methods.end(), method) == methods.end())
            r.unsupported("topk_method \"" + method + "\" is not supported (" +
                          supportedSentence(method, methods) + ")");
        if (v3 || method == "group_limited_greedy") {
            e.groups = r.count("n_group", 8);
            e.groupsKept = r.count("topk_group", 4);
            if (e.count % e.groups != 0 || e.groupsKept > e.groups)
                r.fail("n_group", "must divide the number of experts and be at least topk_group");
            if (e.perToken > e.count / e.groups * e.groupsKept)
                r.fail("num_experts_per_tok", "is above the experts of topk_group groups");
            if (v3 && e.count / e.groups < 2)
                r.fail("n_group", "must leave two experts to a group at least");
        }
        for (const char* key : {"n_group", "topk_group", "scoring_func", "moe_layer_freq",
                                "ep_size", "seq_aux", "aux_loss_alpha", "num_nextn_predict_layers"})
            r.has(key);
    }
    for (Index l = 0; l < c.layers; ++l)
        c.layerConfigs[std::size_t(l)].experts = !dense[std::size_t(l)];
}

/// MLA's head: dimensions without rotation, then rotated ones; values have their own width.
void readLatent(ConfigReader& r, const Architecture& row, ModelConfig& c) {
    if (!row.modelType.starts_with("deepseek")) return;
    LatentConfig& m = c.latent;
    m.kvRank = r.count("kv_lora_rank", 512);
    if (r.has("q_lora_rank") || !r.given("q_lora_rank")) m.qRank = r.count("q_lora_rank", 1536);
    m.nope = r.count("qk_nope_head_dim", 128);
    m.rope = r.count("qk_rope_head_dim", 64);
    c.valueDim = r.count("v_head_dim", 128);
    c.headDim = m.nope + m.rope;
    c.kvHeads = c.heads;  // every head has keys of its own once the latents are expanded
    for (const char* key : {"head_dim", "qk_head_dim", "num_key_value_heads"}) r.has(key);
}

void readScale(ConfigReader& r, const Architecture& row, ModelConfig& c) {
    if (row.modelType == "gemma2" || row.modelType == "gemma3_text")
        c.attentionScale = 1 / std::sqrt(r.positive("query_pre_attn_scalar", 256));
    if (row.modelType == "gpt2") {
        if (!r.flag("scale_attn_weights", true)) c.attentionScale = 1;
        c.scaleByLayer = r.flag("scale_attn_by_inverse_layer_idx", false);
        if (r.flag("add_cross_attention", false))
            r.unsupported("add_cross_attention is not supported");
    }
    const auto cap = [&](const char* key, double fallback) {
        if (r.has(key)) return r.positive(key, 0);
        return r.given(key) ? 0.0 : fallback;
    };
    if (row.modelType == "gemma2") {
        c.softcap = cap("attn_logit_softcapping", 50);
        c.logitSoftcap = cap("final_logit_softcapping", 30);
    }
    if (row.modelType == "gemma3_text") {
        if (r.has("attn_logit_softcapping"))
            r.note("attn_logit_softcapping ignored: the scores of gemma3 are not capped");
        c.logitSoftcap = cap("final_logit_softcapping", 0);
    }
    if (row.modelType.starts_with("gemma")) {
        c.embeddingScale = double(float(std::sqrt(double(c.hidden))));
        if (r.flag("use_bidirectional_attention", false))
            r.unsupported("use_bidirectional_attention is not supported");
    }
    if (c.latent.used() && c.rope.kind != "default" && c.rope.mscaleAllDim != 0) {
        const double factor = c.rope.factor > 0 ? c.rope.factor : 1;
        const double m = factor <= 1 ? 1 : 0.1 * c.rope.mscaleAllDim * std::log(factor) + 1;
        c.attentionScale = m * m / std::sqrt(double(c.headDim));
    }
}

void readBlock(ConfigReader& r, const Architecture& row, ModelConfig& c) {
    c.block = row.block;
    DecoderBlock& b = c.block;
    const bool attention = row.qkvBias == Bias::ByKey || row.oBias == Bias::ByKey
                               ? r.flag("attention_bias", row.biasDefault)
                               : false;
    const bool mlp = row.mlpBias == Bias::ByKey ? r.flag("mlp_bias", false) : false;
    const auto bias = [](Bias rule, bool key) {
        return rule == Bias::Always || (rule == Bias::ByKey && key);
    };
    b.qkvBias = bias(row.qkvBias, attention);
    b.oBias = bias(row.oBias, attention);
    b.mlpBias = bias(row.mlpBias, mlp);
    // These two classes have no such key; files carry it all the same.
    r.has("attention_bias");
    r.has("mlp_bias");
    if (row.modelType == "gpt_neox") b.parallel = r.flag("use_parallel_residual", true);
    if (row.modelType == "opt") {
        const bool before = r.flag("do_layer_norm_before", true);
        c.finalNorm = before && !r.flag("_remove_final_layer_norm", false);
        if (!before) {
            std::swap(b.attentionNorm, b.attentionSumNorm);
            std::swap(b.mlpNorm, b.mlpSumNorm);
        }
        if (!r.flag("enable_bias", true)) b.qkvBias = b.oBias = b.mlpBias = false;
        if (!r.flag("layer_norm_elementwise_affine", true))
            r.unsupported("layer_norm_elementwise_affine false is not supported");
        c.embeddingWidth = r.count("word_embed_proj_dim", c.hidden, false);
    }
    if (!row.positions.empty()) {
        c.positionOffset = row.modelType == "opt" ? 2 : 0;
        c.positionRows = c.maxPositions + c.positionOffset;
    }
    if (c.latent.used()) {
        c.latent.bias = b.qkvBias;
        b.qkvBias = false;
        if (c.rope.interleaved && row.modelType == "deepseek_v3") {
            c.rope.writesHalves = r.flag("rope_interleave", true);
            c.rope.interleaved = c.rope.writesHalves;
        }
    }
}

void readActivation(ConfigReader& r, const Architecture& row, ModelConfig& c) {
    std::string key = "hidden_act", kind = r.text(key, row.activation);
    if (row.modelType == "gemma") {
        // Files of the first release say "gelu" and mean the tanh form.
        const bool newer = r.has("hidden_activation");
        if (newer) kind = r.text(key = "hidden_activation", kind);
        if (!newer && kind == "gelu") {
            kind = "gelu_pytorch_tanh";
            r.note("hidden_act \"gelu\" of an early Gemma file: gelu_pytorch_tanh");
        }
    }
    c.activation = checkedActivation(r, key, kind);
    if (c.experts.clamp == 0) return;
    if (c.activation != "silu") r.unsupported("hidden_act must be silu for this architecture");
}

void readQuantisation(ConfigReader& r, const Architecture& row, ModelConfig& c) {
    if (!r.has("quantization_config")) return;
    const json& q = r.at("quantization_config");
    const std::string method =
        q.is_object() && q.contains("quant_method") && q["quant_method"].is_string()
            ? q["quant_method"].get<std::string>()
            : "unnamed";
    if (method == "mxfp4" && row.modelType == "gpt_oss") {
        if (c.hidden % kMxfp4Group != 0 || c.experts.intermediate % kMxfp4Group != 0)
            r.fail("hidden_size and intermediate_size",
                   "must be multiples of 32 for mxfp4 weights");
        c.quantisation = method;
        return;
    }
    if (method == "fp8") {
        const bool tiles = !q.contains("weight_block_size") || q["weight_block_size"].is_null() ||
                           q["weight_block_size"] == json{128, 128};
        if (!tiles) r.unsupported("fp8 weights in tiles other than 128 x 128 are not supported");
        c.quantisation = method;
        return;
    }
    r.unsupported("weights quantised by \"" + method +
                  "\" are not supported (supported: float32, float16, bfloat16, fp8, and mxfp4 of "
                  "gpt_oss): use the unquantised model");
}

// --- sizes
// ----------------------------------------------------------------------------------------

void readHeads(ConfigReader& r, const Architecture& row, ModelConfig& c) {
    // null is "as many as query heads"; a key that is missing is the class default.
    const Index kvDefault =
        row.kvHeads > 0 && !r.given("num_key_value_heads") ? row.kvHeads : c.heads;
    c.kvHeads = row.sharesKeys ? r.count("num_key_value_heads", kvDefault, false) : c.heads;
    if (c.heads % c.kvHeads != 0)
        r.fail("num_key_value_heads", "(" + std::to_string(c.kvHeads) +
                                          ") must divide num_attention_heads (" +
                                          std::to_string(c.heads) + ")");
    const bool byRule = !r.has("head_dim") && (row.headDim == 0 || r.given("head_dim"));
    if (byRule && c.hidden % c.heads != 0)
        r.fail("hidden_size",
               "must be a multiple of num_attention_heads when head_dim is not given");
    c.headDim = byRule ? c.hidden / c.heads : r.count("head_dim", row.headDim);
}

void readSizes(ConfigReader& r, const Architecture& row, ModelConfig& c) {
    c.vocab = r.count("vocab_size", row.vocab);
    c.hidden = r.count("hidden_size", row.hidden);
    const bool fourTimes = row.intermediate == 0;
    c.intermediate =
        r.count("intermediate_size", fourTimes ? 4 * c.hidden : row.intermediate, !fourTimes);
    c.layers = r.count("num_hidden_layers", row.layers);
    c.heads = r.count("num_attention_heads", row.heads);
    if (c.layers > kMostLayers)
        r.fail("num_hidden_layers", "is " + std::to_string(c.layers) + "; at most " +
                                        std::to_string(kMostLayers) + " are read");
    c.maxPositions = r.count("max_position_embeddings", row.maxPositions);
    c.normEps = r.positive("rms_norm_eps", row.normEps);
    readLatent(r, row, c);
    if (!c.latent.used()) readHeads(r, row, c);
    if (std::max(c.headDim, c.valueWidth()) > kMostHeadDim)
        r.fail("the width of a head", "is " + std::to_string(std::max(c.headDim, c.valueWidth())) +
                                          "; at most " + std::to_string(kMostHeadDim) +
                                          " are read");
}

/// The object that describes the decoder: the file's own, or the text model inside a file of a
/// model that sees images as well.
const json& decoderObject(const json& file, std::string& arch, std::vector<std::string>& notes) {
    const auto known = [](const std::string& type) {
        for (const Architecture& a : architectures())
            if (a.modelType == type) return true;
        return false;
    };
    if (known(arch) || !file.contains("text_config") || !file["text_config"].is_object())
        return file;
    const json& text = file["text_config"];
    const std::string outer = arch;
    if (text.contains("model_type") && text["model_type"].is_string())
        arch = text["model_type"].get<std::string>();
    notes.push_back("only the text model of \"" + outer + "\" is loaded");
    return text;
}

[[noreturn]] void unknownArchitecture(const std::string& arch, const std::string& where) {
    std::vector<std::string> names;
    for (const Architecture& a : architectures()) names.push_back(a.modelType);
    for (const Architecture& a : encoderArchitectures()) names.push_back(a.modelType);
    throw Error(Errc::Unsupported,
                where + ": " +
                    (arch.empty() ? std::string("no model_type is given")
                                  : "architecture \"" + arch + "\" is not supported") +
                    " (" + supportedSentence(arch, names) +
                    "); its attention can still be looked at: write Q, K and V with "
                    "docs/dump_qkv.py and open the file with 'sparsight import-tensors'");
}

}  // namespace

double ModelConfig::scale(Index layer) const {
    const double s = attentionScale > 0 ? attentionScale : 1.0 / std::sqrt(double(headDim));
    return scaleByLayer ? s / double(layer + 1) : s;
}

ModelConfig readConfig(const std::filesystem::path& modelDirectory) {
    const std::filesystem::path file = modelDirectory / "config.json";
    if (!std::filesystem::is_directory(modelDirectory))
        throw Error(Errc::NotFound, modelDirectory.string() + " is not a model directory");
    std::error_code code;
    const auto full = std::filesystem::canonical(modelDirectory, code);
    ModelConfig c = parseConfig(
        readTextFile(file, kMaxConfigBytes),
        code ? modelDirectory.filename().string() : full.filename().string(), file.string());
    const auto generation = modelDirectory / "generation_config.json";
    if (std::filesystem::exists(generation)) {  // wins over config.json when it says something
        const json g =
            parseJson(readTextFile(generation, kMaxConfigBytes), generation.string(), true);
        if (!g.is_object())
            throw Error(Errc::Format, generation.string() + ": must be a JSON object");
        if (g.contains("eos_token_id") && !g["eos_token_id"].is_null())
            c.eosTokens = readEosTokens(g["eos_token_id"], c.vocab, generation.string(), c.notes);
    }
    return c;
}

ModelConfig parseConfig(std::string text, const std::string& name, const std::string& where) {
    ModelConfig c;
    c.json = std::move(text);
    c.sha256 = sha256Hex(c.json);
    c.name = name;

    const json file = parseJson(c.json, where, true);
    if (!file.is_object()) throw Error(Errc::Format, where + ": must be a JSON object");
    {
        ConfigReader top(file, where, c.notes);
        c.arch = top.text("model_type", "", false);
    }
    if (isEncoder(c.arch)) {
        parseEncoder(file, where, c);
        return c;
    }
    const json& j = decoderObject(file, c.arch, c.notes);
    const auto& rows = architectures();
    const auto found = std::find_if(rows.begin(), rows.end(), [&](const Architecture& a) {
        return a.modelType == c.arch ||
               std::find(a.alsoCalled.begin(), a.alsoCalled.end(), c.arch) != a.alsoCalled.end();
    });
    if (found == rows.end()) unknownArchitecture(c.arch, where);
    const Architecture& row = *found;
    c.arch = row.modelType;

    ConfigReader r(j, where, c.notes);
    r.setSpellings(row.keys);
    r.has("model_type");
    if (r.has("per_layer_config") ||
        (file.contains("per_layer_config") && !file["per_layer_config"].is_null()))
        r.unsupported("per_layer_config is not supported");
    readSizes(r, row, c);
    readRopes(r, row, c);
    readLayers(r, row, c);
    readExperts(r, row, c);
    readBlock(r, row, c);
    readScale(r, row, c);
    readActivation(r, row, c);
    // The outer file of a model with images speaks for its text model where that says nothing.
    const auto either = [&](const char* key) -> const json& {
        static const json kNothing;
        if (r.has(key)) return r.at(key);
        return file.contains(key) ? file.at(key) : kNothing;
    };
    readQuantisation(r, row, c);
    if (&file != &j && file.contains("quantization_config")) {
        ConfigReader outer(file, where, c.notes);
        readQuantisation(outer, row, c);
    }
    const json& tied = either("tie_word_embeddings");
    if (!tied.is_null() && !tied.is_boolean())
        r.fail("tie_word_embeddings", "must be true or false");
    c.tiedEmbeddings = tied.is_null() ? row.tiedEmbeddings : tied.get<bool>();
    c.dtype = "float32";
    for (const char* key : {"torch_dtype", "dtype"}) {
        const json& type = either(key);
        if (type.is_null()) continue;
        if (!type.is_string()) r.fail(key, "must be a string");
        c.dtype = type.get<std::string>();
    }
    if (c.dtype.starts_with("torch.")) c.dtype.erase(0, 6);
    c.eosTokens = readEosTokens(either("eos_token_id"), c.vocab, where, c.notes);
    if (file.contains("auto_map"))
        r.note("auto_map (code of the repository) is not run; the model is taken as plain " +
               row.modelType);
    r.has("auto_map");
    r.noteUnread();
    return c;
}

}  // namespace sparsight
