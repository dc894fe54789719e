#include <algorithm>

#include "core/model/config.h"
#include "core/model/nearest.h"
#include "kernels/base/error.h"

namespace sparsight {
namespace {

// A row says only what differs from Llama's block and from Llama's class defaults
// (model-formats.md 4).

Architecture llama() {
    Architecture a;
    a.modelType = "llama";
    a.title = "Llama 1-3, SmolLM2, TinyLlama, Yi, Vicuna, CodeLlama";
    a.qkvBias = a.oBias = a.mlpBias = Bias::ByKey;
    return a;
}

Architecture mistral() {
    Architecture a;
    a.modelType = "mistral";
    a.title = "Mistral 7B, Nemo, Zephyr, Codestral";
    a.intermediate = 14336;
    a.kvHeads = 8;
    a.maxPositions = 131072;
    a.windows = WindowRule::All;
    a.window = 4096;
    return a;
}

Architecture qwen2() {
    Architecture a;
    a.modelType = "qwen2";
    a.title = "Qwen2, Qwen2.5, QwQ";
    a.vocab = 151936;
    a.intermediate = 22016;
    a.kvHeads = 32;
    a.maxPositions = 32768;
    a.windows = WindowRule::FromLayer;
    a.window = 4096;
    a.qkvBias = Bias::Always;
    return a;
}

Architecture qwen3() {
    Architecture a = qwen2();
    a.modelType = "qwen3";
    a.title = "Qwen3 (dense)";
    a.headDim = 128;
    a.qkvBias = a.oBias = Bias::ByKey;
    a.block.qNorm = "self_attn.q_norm";
    a.block.kNorm = "self_attn.k_norm";
    return a;
}

Architecture qwen3Moe() {
    Architecture a = qwen3();
    a.modelType = "qwen3_moe";
    a.title = "Qwen3 30B-A3B, 235B-A22B";
    a.hidden = 2048;
    a.intermediate = 6144;
    a.layers = 24;
    a.kvHeads = 4;
    a.headDim = 0;
    a.windows = WindowRule::AllIfUsed;
    a.experts = 128;
    a.expertsPerToken = 8;
    a.expertWidth = 768;
    a.expertsConfig.router = Router::SoftmaxTop;
    return a;
}

Architecture mixtral() {
    Architecture a = mistral();
    a.modelType = "mixtral";
    a.title = "Mixtral 8x7B, 8x22B";
    a.window = 0;
    a.normEps = 1e-5;
    a.theta = 1e6;
    a.experts = 8;
    a.expertsPerToken = 2;
    ExpertsConfig& e = a.expertsConfig;
    e.router = Router::SoftmaxTop;
    e.renormalise = true;
    e.block = "block_sparse_moe.";
    e.routerName = "block_sparse_moe.gate";
    e.gate = "w1";
    e.up = "w3";
    e.down = "w2";
    return a;
}

Architecture gemma() {
    Architecture a;
    a.modelType = "gemma";
    a.title = "Gemma 2B, 7B";
    a.vocab = 256000;
    a.hidden = 3072;
    a.intermediate = 24576;
    a.layers = 28;
    a.heads = a.kvHeads = 16;
    a.headDim = 256;
    a.maxPositions = 8192;
    a.activation = "gelu_pytorch_tanh";
    a.tiedEmbeddings = true;
    a.qkvBias = a.oBias = Bias::ByKey;
    a.block.norm = NormKind::RmsOnePlus;
    return a;
}

Architecture gemma2() {
    Architecture a = gemma();
    a.modelType = "gemma2";
    a.title = "Gemma 2 2B, 9B, 27B";
    a.hidden = 2304;
    a.intermediate = 9216;
    a.layers = 26;
    a.heads = 8;
    a.kvHeads = 4;
    a.windows = WindowRule::EvenLayers;
    a.window = 4096;
    a.keys = {{"hidden_act", "hidden_activation"}};
    a.block.attentionOutNorm = "post_attention_layernorm";
    a.block.mlpNorm = "pre_feedforward_layernorm";
    a.block.mlpOutNorm = "post_feedforward_layernorm";
    return a;
}

Architecture gemma3() {
    Architecture a = gemma2();
    a.modelType = "gemma3_text";
    a.title = "Gemma 3 270M, 1B, the text of 4B, 12B, 27B";
    a.alsoCalled = {"gemma3"};
    a.vocab = 262208;
    a.maxPositions = 131072;
    a.theta = 1e6;
    a.localTheta = 1e4;
    a.windows = WindowRule::Pattern;
    a.block.qNorm = "self_attn.q_norm";
    a.block.kNorm = "self_attn.k_norm";
    return a;
}

Architecture phi3() {
    Architecture a;
    a.modelType = "phi3";
    a.title = "Phi-3, Phi-3.5 mini, Phi-4, Phi-4-mini";
    a.vocab = 32064;
    a.hidden = 3072;
    a.intermediate = 8192;
    a.maxPositions = 4096;
    a.originalMaxPositions = 4096;
    a.longropeByOldNames = true;
    a.partialRope = true;
    a.normEps = 1e-5;
    a.windows = WindowRule::All;
    a.block.qkv = "self_attn.qkv_proj";
    a.block.gateUp = "mlp.gate_up_proj";
    return a;
}

Architecture olmo2() {
    Architecture a;
    a.modelType = "olmo2";
    a.title = "OLMo 2 7B, 13B, 32B";
    a.vocab = 50304;
    a.normEps = 1e-5;
    a.qkvBias = a.oBias = Bias::ByKey;
    a.block.attentionNorm.clear();
    a.block.attentionOutNorm = "post_attention_layernorm";
    a.block.mlpNorm.clear();
    a.block.mlpOutNorm = "post_feedforward_layernorm";
    a.block.qNorm = "self_attn.q_norm";
    a.block.kNorm = "self_attn.k_norm";
    a.block.wholeNorms = true;
    return a;
}

Architecture smollm3() {
    Architecture a;
    a.modelType = "smollm3";
    a.title = "SmolLM3 3B";
    a.vocab = 128256;
    a.hidden = 2048;
    a.layers = 36;
    a.heads = 16;
    a.kvHeads = 4;
    a.maxPositions = 32768;
    a.theta = 2e6;
    a.tiedEmbeddings = true;
    a.windows = WindowRule::WithoutRope;
    a.qkvBias = a.oBias = a.mlpBias = Bias::ByKey;
    return a;
}

Architecture glm4() {
    Architecture a;
    a.modelType = "glm4";
    a.title = "GLM-4-0414 9B, 32B";
    a.vocab = 151552;
    a.intermediate = 13696;
    a.layers = 40;
    a.kvHeads = 2;
    a.headDim = 128;
    a.maxPositions = 131072;
    a.normEps = 1.5625e-7;
    a.partial = 0.5;
    a.partialRope = true;
    a.interleavedRope = true;
    a.qkvBias = Bias::ByKey;
    a.biasDefault = true;
    a.block.attentionOutNorm = "post_self_attn_layernorm";
    a.block.mlpOutNorm = "post_mlp_layernorm";
    a.block.gateUp = "mlp.gate_up_proj";
    return a;
}

Architecture gpt2() {
    Architecture a;
    a.modelType = "gpt2";
    a.sharesKeys = false;
    a.title = "GPT-2, DistilGPT-2, DialoGPT";
    a.vocab = 50257;
    a.hidden = 768;
    a.layers = a.heads = 12;
    a.intermediate = 0;
    a.maxPositions = 1024;
    a.normEps = 1e-5;
    a.activation = "gelu_new";
    a.tiedEmbeddings = true;
    a.rope = false;
    a.qkvBias = a.oBias = a.mlpBias = Bias::Always;
    a.keys = {{"hidden_size", "n_embd"},
              {"num_hidden_layers", "n_layer"},
              {"num_attention_heads", "n_head"},
              {"max_position_embeddings", "n_positions"},
              {"intermediate_size", "n_inner"},
              {"rms_norm_eps", "layer_norm_epsilon"},
              {"hidden_act", "activation_function"}};
    DecoderBlock& b = a.block;
    b.layers = "h.";
    b.norm = NormKind::Layer;
    b.attentionNorm = "ln_1";
    b.mlpNorm = "ln_2";
    b.transposed = true;
    b.qkv = "attn.c_attn";
    b.o = "attn.c_proj";
    b.gate.clear();
    b.up = "mlp.c_fc";
    b.down = "mlp.c_proj";
    a.prefixes = {"transformer.", ""};
    a.embedding = "wte.weight";
    a.positions = "wpe.weight";
    a.finalNorm = "ln_f";
    return a;
}

Architecture gptNeox() {
    Architecture a;
    a.modelType = "gpt_neox";
    a.sharesKeys = false;
    a.title = "Pythia, GPT-NeoX-20B, Dolly";
    a.vocab = 50432;
    a.hidden = 6144;
    a.intermediate = 24576;
    a.layers = 44;
    a.heads = 64;
    a.normEps = 1e-5;
    a.partial = 0.25;
    a.partialRope = true;
    a.activation = "gelu";
    a.qkvBias = a.oBias = Bias::ByKey;
    a.biasDefault = true;
    a.mlpBias = Bias::Always;
    a.keys = {{"rms_norm_eps", "layer_norm_eps"},
              {"rope_theta", "rotary_emb_base"},
              {"partial_rotary_factor", "rotary_pct"}};
    DecoderBlock& b = a.block;
    b.norm = NormKind::Layer;
    b.parallel = true;
    b.qkv = "attention.query_key_value";
    b.order = QkvOrder::HeadMajor;
    b.o = "attention.dense";
    b.gate.clear();
    b.up = "mlp.dense_h_to_4h";
    b.down = "mlp.dense_4h_to_h";
    a.prefixes = {"gpt_neox.", ""};
    a.embedding = "embed_in.weight";
    a.finalNorm = "final_layer_norm";
    a.headNames = {"embed_out.weight", "lm_head.weight"};
    return a;
}

Architecture opt() {
    Architecture a;
    a.modelType = "opt";
    a.sharesKeys = false;
    a.title = "OPT 125M to 66B";
    a.vocab = 50272;
    a.hidden = 768;
    a.intermediate = 3072;
    a.layers = a.heads = 12;
    a.normEps = 1e-5;
    a.activation = "relu";
    a.tiedEmbeddings = true;
    a.rope = false;
    a.qkvBias = a.oBias = a.mlpBias = Bias::Always;
    a.keys = {{"intermediate_size", "ffn_dim"}, {"hidden_act", "activation_function"}};
    DecoderBlock& b = a.block;
    b.norm = NormKind::Layer;
    b.attentionNorm = "self_attn_layer_norm";
    b.mlpNorm = "final_layer_norm";
    b.o = "self_attn.out_proj";
    b.gate.clear();
    b.up = "fc1";
    b.down = "fc2";
    a.prefixes = {"model.decoder.", "decoder.", ""};
    a.positions = "embed_positions.weight";
    a.finalNorm = "final_layer_norm";
    return a;
}

Architecture gptOss() {
    Architecture a;
    a.modelType = "gpt_oss";
    a.title = "gpt-oss 20b, 120b";
    a.vocab = 201088;
    a.hidden = a.intermediate = 2880;
    a.layers = 36;
    a.heads = 64;
    a.kvHeads = 8;
    a.headDim = 64;
    a.maxPositions = 131072;
    a.normEps = 1e-5;
    a.theta = 150000;
    a.scaledRope.kind = "yarn";
    a.scaledRope.factor = 32;
    a.scaledRope.originalMaxPositions = 4096;
    a.scaledRope.truncate = false;
    a.windows = WindowRule::EvenLayers;
    a.window = 128;
    a.qkvBias = a.oBias = Bias::ByKey;
    a.biasDefault = true;
    a.experts = 128;
    a.expertsPerToken = 4;
    a.block.sinks = "self_attn.sinks";
    ExpertsConfig& e = a.expertsConfig;
    e.router = Router::TopSoftmax;
    e.routerName = "mlp.router";
    e.routerBias = true;
    e.clamp = 7;
    return a;
}

Architecture deepseekV2() {
    Architecture a;
    a.modelType = "deepseek_v2";
    a.title = "DeepSeek V2, V2-Lite";
    a.vocab = 102400;
    a.interleavedRope = true;
    a.qkvBias = a.oBias = Bias::ByKey;
    a.mlpBias = Bias::ByKey;
    a.experts = 64;
    a.expertWidth = 1407;
    a.expertsConfig.router = Router::SoftmaxTop;
    return a;
}

Architecture deepseekV3() {
    Architecture a = deepseekV2();
    a.modelType = "deepseek_v3";
    a.title = "DeepSeek V3, R1";
    a.vocab = 129280;
    a.hidden = 7168;
    a.intermediate = 18432;
    a.layers = 61;
    a.heads = a.kvHeads = 128;
    a.maxPositions = 4096;
    a.mlpBias = Bias::Never;
    a.experts = 256;
    a.expertsPerToken = 8;
    a.expertWidth = 2048;
    a.expertsConfig.router = Router::SigmoidBias;
    a.expertsConfig.correctionBias = "mlp.gate.e_score_correction_bias";
    return a;
}

}  // namespace

// To add an architecture: a row here. What no row has said before needs a field of DecoderBlock and
// a line in core/torch/model_runner.cpp.
const std::vector<Architecture>& architectures() {
    static const std::vector<Architecture> rows = {
        llama(),   mistral(), qwen2(),   qwen3(),      qwen3Moe(),  gemma(),  gemma2(),
        gemma3(),  phi3(),    gpt2(),    gptNeox(),    opt(),       gptOss(), glm4(),
        mixtral(), olmo2(),   smollm3(), deepseekV2(), deepseekV3()};
    return rows;
}

const Architecture& architecture(const std::string& modelType) {
    const auto& rows = architectures();
    const auto row = std::find_if(rows.begin(), rows.end(), [&](const Architecture& a) {
        return a.modelType == modelType ||
               std::find(a.alsoCalled.begin(), a.alsoCalled.end(), modelType) != a.alsoCalled.end();
    });
    if (row != rows.end()) return *row;
    throw Error(Errc::Unsupported, "architecture \"" + modelType + "\" has no decoder here");
}

}  // namespace sparsight
