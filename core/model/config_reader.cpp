#include "core/model/config_reader.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/model/nearest.h"
#include "kernels/base/error.h"

namespace sparsight {
namespace {

using nlohmann::json;

// Keys that describe training, generation or the file itself: not worth a note.
const std::set<std::string> kSilent = {"architectures",
                                       "_name_or_path",
                                       "transformers_version",
                                       "use_cache",
                                       "cache_implementation",
                                       "initializer_range",
                                       "init_std",
                                       "attention_dropout",
                                       "attn_pdrop",
                                       "embd_pdrop",
                                       "resid_pdrop",
                                       "dropout",
                                       "layerdrop",
                                       "activation_dropout",
                                       "classifier_dropout",
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
                                       "transformers_weights",
                                       "output_router_logits",
                                       "router_aux_loss_coef",
                                       "router_jitter_noise",
                                       "reorder_and_upcast_attn",
                                       "summary_activation",
                                       "summary_first_dropout",
                                       "summary_proj_to_labels",
                                       "summary_type",
                                       "summary_use_proj",
                                       "is_decoder",
                                       "_attn_implementation_autoset"};

bool isNull(const json& j, const std::string& key) {
    return !j.contains(key) || j[key].is_null();
}

}  // namespace

std::string spell(double v) {
    if (!std::isfinite(v)) return std::isnan(v) ? "NaN" : v > 0 ? "Infinity" : "-Infinity";
    if (v == std::floor(v) && std::abs(v) < 1e15) return std::to_string(std::int64_t(v));
    return json(v).dump();
}

std::string ConfigReader::spelled(const std::string& key) const {
    const auto own = m_spellings.find(key);
    return own != m_spellings.end() && m_object.contains(own->second) ? own->second : key;
}

double ConfigReader::number(const std::string& wanted, double fallback, bool noteDefault) {
    const std::string key = spelled(wanted);
    m_seen.insert(key);
    if (isNull(m_object, key)) {
        if (noteDefault) note(key + " not given: " + spell(fallback));
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

double ConfigReader::positive(const std::string& key, double fallback, bool noteDefault) {
    const double v = number(key, fallback, noteDefault);
    if (!(v > 0) || !std::isfinite(v)) fail(spelled(key), "must be above 0, not " + spell(v));
    return v;
}

Index ConfigReader::count(const std::string& key, Index fallback, bool noteDefault) {
    const double v = number(key, double(fallback), noteDefault);
    if (!(v >= 1 && v <= 2147483647.0) || v != std::floor(v))
        fail(spelled(key), "must be a whole number from 1 to 2147483647, not " + spell(v));
    return Index(v);
}

Index ConfigReader::countOrZero(const std::string& key, Index fallback) {
    const double v = number(key, double(fallback), false);
    if (!(v >= 0 && v <= 2147483647.0) || v != std::floor(v))
        fail(spelled(key), "must be a whole number from 0 to 2147483647, not " + spell(v));
    return Index(v);
}

bool ConfigReader::flag(const std::string& wanted, bool fallback) {
    const std::string key = spelled(wanted);
    m_seen.insert(key);
    if (isNull(m_object, key)) return fallback;
    if (!m_object[key].is_boolean()) fail(key, "must be true or false");
    return m_object[key].get<bool>();
}

std::string ConfigReader::text(const std::string& wanted, const std::string& fallback,
                               bool noteDefault) {
    const std::string key = spelled(wanted);
    m_seen.insert(key);
    if (isNull(m_object, key)) {
        if (noteDefault) note(key + " not given: " + fallback);
        return fallback;
    }
    if (!m_object[key].is_string()) fail(key, "must be a string");
    return m_object[key].get<std::string>();
}

std::vector<double> ConfigReader::numbers(const std::string& wanted) {
    const std::string key = spelled(wanted);
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

std::vector<std::string> ConfigReader::texts(const std::string& wanted) {
    const std::string key = spelled(wanted);
    m_seen.insert(key);
    std::vector<std::string> out;
    if (isNull(m_object, key)) return out;
    if (!m_object[key].is_array()) fail(key, "must be a list of strings");
    for (const json& v : m_object[key]) {
        if (!v.is_string()) fail(key, "must be a list of strings");
        out.push_back(v.get<std::string>());
    }
    return out;
}

bool ConfigReader::has(const std::string& key) {
    m_seen.insert(spelled(key));
    return !isNull(m_object, spelled(key));
}

bool ConfigReader::given(const std::string& key) {
    m_seen.insert(spelled(key));
    return m_object.contains(spelled(key));
}

void ConfigReader::noteUnread() const {
    for (const auto& [key, value] : m_object.items())
        if (!m_seen.contains(key) && !kSilent.contains(key)) note("key ignored: " + key);
}

void ConfigReader::fail(const std::string& key, const std::string& rule) const {
    throw Error(Errc::Format, m_where + ": " + key + " " + rule);
}

void ConfigReader::unsupported(const std::string& what) const {
    throw Error(Errc::Unsupported, m_where + ": " + what);
}

std::string checkedActivation(const ConfigReader& reader, const std::string& key,
                              std::string kind) {
    if (kind == "swish") kind = "silu";
    static const std::vector<std::string> known = {
        "silu",      "gelu",       "gelu_new", "gelu_pytorch_tanh",
        "gelu_fast", "quick_gelu", "relu",     "relu2"};
    if (std::find(known.begin(), known.end(), kind) == known.end())
        reader.unsupported(reader.spelled(key) + " \"" + kind + "\" is not supported (" +
                           supportedSentence(kind, known) + ")");
    return kind;
}

std::vector<std::int32_t> readEosTokens(const json& value, Index vocab, const std::string& where,
                                        std::vector<std::string>& notes) {
    std::vector<std::int32_t> out;
    const auto add = [&](const json& id) {
        if (!id.is_number_integer())
            throw Error(Errc::Format,
                        where + ": eos_token_id must be a token id or a list of them");
        const auto v = id.get<std::int64_t>();
        // Leftovers of bigger models occur; a token that cannot be produced ends nothing.
        if (v < 0 || v >= vocab)
            notes.push_back("eos_token_id " + std::to_string(v) + " is outside the vocabulary");
        else
            out.push_back(std::int32_t(v));
    };
    if (value.is_array())
        for (const json& id : value) add(id);
    else if (!value.is_null())
        add(value);
    return out;
}

}  // namespace sparsight
