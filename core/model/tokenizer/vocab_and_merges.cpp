#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>

#include "core/model/json_input.h"
#include "core/model/tokenizer/sentencepiece.h"
#include "kernels/base/error.h"

namespace sparsight {
namespace {

using nlohmann::json;

constexpr std::size_t kMaxFile = 256u << 20;
constexpr const char* kQwen2 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kClip =
    R"(<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+)";

json split(const char* pattern, const char* behavior, bool invert) {
    return {{"type", "Split"},
            {"pattern", {{"Regex", pattern}}},
            {"behavior", behavior},
            {"invert", invert}};
}

json byteLevel(bool useRegex) {
    return {{"type", "ByteLevel"},
            {"add_prefix_space", false},
            {"trim_offsets", true},
            {"use_regex", useRegex}};
}

std::vector<std::string> mergeLines(const std::string& text) {
    std::vector<std::string> lines;
    for (std::size_t at = 0; at < text.size();) {
        const std::size_t end = std::min(text.find('\n', at), text.size());
        std::string line = text.substr(at, end - at);
        if (line.ends_with('\r')) line.pop_back();
        if (!line.empty()) lines.push_back(std::move(line));
        at = end + 1;
    }
    return lines;
}

}  // namespace

json addedTokensOf(const json& config, const std::filesystem::path& directory) {
    json out = json::array();
    const auto add = [&](const std::string& content, const json& id, const json& from) {
        const auto flag = [&](const char* key) {
            return from.contains(key) && from[key].is_boolean() && from[key].get<bool>();
        };
        if (std::none_of(out.begin(), out.end(),
                         [&](const json& t) { return t["content"] == content; }))
            out.push_back({{"id", id},
                           {"content", content},
                           {"single_word", flag("single_word")},
                           {"lstrip", flag("lstrip")},
                           {"rstrip", flag("rstrip")},
                           {"normalized", flag("normalized")},
                           {"special", flag("special")}});
    };
    if (config.is_object() && config.contains("added_tokens_decoder") &&
        config["added_tokens_decoder"].is_object())
        for (const auto& [id, token] : config["added_tokens_decoder"].items()) {
            const bool number = !id.empty() && id.size() < 9 &&
                                id.find_first_not_of("0123456789") == std::string::npos;
            if (number && token.is_object() && token.contains("content") &&
                token["content"].is_string())
                add(token["content"].get<std::string>(), std::stoul(id), token);
        }
    std::error_code code;
    const auto file = directory / "added_tokens.json";
    if (std::filesystem::exists(file, code)) {
        const json list = parseJson(readTextFile(file, kMaxFile), file.string());
        if (list.is_object())
            for (const auto& [content, id] : list.items())
                if (id.is_number_unsigned()) add(content, id, {{"special", true}});
    }
    std::stable_sort(out.begin(), out.end(),
                     [](const json& a, const json& b) { return a["id"] < b["id"]; });
    return out;
}

json tokenizerConfig(const std::filesystem::path& directory) {
    const auto file = directory / "tokenizer_config.json";
    std::error_code code;
    if (!std::filesystem::exists(file, code)) return nullptr;
    return parseJson(readTextFile(file, kMaxFile), file.string());
}

json vocabAndMergesAsJson(const std::filesystem::path& directory) {
    const auto vocabFile = directory / "vocab.json";
    const json config = tokenizerConfig(directory);
    const std::string cls = config.is_object() && config.contains("tokenizer_class") &&
                                    config["tokenizer_class"].is_string()
                                ? config["tokenizer_class"].get<std::string>()
                                : "GPT2Tokenizer";
    const auto named = [&](const char* name) { return cls.find(name) != std::string::npos; };
    json model = {{"type", "BPE"},
                  {"vocab", parseJson(readTextFile(vocabFile, kMaxFile), vocabFile.string())},
                  {"merges", mergeLines(readTextFile(directory / "merges.txt", kMaxFile))}};
    json normalizer, pre = byteLevel(true), post = byteLevel(true),
                     decoder = {{"type", "ByteLevel"}};
    post["trim_offsets"] = false;
    const json& vocab = model["vocab"];
    const auto idOf = [&](const char* token) {
        if (!vocab.is_object() || !vocab.contains(token))
            throw Error(Errc::Format,
                        vocabFile.string() + ": a " + cls + " needs the token \"" + token + "\"");
        return vocab[token];
    };
    if (named("Qwen2")) {
        normalizer = {{"type", "NFC"}};
        pre = {{"type", "Sequence"},
               {"pretokenizers", {split(kQwen2, "Isolated", false), byteLevel(false)}}};
    } else if (named("CLIP")) {
        normalizer = {{"type", "Sequence"},
                      {"normalizers",
                       {{{"type", "NFC"}},
                        {{"type", "Replace"}, {"pattern", {{"Regex", "\\s+"}}}, {"content", " "}},
                        {{"type", "Lowercase"}}}}};
        pre = {{"type", "Sequence"},
               {"pretokenizers", {split(kClip, "Removed", true), byteLevel(true)}}};
        model["end_of_word_suffix"] = "</w>";
        model["unk_token"] = "<|endoftext|>";
        decoder = {{"type", "Sequence"},
                   {"decoders",
                    {{{"type", "ByteLevel"}},
                     {{"type", "Replace"}, {"pattern", {{"String", "</w>"}}}, {"content", " "}}}}};
        post = {{"type", "RobertaProcessing"},
                {"cls", {"<|startoftext|>", idOf("<|startoftext|>")}},
                {"sep", {"<|endoftext|>", idOf("<|endoftext|>")}},
                {"trim_offsets", false},
                {"add_prefix_space", false}};
    } else if (named("Roberta") || named("Bart")) {
        post = {{"type", "RobertaProcessing"},
                {"cls", {"<s>", idOf("<s>")}},
                {"sep", {"</s>", idOf("</s>")}},
                {"trim_offsets", true},
                {"add_prefix_space", false}};
    }
    return {{"added_tokens", addedTokensOf(config, directory)},
            {"normalizer", normalizer},
            {"pre_tokenizer", pre},
            {"post_processor", post},
            {"decoder", decoder},
            {"model", model}};
}

}  // namespace sparsight
