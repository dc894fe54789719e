#include "core/model/chat_template.h"

#include <nlohmann/json.hpp>
#include <optional>

#include "core/model/chat_template_renderer.h"
#include "core/model/json_input.h"
#include "core/model/tokenizer/unicode.h"
#include "kernels/base/error.h"

namespace sparsight {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

struct ChatTemplate::Impl {
    jinja::Block block;
    Json tokens;
    std::string where;
};

namespace {

constexpr std::size_t kMaxTemplate = 16u << 20;

/// Strings, and added tokens written as objects.
void addTokens(const nlohmann::json& config, Json& tokens) {
    if (!config.is_object()) return;
    for (const char* key : {"bos_token", "eos_token", "unk_token", "pad_token", "sep_token",
                            "cls_token", "mask_token"}) {
        if (!config.contains(key)) continue;
        const nlohmann::json& v = config[key];
        if (v.is_string()) tokens[key] = v.get<std::string>();
        if (v.is_object() && v.contains("content") && v["content"].is_string())
            tokens[key] = v["content"].get<std::string>();
    }
}

struct Source {
    std::string text, where;
    Json tokens = Json::object();
};

/// A template as a string, or a list of named ones.
std::optional<std::string> templateOf(const nlohmann::json& file, const std::string& where) {
    if (!file.is_object() || !file.contains("chat_template")) return std::nullopt;
    const nlohmann::json& t = file["chat_template"];
    if (t.is_null()) return std::nullopt;
    if (t.is_string()) return t.get<std::string>();
    if (t.is_array())
        for (const nlohmann::json& one : t)
            if (one.is_object() && one.value("name", nlohmann::json()) == "default" &&
                one.contains("template") && one["template"].is_string())
                return one["template"].get<std::string>();
    throw Error(Errc::Format, where +
                                  ": chat_template is neither a string nor a list with a "
                                  "template named \"default\"");
}

std::optional<Source> findTemplate(const fs::path& directory) {
    std::error_code code;
    Source s;
    nlohmann::json config;
    const fs::path configFile = directory / "tokenizer_config.json";
    if (fs::exists(configFile, code))
        config = parseJson(readTextFile(configFile, kMaxTemplate), configFile.string());
    const fs::path map = directory / "special_tokens_map.json";
    if (fs::exists(map, code))
        addTokens(parseJson(readTextFile(map, kMaxTemplate), map.string()), s.tokens);
    addTokens(config, s.tokens);
    const fs::path jinja = directory / "chat_template.jinja",
                   json = directory / "chat_template.json";
    if (fs::exists(jinja, code)) {
        s.text = readTextFile(jinja, kMaxTemplate);
        s.where = jinja.string();
        return s;
    }
    if (fs::exists(json, code)) {
        s.where = json.string();
        if (auto t = templateOf(parseJson(readTextFile(json, kMaxTemplate), s.where), s.where)) {
            s.text = std::move(*t);
            return s;
        }
    }
    s.where = configFile.string();
    auto t = templateOf(config, s.where);
    if (!t) return std::nullopt;
    s.text = std::move(*t);
    return s;
}

}  // namespace

ChatTemplate::ChatTemplate(const std::string& source, const Json& tokens,
                           const std::string& where) {
    if (text::firstInvalidUtf8(source) != std::string::npos)
        throw Error(Errc::Format, where + ": the chat template is not UTF-8");
    auto impl = std::make_shared<Impl>();
    impl->block = jinja::parse(source, where);
    impl->tokens = tokens;
    impl->where = where;
    m_impl = std::move(impl);
}

bool ChatTemplate::exists(const fs::path& modelDirectory) {
    return findTemplate(modelDirectory).has_value();
}

ChatTemplate ChatTemplate::load(const fs::path& modelDirectory) {
    const std::optional<Source> s = findTemplate(modelDirectory);
    if (!s)
        throw Error(Errc::NotFound, modelDirectory.string() +
                                        " has no chat template (chat_template.jinja, or "
                                        "chat_template in tokenizer_config.json): give the prompt "
                                        "as a text");
    return {s->text, s->tokens, s->where};
}

std::string ChatTemplate::render(const Json& messages, bool addGenerationPrompt) const {
    std::map<std::string, jinja::Value> globals;
    for (const char* name : {"raise_exception", "namespace", "range", "dict", "strftime_now"})
        globals[name] = jinja::Value::of(jinja::Function{name, nullptr});
    for (const auto& [name, token] : m_impl->tokens.items()) globals[name] = token;
    globals["messages"] = messages;
    globals["add_generation_prompt"] = Json(addGenerationPrompt);
    globals["tools"] = Json();
    globals["documents"] = Json();
    try {
        return jinja::Renderer(m_impl->where, std::move(globals)).run(m_impl->block);
    } catch (const nlohmann::json::exception& e) {
        throw Error(Errc::Format, m_impl->where + ": the chat template mixes types: " + e.what());
    }
}

Json parseChat(const std::string& json, const std::string& where) {
    parseJson(json, where);  // refuses duplicate keys and deep nesting
    Json chat = Json::parse(json);
    if (chat.is_object() && chat.contains("messages")) chat = Json(chat["messages"]);
    if (!chat.is_array() || chat.empty())
        throw Error(Errc::Format, where +
                                      ": a conversation is a list of messages, each "
                                      "{\"role\": \"user\", \"content\": \"...\"}");
    for (std::size_t i = 0; i < chat.size(); ++i)
        if (!chat[i].is_object() || !chat[i].contains("role") || !chat[i]["role"].is_string() ||
            !chat[i].contains("content"))
            throw Error(Errc::Format, where + ": message " + std::to_string(i + 1) +
                                          " needs a \"role\" (a string) and a \"content\"");
    return chat;
}

std::string chatPrompt(const fs::path& modelDirectory, const std::string& json,
                       const std::string& where) {
    return ChatTemplate::load(modelDirectory).render(parseChat(json, where));
}

}  // namespace sparsight
