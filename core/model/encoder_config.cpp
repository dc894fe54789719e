#include "core/model/encoder_config.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "core/model/config_reader.h"
#include "core/model/nearest.h"
#include "kernels/base/error.h"

namespace sparsight {
namespace {

using nlohmann::json;

// Keys that describe training, generation, the file itself or labels: not worth a note.
const std::set<std::string> kSilent = {"_name_or_path",
                                       "architectures",
                                       "attention_dropout",
                                       "attention_probs_dropout_prob",
                                       "bos_token_id",
                                       "classifier_dropout",
                                       "classif_dropout",
                                       "chunk_size_feed_forward",
                                       "activation_dropout",
                                       "decoder_layerdrop",
                                       "encoder_layerdrop",
                                       "dropout",
                                       "dropout_rate",
                                       "early_stopping",
                                       "encoder_stride",
                                       "eos_token_id",
                                       "forced_bos_token_id",
                                       "forced_eos_token_id",
                                       "gradient_checkpointing",
                                       "hidden_dropout_prob",
                                       "id2label",
                                       "init_std",
                                       "initializer_factor",
                                       "initializer_range",
                                       "is_decoder",
                                       "is_encoder_decoder",
                                       "label2id",
                                       "length_penalty",
                                       "logit_scale_init_value",
                                       "max_length",
                                       "min_length",
                                       "no_repeat_ngram_size",
                                       "normalize_before",
                                       "normalize_embedding",
                                       "num_beams",
                                       "num_hidden_layers",
                                       "output_attentions",
                                       "output_hidden_states",
                                       "output_past",
                                       "pooler_act",
                                       "pooler_output_size",
                                       "return_dict",
                                       "task_specific_params",
                                       "torchscript",
                                       "transformers_version",
                                       "use_cache",
                                       "add_bias_logits",
                                       "add_final_layer_norm",
                                       "n_positions",
                                       "dense_act_fn",
                                       "is_gated_act",
                                       "tie_encoder_decoder",
                                       "problem_type",
                                       "sep_token_id",
                                       "cls_token_id",
                                       "tokenizer_class",
                                       "layer_norm_eps",
                                       "model_type",
                                       "text_config_dict",
                                       "vision_config_dict",
                                       "projection_dim",
                                       "add_cross_attention",
                                       "tie_word_embeddings",
                                       "pruned_heads",
                                       "directionality",
                                       "gradient_checkpointing"};

/// Keys of one JSON object with the class's defaults; missing and null count alike.
class Keys {
public:
    Keys(const json& object, std::string where, std::vector<std::string>& notes)
        : m_object(object), m_where(std::move(where)), m_notes(notes) {}

    bool has(const char* key) {
        m_seen.insert(key);
        return m_object.contains(key) && !m_object[key].is_null();
    }
    double number(const char* key, double fallback) {
        if (!has(key)) {
            m_notes.push_back(std::string(key) + " not given: " + spell(fallback));
            return fallback;
        }
        if (!m_object[key].is_number())
            fail(key, "must be a number, not " + m_object[key].dump(-1, ' ', true).substr(0, 60));
        return m_object[key].get<double>();
    }
    double positive(const char* key, double fallback) {
        const double v = number(key, fallback);
        if (!(v > 0) || !std::isfinite(v)) fail(key, "must be above 0, not " + spell(v));
        return v;
    }
    Index count(const char* key, Index fallback, Index least = 1, Index most = 2147483647) {
        const double v = number(key, double(fallback));
        if (!(v >= double(least) && v <= double(most)) || v != std::floor(v))
            fail(key, "must be a whole number from " + std::to_string(least) + " to " +
                          std::to_string(most) + ", not " + spell(v));
        return Index(v);
    }
    bool flag(const char* key, bool fallback) {
        if (!has(key)) return fallback;
        if (!m_object[key].is_boolean()) fail(key, "must be true or false");
        return m_object[key].get<bool>();
    }
    std::string text(const char* key, const std::string& fallback) {
        if (!has(key)) return fallback;
        if (!m_object[key].is_string()) fail(key, "must be a string");
        return m_object[key].get<std::string>();
    }
    /// A number, or a list of two: {height, width}.
    std::pair<Index, Index> pair(const char* key, Index fallback) {
        if (has(key) && m_object[key].is_array()) {
            const json& list = m_object[key];
            const auto good = [](const json& v) {
                return v.is_number_integer() && v.get<std::int64_t>() > 0 &&
                       v.get<std::int64_t>() <= 65536;
            };
            if (list.size() != 2 || !good(list[0]) || !good(list[1]))
                fail(key, "must be a number or a list of two");
            return {list[0].get<Index>(), list[1].get<Index>()};
        }
        const Index n = count(key, fallback, 1, 65536);
        return {n, n};
    }
    const json& at(const char* key) const { return m_object[key]; }
    const std::string& where() const { return m_where; }
    /// What changes the weights or the forward pass and is not understood.
    void refuseVariants(const std::string& arch) {
        if (has("quantization_config"))
            refuse("quantised weights are not supported for " + arch +
                   " (supported: float32, float16, bfloat16): use the unquantised model");
        if (has("per_layer_config")) refuse("per_layer_config is not supported");
    }
    void noteUnread() const {
        for (const auto& [key, value] : m_object.items())
            if (!m_seen.contains(key) && !kSilent.contains(key))
                m_notes.push_back("key ignored: " + key);
    }
    [[noreturn]] void fail(const std::string& key, const std::string& rule) const {
        throw Error(Errc::Format, m_where + ": " + key + " " + rule);
    }
    [[noreturn]] void refuse(const std::string& what) const {
        throw Error(Errc::Unsupported, m_where + ": " + what);
    }
    std::string activation(const char* key, const std::string& fallback) {
        std::string name = text(key, fallback);
        if (name == "swish") name = "silu";
        static const std::vector<std::string> known = {
            "gelu", "gelu_new", "gelu_pytorch_tanh", "gelu_fast", "quick_gelu", "relu",
            "silu", "relu2"};
        if (std::find(known.begin(), known.end(), name) == known.end())
            refuse(std::string(key) + " \"" + name + "\" is not supported (" +
                   supportedSentence(name, known) + ")");
        return name;
    }

private:
    const json& m_object;
    std::string m_where;
    std::vector<std::string>& m_notes;
    std::set<std::string> m_seen;
};

/// Head width of a tower from its hidden size, scale 1 / sqrt(width).
void setHeads(Keys& k, const char* key, Index heads, Tower& t) {
    t.heads = k.count(key, heads, 1, 4096);
    if (t.hidden % t.heads != 0)
        k.fail(key, "(" + std::to_string(t.heads) + ") must divide the hidden size (" +
                        std::to_string(t.hidden) + ")");
    t.headDim = t.hidden / t.heads;
    t.scale = 1.0 / std::sqrt(double(t.headDim));
}

Index layersOf(Keys& k, const char* key, Index fallback) {
    return k.count(key, fallback, 1, 4096);
}

bool architectureIs(Keys& k, std::string_view part) {
    if (!k.has("architectures")) return false;
    const json& list = k.at("architectures");
    return list.is_array() && !list.empty() && list[0].is_string() &&
           list[0].get<std::string>().find(part) != std::string::npos;
}

// --- bert, roberta ------------------------------------------------------------------------------

void bertLike(Keys& k, bool roberta, ModelConfig& c, EncoderConfig& e) {
    if (k.flag("is_decoder", false) || k.flag("add_cross_attention", false))
        k.refuse("a " + c.arch +
                 " that is run as a decoder (is_decoder, add_cross_attention) is "
                 "not supported; encoders are");
    if (const auto kind = k.text("position_embedding_type", "absolute"); kind != "absolute")
        k.refuse("position_embedding_type \"" + kind + "\" is not supported (supported: absolute)");
    e.prefixes = {roberta ? "roberta." : "bert.", ""};
    Tower& t = e.text;
    t.hidden = k.count("hidden_size", 768);
    t.layers = layersOf(k, "num_hidden_layers", 12);
    setHeads(k, "num_attention_heads", 12, t);
    t.intermediate = k.count("intermediate_size", 3072);
    t.activation = k.activation("hidden_act", "gelu");
    t.normEps = k.positive("layer_norm_eps", 1e-12);
    t.names = {{"encoder.layer.#.", "attention.self.query", "attention.self.key",
                "attention.self.value", "attention.output.dense", "attention.output.LayerNorm",
                "intermediate.dense", "output.dense", "output.LayerNorm"}};
    TextEmbedding& w = e.words;
    w.words = {"embeddings.word_embeddings"};
    w.positions = "embeddings.position_embeddings";
    w.types = "embeddings.token_type_embeddings";
    w.norm = "embeddings.LayerNorm";
    c.vocab = k.count("vocab_size", roberta && c.arch == "roberta" ? 50265 : 30522);
    w.positionRows = k.count("max_position_embeddings", 512);
    w.typeRows = k.count("type_vocab_size", 2);
    w.padToken = k.count("pad_token_id", roberta ? 1 : 0, -1);
    w.positionsCountNonPad = roberta;
    c.maxPositions = w.positionRows;
    if (roberta) {
        if (w.padToken < 0) k.fail("pad_token_id", "must be given: positions count from it");
        c.maxPositions -= w.padToken + 1;
        if (c.maxPositions < 1) k.fail("max_position_embeddings", "leaves no position");
    }
    e.head = roberta ? EncoderHead::RobertaMaskedLm : EncoderHead::BertMaskedLm;
    e.outputs = c.vocab;
    c.stacks = {{"", 0, t.layers, t.heads, t.headDim, false, Sequence::Text, Sequence::Text}};
}

void bert(Keys& k, const json&, ModelConfig& c, EncoderConfig& e) {
    bertLike(k, false, c, e);
}
void roberta(Keys& k, const json&, ModelConfig& c, EncoderConfig& e) {
    bertLike(k, true, c, e);
}

// --- images -------------------------------------------------------------------------------------

void imageEmbedding(Keys& k, Index size, Index patch, ImageEmbedding& image) {
    std::tie(image.height, image.width) = k.pair("image_size", size);
    const auto [ph, pw] = k.pair("patch_size", patch);
    if (ph != pw) k.refuse("patches that are not square are not supported");
    image.patch = ph;
    image.channels = k.count("num_channels", 3);
    if (image.channels != 3)
        k.refuse("num_channels " + std::to_string(image.channels) + " is not supported (3 is)");
    if (image.height < image.patch || image.width < image.patch)
        k.fail("image_size", "must be at least patch_size");
}

void vit(Keys& k, const json& object, ModelConfig& c, EncoderConfig& e) {
    e.prefixes = {"vit.", ""};
    Tower& t = e.vision;
    t.preNorm = true;
    t.hidden = k.count("hidden_size", 768);
    t.layers = layersOf(k, "num_hidden_layers", 12);
    setHeads(k, "num_attention_heads", 12, t);
    t.intermediate = k.count("intermediate_size", 3072);
    t.activation = k.activation("hidden_act", "gelu");
    t.normEps = k.positive("layer_norm_eps", 1e-12);
    t.qkvBias = k.flag("qkv_bias", true);
    t.finalNorm = "layernorm";
    t.names = {{"encoder.layer.#.", "attention.attention.query", "attention.attention.key",
                "attention.attention.value", "attention.output.dense", "layernorm_before",
                "intermediate.dense", "output.dense", "layernorm_after"},
               {"layers.#.", "attention.q_proj", "attention.k_proj", "attention.v_proj",
                "attention.o_proj", "layernorm_before", "mlp.fc1", "mlp.fc2", "layernorm_after"}};
    imageEmbedding(k, 224, 16, e.image);
    e.image.patches = "embeddings.patch_embeddings.projection";
    e.image.classToken = "embeddings.cls_token";
    e.image.positions = "embeddings.position_embeddings";
    e.head = EncoderHead::ImageClasses;
    const json& labels = object.contains("id2label") ? object["id2label"] : json();
    e.outputs =
        labels.is_object() && !labels.empty() ? Index(labels.size()) : k.count("num_labels", 2);
    c.stacks = {{"", 0, t.layers, t.heads, t.headDim, false, Sequence::Image, Sequence::Image}};
}

// --- clip ---------------------------------------------------------------------------------------

BlockNames clipNames() {
    return {"encoder.layers.#.",  "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",
            "self_attn.out_proj", "layer_norm1",      "mlp.fc1",          "mlp.fc2",
            "layer_norm2"};
}

/// Old files hold a complete second description beside text_config; it wins.
const json& clipPart(const json& object, const std::string& name, const std::string& where) {
    static const json kEmpty = json::object();
    for (const std::string& key : {name + "_dict", name})
        if (object.contains(key) && !object[key].is_null()) {
            if (!object[key].is_object())
                throw Error(Errc::Format, where + ": " + key + " must be an object");
            return object[key];
        }
    return kEmpty;
}

void clipTower(Keys& k, Tower& t, Index hidden, Index intermediate, Index heads) {
    t.preNorm = true;
    t.hidden = k.count("hidden_size", hidden);
    t.layers = layersOf(k, "num_hidden_layers", 12);
    setHeads(k, "num_attention_heads", heads, t);
    t.intermediate = k.count("intermediate_size", intermediate);
    t.activation = k.activation("hidden_act", "quick_gelu");
    t.normEps = k.positive("layer_norm_eps", 1e-5);
    t.names = {clipNames()};
}

void clipText(const json& object, const std::string& where, ModelConfig& c, EncoderConfig& e) {
    Keys k(object, where, c.notes);
    k.refuseVariants(c.arch);
    Tower& t = e.text;
    clipTower(k, t, 512, 2048, 8);
    t.prefix = "text_model.";
    t.causal = true;
    t.finalNorm = "final_layer_norm";
    e.words.words = {"embeddings.token_embedding"};
    e.words.positions = "embeddings.position_embedding";
    c.vocab = k.count("vocab_size", 49408);
    c.maxPositions = e.words.positionRows = k.count("max_position_embeddings", 77);
    const Index eos = k.count("eos_token_id", 49407, 0);
    e.poolToken = eos;
    e.poolLargest = eos == 2;
    k.has("pad_token_id");
    k.noteUnread();
}

void clipVision(const json& object, const std::string& where, ModelConfig& c, EncoderConfig& e) {
    Keys k(object, where, c.notes);
    k.refuseVariants(c.arch);
    Tower& t = e.vision;
    clipTower(k, t, 768, 3072, 12);
    t.prefix = "vision_model.";
    t.finalNorm = "post_layernorm";
    imageEmbedding(k, 224, 32, e.image);
    e.image.patches = "embeddings.patch_embedding";
    e.image.patchBias = false;
    e.image.classToken = "embeddings.class_embedding";
    e.image.positions = "embeddings.position_embedding";
    e.image.norm = "pre_layrnorm";
    k.noteUnread();
}

void clip(Keys& k, const json& object, ModelConfig& c, EncoderConfig& e) {
    e.prefixes = {"clip.", ""};
    const std::string& where = k.where();
    const bool onlyText = c.arch == "clip_text_model", onlyVision = c.arch == "clip_vision_model";
    if (!onlyVision)
        clipText(onlyText ? object : clipPart(object, "text_config", where),
                 onlyText ? where : where + ": text_config", c, e);
    if (!onlyText)
        clipVision(onlyVision ? object : clipPart(object, "vision_config", where),
                   onlyVision ? where : where + ": vision_config", c, e);
    e.head = EncoderHead::ClipProjection;
    e.outputs = k.count("projection_dim", 512);
    Index first = 0;
    if (e.text.layers > 0) {
        c.stacks.push_back({"text", 0, e.text.layers, e.text.heads, e.text.headDim, true,
                            Sequence::Text, Sequence::Text});
        first = e.text.layers;
    }
    if (e.vision.layers > 0)
        c.stacks.push_back({"vision", first, e.vision.layers, e.vision.heads, e.vision.headDim,
                            false, Sequence::Image, Sequence::Image});
}

// --- encoder-decoders ---------------------------------------------------------------------------

void encoderDecoderStacks(const EncoderConfig& e, ModelConfig& c) {
    const Tower &t = e.text, &d = e.decoder;
    c.stacks = {{"enc", 0, t.layers, t.heads, t.headDim, false, Sequence::Text, Sequence::Text}};
    if (d.layers == 0) return;
    c.stacks.push_back({"dec", t.layers, d.layers, d.heads, d.headDim, true, Sequence::Decoder,
                        Sequence::Decoder});
    c.stacks.push_back({"cross", t.layers + d.layers, d.layers, d.heads, d.headDim, false,
                        Sequence::Decoder, Sequence::Text});
}

void t5(Keys& k, const json&, ModelConfig& c, EncoderConfig& e) {
    const bool multilingual = c.arch == "mt5";
    e.prefixes = {"", "transformer."};
    Tower& t = e.text;
    t.prefix = "encoder.";
    t.hidden = k.count("d_model", 512);
    t.layers = layersOf(k, "num_layers", multilingual ? 8 : 6);
    t.heads = k.count("num_heads", multilingual ? 6 : 8, 1, 4096);
    t.headDim = k.count("d_kv", 64);
    t.intermediate = k.count("d_ff", multilingual ? 1024 : 2048);
    t.normEps = k.positive("layer_norm_epsilon", 1e-6);
    t.preNorm = t.rmsNorm = t.relativeBias = true;
    t.bias = t.qkvBias = false;
    t.finalNorm = "final_layer_norm";
    const std::string kind = k.text("feed_forward_proj", multilingual ? "gated-gelu" : "relu");
    const bool gated = kind.starts_with("gated-");
    const std::string act = gated ? kind.substr(6) : kind;
    static const std::vector<std::string> known = {"relu",       "gelu",          "silu",
                                                   "gelu_new",   "gated-gelu",    "gated-silu",
                                                   "gated-relu", "gated-gelu_new"};
    if (std::find(known.begin(), known.end(), kind) == known.end())
        k.refuse("feed_forward_proj \"" + kind + "\" is not supported (" +
                 supportedSentence(kind, known) + ")");
    t.activation = kind == "gated-gelu" ? "gelu_new" : act;
    const auto names = [&](const std::string& mlp) {
        const std::string ff = "layer." + mlp + ".";
        BlockNames n{"block.#.",
                     "layer.0.SelfAttention.q",
                     "layer.0.SelfAttention.k",
                     "layer.0.SelfAttention.v",
                     "layer.0.SelfAttention.o",
                     "layer.0.layer_norm",
                     ff + (gated ? "DenseReluDense.wi_1" : "DenseReluDense.wi"),
                     ff + "DenseReluDense.wo",
                     ff + "layer_norm"};
        if (gated) n.gate = ff + "DenseReluDense.wi_0";
        return n;
    };
    t.names = {names("1")};
    c.vocab = k.count("vocab_size", multilingual ? 250112 : 32128);
    e.buckets = k.count("relative_attention_num_buckets", 32, 4, 65536);
    e.maxDistance = k.count("relative_attention_max_distance", 128, 1);
    if (e.maxDistance <= e.buckets / 2)
        k.fail("relative_attention_num_buckets",
               "must be less than twice relative_attention_max_distance");
    e.words.words = {"encoder.embed_tokens", "shared"};  // a tower's own, where both are there
    const bool scaled =
        k.flag("scale_decoder_outputs", k.flag("tie_word_embeddings", true)) && !multilingual;
    if (!architectureIs(k, "EncoderModel")) {
        Tower& d = e.decoder;
        d = t;
        d.prefix = "decoder.";
        d.causal = true;
        d.layers = k.has("num_decoder_layers") ? layersOf(k, "num_decoder_layers", 1) : t.layers;
        d.names = {names("2")};
        BlockNames& n = d.names[0];
        n.crossQ = "layer.1.EncDecAttention.q";
        n.crossK = "layer.1.EncDecAttention.k";
        n.crossV = "layer.1.EncDecAttention.v";
        n.crossO = "layer.1.EncDecAttention.o";
        n.crossNorm = "layer.1.layer_norm";
        e.decoderWords.words = {"decoder.embed_tokens", "shared"};
        e.head = EncoderHead::LanguageModel;
        e.outputs = c.vocab;
        if (scaled) e.logitsScale = 1.0 / std::sqrt(double(t.hidden));
        e.startToken = k.count("decoder_start_token_id", 0, 0, c.vocab - 1);
    }
    k.has("pad_token_id");
    k.has("num_decoder_layers");
    k.has("decoder_start_token_id");
    encoderDecoderStacks(e, c);
}

void bart(Keys& k, const json&, ModelConfig& c, EncoderConfig& e) {
    e.prefixes = {"model.", ""};
    const Index hidden = k.count("d_model", 1024);
    const std::string act = k.activation("activation_function", "gelu");
    c.vocab = k.count("vocab_size", 50265);
    c.maxPositions = k.count("max_position_embeddings", 1024);
    const bool scale = k.flag("scale_embedding", false);
    const auto tower = [&](const std::string& side, bool decoder) {
        Tower t;
        t.prefix = side + ".";
        t.hidden = hidden;
        t.layers = layersOf(k, (side + "_layers").c_str(), 12);
        setHeads(k, (side + "_attention_heads").c_str(), 16, t);
        t.intermediate = k.count((side + "_ffn_dim").c_str(), 4096);
        t.activation = act;
        t.normEps = 1e-5;
        t.causal = decoder;
        BlockNames n{"layers.#.",
                     "self_attn.q_proj",
                     "self_attn.k_proj",
                     "self_attn.v_proj",
                     "self_attn.out_proj",
                     "self_attn_layer_norm",
                     "fc1",
                     "fc2",
                     "final_layer_norm"};
        if (decoder) {
            n.crossQ = "encoder_attn.q_proj";
            n.crossK = "encoder_attn.k_proj";
            n.crossV = "encoder_attn.v_proj";
            n.crossO = "encoder_attn.out_proj";
            n.crossNorm = "encoder_attn_layer_norm";
        }
        t.names = {n};
        return t;
    };
    const auto words = [&](const std::string& side) {
        TextEmbedding w;
        w.words = {side + ".embed_tokens", "shared"};
        w.positions = side + ".embed_positions";
        w.norm = side + ".layernorm_embedding";
        w.positionRows = c.maxPositions + 2;
        w.positionOffset = 2;
        w.scale = scale ? std::sqrt(double(hidden)) : 1.0;
        return w;
    };
    e.text = tower("encoder", false);
    e.decoder = tower("decoder", true);
    e.words = words("encoder");
    e.decoderWords = words("decoder");
    e.head = EncoderHead::LanguageModel;
    e.outputs = c.vocab;
    e.startToken = k.count("decoder_start_token_id", 2, 0, c.vocab - 1);
    k.has("pad_token_id");
    encoderDecoderStacks(e, c);
}

struct Row {
    const char *type, *title;
    void (*parse)(Keys&, const json&, ModelConfig&, EncoderConfig&);
};
// To add an encoder: a row here and its parse function, which says how its tensors are called and
// where its block differs.
constexpr Row kRows[] = {
    {"bert", "BERT and sentence embeddings made of it", bert},
    {"roberta", "RoBERTa", roberta},
    {"xlm-roberta", "XLM-RoBERTa", roberta},
    {"camembert", "CamemBERT", roberta},
    {"vit", "Vision Transformer", vit},
    {"clip", "CLIP, text and vision", clip},
    {"clip_text_model", "CLIP's text tower", clip},
    {"clip_vision_model", "CLIP's vision tower", clip},
    {"t5", "T5, T5 v1.1, FLAN-T5", t5},
    {"mt5", "mT5", t5},
    {"bart", "BART", bart},
};

const Row* rowOf(const std::string& modelType) {
    for (const Row& row : kRows)
        if (row.type == modelType) return &row;
    return nullptr;
}

void readEos(const json& object, ModelConfig& c) {
    const auto add = [&](const json& id) {
        if (id.is_number_integer() && id.get<std::int64_t>() >= 0 &&
            id.get<std::int64_t>() < c.vocab)
            c.eosTokens.push_back(id.get<std::int32_t>());
    };
    if (!object.contains("eos_token_id")) return;
    const json& eos = object["eos_token_id"];
    if (eos.is_array())
        for (const json& id : eos) add(id);
    else
        add(eos);
}

}  // namespace

const Tower& towerOf(const EncoderConfig& config, const AttentionStack& stack) {
    switch (stack.queries) {
        case Sequence::Image:
            return config.vision;
        case Sequence::Decoder:
            return config.decoder;
        default:
            return config.text;
    }
}

Index relativeBucket(Index distance, bool bidirectional, Index buckets, Index maxDistance) {
    Index base = 0;
    if (bidirectional) {
        buckets /= 2;
        if (distance > 0) base = buckets;
        distance = std::abs(distance);
    } else {
        distance = std::max<Index>(-distance, 0);
    }
    const Index exact = buckets / 2;
    if (distance < exact) return base + distance;
    // In float32, as the reference rounds: a boundary must not fall into the other bucket.
    const float share = std::log(float(distance) / float(exact)) /
                        float(std::log(double(maxDistance) / double(exact)));
    const Index large = exact + Index(share * float(buckets - exact));
    return base + std::min(large, buckets - 1);
}

std::vector<Architecture> encoderArchitectures() {
    std::vector<Architecture> list;
    for (const Row& row : kRows) {
        Architecture& a = list.emplace_back();
        a.modelType = row.type;
        a.title = row.title;
    }
    return list;
}

bool isEncoder(const std::string& modelType) {
    return rowOf(modelType) != nullptr;
}

void parseEncoder(const json& object, const std::string& where, ModelConfig& c) {
    auto e = std::make_shared<EncoderConfig>();
    Keys k(object, where, c.notes);
    k.refuseVariants(c.arch);
    const std::string v4 = k.text("torch_dtype", "float32");
    c.dtype = k.text("dtype", v4);
    if (c.dtype.starts_with("torch.")) c.dtype.erase(0, 6);
    if (k.has("auto_map"))
        c.notes.push_back(
            "auto_map (code of the repository) is not run; the model is taken as "
            "plain " +
            c.arch);
    const Row& row = *rowOf(c.arch);
    row.parse(k, object, c, *e);
    for (const char* part : {"text_config", "vision_config"}) k.has(part);
    if (c.arch == "clip" || (c.arch != "clip_text_model" && c.arch != "clip_vision_model"))
        k.noteUnread();
    readEos(object, c);

    const Tower& main = e->text.layers > 0 ? e->text : e->vision;
    c.hidden = main.hidden;
    c.intermediate = main.intermediate;
    c.activation = main.activation;
    c.normEps = main.normEps;
    c.rope.kind = "none";
    c.layers = 0;
    for (const AttentionStack& s : c.stacks) {
        c.layers += s.layers;
        c.heads = std::max(c.heads, s.heads);
    }
    c.kvHeads = c.heads;
    c.headDim = c.stacks.front().headDim;
    c.encoder = std::move(e);
}

}  // namespace sparsight
