#pragma once

#include <filesystem>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>

namespace sparsight {

/// A model's chat template: the subset of Jinja that public templates use (model-formats.md 6).
/// Immutable, safe in parallel.
class ChatTemplate {
public:
    /// The template of a model directory: chat_template.jinja, else chat_template.json, else
    /// `chat_template` of tokenizer_config.json (of a list of named ones the "default").
    /// @throws Error(NotFound) when the model has none; Error(Unsupported), Error(Format)
    static ChatTemplate load(const std::filesystem::path& modelDirectory);
    /// True when load() would find one.
    static bool exists(const std::filesystem::path& modelDirectory);

    /// @param source  Jinja text
    /// @param tokens  object of further variables, as {"bos_token": "<s>"}
    /// @param where   for messages
    ChatTemplate(const std::string& source, const nlohmann::ordered_json& tokens,
                 const std::string& where);

    /// The prompt of a conversation.
    /// @param messages  list of {"role": ..., "content": ...}, in any order of keys
    /// @param addGenerationPrompt  end with what begins the model's answer
    /// @throws Error(Unsupported) when the template uses what is not interpreted, with its line;
    ///         Error(Format) with the template's own words when it refuses the conversation
    std::string render(const nlohmann::ordered_json& messages,
                       bool addGenerationPrompt = true) const;

    struct Impl;

private:
    std::shared_ptr<const Impl> m_impl;
};

/// A conversation from JSON text: a list of messages, or an object with such a list as "messages".
/// @throws Error(Format)
nlohmann::ordered_json parseChat(const std::string& json, const std::string& where);

/// The prompt that a conversation (JSON text) makes with the template of a model directory. The
/// template writes the special tokens itself: encode it without adding them again.
std::string chatPrompt(const std::filesystem::path& modelDirectory, const std::string& json,
                       const std::string& where);

}  // namespace sparsight
