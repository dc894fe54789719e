#include "core/model/config.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "core/model/json_input.h"
#include "core/model/nearest.h"
#include "core/model/rope.h"
#include "core/model/sha256.h"
#include "kernels/base/error.h"

namespace sparsight {
namespace {

using nlohmann::json;

constexpr std::size_t kMaxConfigBytes = 16u << 20;

// Keys that describe training, generation or the file itself: not worth a note.
const std::set<std::string> kSilent = {"architectures",
                                       "_name_or_path",
                                       "transformers_version",
                                       "use_cache",
                                       "initializer_range",
                                       "attention_dropout",
                                       "bos_token_id",
                                       "pad_token_id",
                                       "pretraining_tp",
                                       "id2label",
                                       "label2id",
                                       "output_attentions",
                                       "output_hidden_states",
                                       "return_dict",
                                       "hidden_dropout",
                                       "torchscript",
                                       "attention_probs_dropout_prob",
                                       "hidden_dropout_prob",
                                       "transformers_weights"};

bool isNull(const json& j, const char* key) {
    return !j.contains(key) || j[key].is_null();
}

/// Reads keys of one object, remembers which were looked at and which were missing.
class Reader {
public:
    Reader(const json& object, std::string where, std::vector<std::string>& notes)
        : m_object(object), m_where(std::move(where)), m_notes(notes) {}

    double number(const char* key, double fallback, bool noteDefault = true) {
        m_seen.insert(key);
        if (isNull(m_object, key)) {
            if (noteDefault) note(std::string(key) + " not given: " + spell(fallback));
            return fallback;
        }
        const json& v = m_object[key];
        if (v.is_number()) return v.get<double>();
        if (v.is_object() && v.contains("__float__") && v["__float__"].is_string()) {
            const auto text = v["__float__"].get<std::string>();
            if (text == "Infinity") return std::numeric_limits<double>::infinity();
            if (text == "-Infinity") return -std::numeric_limits<double>::infinity();
        }
        fail(key, "must be a number, not " + v.dump(-1, ' ', true).substr(0, 60));
    }
    double positive(const char* key, double fallback, bool noteDefault = true) {
        const double v = number(key, fallback, noteDefault);
        if (!(v > 0) || !std::isfinite(v)) fail(key, "must be above 0, not " + spell(v));
        return v;
    }
    Index count(const char* key, Index fallback, bool noteDefault = true) {
        const double v = number(key, double(fallback), noteDefault);
        if (!(v >= 1 && v <= 2147483647.0) || v != std::floor(v))
            fail(key, "must be a whole number from 1 to 2147483647, not " + spell(v));
        return Index(v);
    }
    bool flag(const char* key, bool fallback) {
        m_seen.insert(key);
        if (isNull(m_object, key)) return fallback;
        if (!m_object[key].is_boolean()) fail(key, "must be true or false");
        return m_object[key].get<bool>();
    }
    std::string text(const char* key, const std::string& fallback, bool noteDefault = true) {
        m_seen.insert(key);
        if (isNull(m_object, key)) {
            if (noteDefault) note(std::string(key) + " not given: " + fallback);
            return fallback;
        }
        if (!m_object[key].is_string()) fail(key, "must be a string");
        return m_object[key].get<std::string>();
    }
    std::vector<double> numbers(const char* key) {
        m_seen.insert(key);
        std::vector<double> out;
        if (isNull(m_object, key)) return out;
        if (!m_object[key].is_array()) fail(key, "must be a list of numbers");
        for (const json& v : m_object[key]) {
            if (!v.is_number()) fail(key, "must be a list of numbers");
            out.push_back(v.get<double>());
        }
        return out;
    }
    bool has(const char* key) {
        m_seen.insert(key);
        return !isNull(m_object, key);
    }
    const json& at(const char* key) const { return m_object[key]; }
    void note(const std::string& sentence) const { m_notes.push_back(sentence); }
    void noteUnread() const {
        for (const auto& [key, value] : m_object.items())
            if (!m_seen.contains(key) && !kSilent.contains(key)) note("key ignored: " + key);
    }
    [[noreturn]] void fail(const std::string& key, const std::string& rule) const {
        throw Error(Errc::Format, m_where + ": " + key + " " + rule);
    }

private:
    static std::string spell(double v) { return json(v).dump(); }

    const json& m_object;
    std::string m_where;
    std::vector<std::string>& m_notes;
    std::set<std::string> m_seen;
};

[[noreturn]] void unsupported(const std::string& where, const std::string& what) {
    throw Error(Errc::Unsupported, where + ": " + what);
}

RopeConfig readRope(Reader& top, const Architecture& arch, const std::string& where,
                    Index maxPositions, std::vector<std::string>& notes) {
    RopeConfig rope;
    rope.maxPositions = double(maxPositions);
    rope.interleaved = arch.interleavedRope;
    // v4 writes rope_scaling, v5 rope_parameters; a non-null rope_scaling wins.
    const bool v5 = top.has("rope_parameters"), v4 = top.has("rope_scaling");
    static const json kEmpty = json::object();
    const char* key = v4 ? "rope_scaling" : "rope_parameters";
    const json& object = v4 || v5 ? top.at(key) : kEmpty;
    if (!object.is_object()) top.fail(key, "must be an object");
    for (const auto& [name, value] : object.items())
        if (value.is_object() && !value.contains("__float__"))
            unsupported(where, std::string(key) + " differs by layer type (" + name +
                                   "), which architecture " + arch.modelType + " does not have");
    Reader r(object, where + ": " + key, notes);
    rope.kind = r.text("rope_type", r.text("type", "default", false), false);
    if (rope.kind == "su") rope.kind = "longrope";
    if (rope.kind == "mrope") rope.kind = "default";  // equal for text alone
    rope.theta =
        r.has("rope_theta") ? r.positive("rope_theta", 0) : top.positive("rope_theta", arch.theta);
    top.has("rope_theta");
    rope.partial = r.has("partial_rotary_factor")
                       ? r.positive("partial_rotary_factor", 1)
                       : top.positive("partial_rotary_factor", arch.partial, false);
    if (rope.partial > 1) top.fail("partial_rotary_factor", "must be at most 1");

    static const std::vector<std::string> kinds = {"default", "linear", "dynamic",
                                                   "llama3",  "yarn",   "longrope"};
    if (std::find(kinds.begin(), kinds.end(), rope.kind) == kinds.end())
        unsupported(where, "rope_type \"" + rope.kind + "\" is not supported (" +
                               supportedSentence(rope.kind, kinds) + ")");
    if (rope.kind == "default") return rope;

    const bool mayDerive = rope.kind == "yarn" || rope.kind == "longrope";
    if (r.has("factor"))
        rope.factor = r.positive("factor", 1);
    else if (mayDerive)
        rope.factor = 0;
    else
        r.fail("factor", "is missing (rope_type " + rope.kind + " needs it)");
    if (top.has("original_max_position_embeddings"))
        rope.originalMaxPositions = top.positive("original_max_position_embeddings", 0);
    else
        rope.originalMaxPositions =
            r.positive("original_max_position_embeddings", double(maxPositions), false);
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

void readEos(ModelConfig& c, const json& value, const std::string& where) {
    if (value.is_null()) return;
    c.eosTokens.clear();
    const auto add = [&](const json& id) {
        if (!id.is_number_integer())
            throw Error(Errc::Format,
                        where + ": eos_token_id must be a token id or a list of them");
        const auto v = id.get<std::int64_t>();
        // Leftovers of bigger models occur; a token that cannot be produced ends nothing.
        if (v < 0 || v >= c.vocab)
            c.notes.push_back("eos_token_id " + std::to_string(v) + " is outside the vocabulary");
        else
            c.eosTokens.push_back(std::int32_t(v));
    };
    if (value.is_array())
        for (const json& id : value) add(id);
    else
        add(value);
}

void refuseUnrunnable(Reader& r, const json& j, const ModelConfig& c, const Architecture& arch,
                      const std::string& where) {
    if (r.has("quantization_config")) {
        const json& q = j["quantization_config"];
        const std::string method =
            q.is_object() && q.contains("quant_method") && q["quant_method"].is_string()
                ? q["quant_method"].get<std::string>()
                : "unnamed";
        unsupported(where, "weights quantised by \"" + method +
                               "\" are not supported (supported: float32, float16, bfloat16): use "
                               "the unquantised model");
    }
    if (r.has("per_layer_config")) unsupported(where, "per_layer_config is not supported");
    if (r.has("layer_types")) {
        const json& types = j["layer_types"];
        if (!types.is_array() || Index(types.size()) != c.layers)
            r.fail("layer_types",
                   "must list one type for each of the " + std::to_string(c.layers) + " layers");
        for (std::size_t l = 0; l < types.size(); ++l)
            if (types[l] != "full_attention" && types[l] != "attention")
                unsupported(where, "layer " + std::to_string(l) + " has type " +
                                       types[l].dump(-1, ' ', true).substr(0, 60) +
                                       ", which architecture " + arch.modelType +
                                       " does not have here (supported: full_attention)");
    }
    if (r.has("sliding_window") && !arch.slidingWindow)
        r.note("sliding_window ignored: architecture " + arch.modelType + " has none");
    if (r.has("auto_map"))
        r.note("auto_map (code of the repository) is not run; the model is taken as plain " +
               arch.modelType);
}

}  // namespace

double ModelConfig::scale() const {
    return 1.0 / std::sqrt(double(headDim));
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
        if (g.is_object() && g.contains("eos_token_id"))
            readEos(c, g["eos_token_id"], generation.string());
    }
    return c;
}

ModelConfig parseConfig(std::string text, const std::string& name, const std::string& where) {
    ModelConfig c;
    c.json = std::move(text);
    c.sha256 = sha256Hex(c.json);
    c.name = name;

    const json j = parseJson(c.json, where, true);
    if (!j.is_object()) throw Error(Errc::Format, where + ": must be a JSON object");
    Reader r(j, where, c.notes);
    c.arch = r.text("model_type", "", false);
    const std::vector<Architecture> table = architectures();
    const auto row = std::find_if(table.begin(), table.end(),
                                  [&](const Architecture& a) { return a.modelType == c.arch; });
    if (row == table.end()) {
        std::vector<std::string> names;
        for (const Architecture& a : table) names.push_back(a.modelType);
        unsupported(where, (c.arch.empty() ? std::string("no model_type is given")
                                           : "architecture \"" + c.arch + "\" is not supported") +
                               " (" + supportedSentence(c.arch, names) + ")");
    }
    const Architecture& arch = *row;
    c.vocab = r.count("vocab_size", arch.vocab);
    c.hidden = r.count("hidden_size", arch.hidden);
    c.intermediate = r.count("intermediate_size", arch.intermediate);
    c.layers = r.count("num_hidden_layers", arch.layers);
    c.heads = r.count("num_attention_heads", arch.heads);
    if (c.layers > 4096)
        r.fail("num_hidden_layers", "is " + std::to_string(c.layers) + "; at most 4096 are read");
    c.kvHeads = r.count("num_key_value_heads", arch.kvHeads > 0 ? arch.kvHeads : c.heads, false);
    if (c.heads % c.kvHeads != 0)
        r.fail("num_key_value_heads", "(" + std::to_string(c.kvHeads) +
                                          ") must divide num_attention_heads (" +
                                          std::to_string(c.heads) + ")");
    if (!r.has("head_dim") && arch.headDim == 0 && c.hidden % c.heads != 0)
        r.fail("hidden_size",
               "must be a multiple of num_attention_heads when head_dim is not given");
    c.headDim =
        r.count("head_dim",
                arch.headDim > 0 ? arch.headDim : std::max<Index>(1, c.hidden / c.heads), false);
    c.maxPositions = r.count("max_position_embeddings", arch.maxPositions);
    c.normEps = r.positive("rms_norm_eps", arch.normEps);
    c.rope = readRope(r, arch, where, c.maxPositions, c.notes);
    const Index turned = Index(double(c.headDim) * c.rope.partial);
    if (turned < 2 || turned % 2 != 0)
        r.fail("head_dim", "times the rotated share is " + std::to_string(turned) +
                               "; RoPE needs an even number above 0");
    if (c.rope.kind == "dynamic" && turned < 4)
        r.fail("head_dim", "must be at least 4 for dynamic RoPE");
    ropeTable(c.rope, c.headDim, 1);  // refuses lists of the wrong length here, not while running
    ropeTable(c.rope, c.headDim, std::numeric_limits<std::int32_t>::max());

    c.activation = r.text("hidden_act", arch.activation);
    if (c.activation == "swish") c.activation = "silu";
    static const std::vector<std::string> activations = {
        "silu",      "gelu",       "gelu_new", "gelu_pytorch_tanh",
        "gelu_fast", "quick_gelu", "relu",     "relu2"};
    if (std::find(activations.begin(), activations.end(), c.activation) == activations.end())
        unsupported(where, "hidden_act \"" + c.activation + "\" is not supported (" +
                               supportedSentence(c.activation, activations) + ")");
    c.attentionBias = r.flag("attention_bias", false);
    c.mlpBias = r.flag("mlp_bias", false);
    c.tiedEmbeddings = r.flag("tie_word_embeddings", arch.tiedEmbeddings);
    const std::string v4Type = r.text("torch_dtype", "float32", false);
    c.dtype = r.text("dtype", v4Type, false);
    if (c.dtype.starts_with("torch.")) c.dtype.erase(0, 6);
    refuseUnrunnable(r, j, c, arch, where);

    if (r.has("eos_token_id")) readEos(c, j["eos_token_id"], where);
    r.noteUnread();
    return c;
}

}  // namespace sparsight
