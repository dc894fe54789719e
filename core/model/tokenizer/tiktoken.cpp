#include "core/model/tokenizer/tiktoken.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "core/model/tokenizer/bpe.h"
#include "core/model/tokenizer/precompiled.h"
#include "core/model/tokenizer/sentencepiece.h"
#include "core/model/tokenizer/unicode.h"
#include "kernels/base/error.h"

namespace sparsight {
namespace {

using nlohmann::json;

constexpr std::int32_t kMostTokens = 1 << 24;

constexpr const char* kGpt2 =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
constexpr const char* kCl100k =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kQwen =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kO200k =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

using Tokens = std::vector<std::pair<std::string, std::int32_t>>;

/// The 256 tokens that follow the ranks of Llama 3.
Tokens llama3Specials(std::int32_t first) {
    std::vector<std::string> names = {"<|begin_of_text|>", "<|end_of_text|>"};
    Index reserved = 0;
    const auto reserve = [&](std::size_t until) {
        while (names.size() < until)
            names.push_back("<|reserved_special_token_" + std::to_string(reserved++) + "|>");
    };
    reserve(6);
    names.insert(names.end(), {"<|start_header_id|>", "<|end_header_id|>"});
    reserve(9);
    names.push_back("<|eot_id|>");
    reserve(256);
    Tokens out;
    for (std::string& name : names) out.emplace_back(std::move(name), first++);
    return out;
}

Tokens qwenSpecials(std::int32_t first) {
    Tokens out = {{"<|endoftext|>", first}, {"<|im_start|>", first + 1}, {"<|im_end|>", first + 2}};
    for (std::int32_t i = 0; i < 205; ++i)
        out.emplace_back("<|extra_" + std::to_string(i) + "|>", first + 3 + i);
    return out;
}

/// How one family of files is read. @param first  the id behind its largest rank
struct Family {
    const char* pattern;
    bool nfc = false;
    const char* begin = nullptr;  ///< the special token before every text
    Tokens specials;
};

Family familyOf(const std::string& name, const json& config, std::int32_t first) {
    const auto called = [&](const char* part) { return name.find(part) != std::string::npos; };
    const std::string cls = config.is_object() && config.contains("tokenizer_class") &&
                                    config["tokenizer_class"].is_string()
                                ? config["tokenizer_class"].get<std::string>()
                                : "";
    if (called("r50k") || called("p50k") || called("gpt2"))
        return {kGpt2, false, nullptr, {{"<|endoftext|>", 50256}}};
    if (called("cl100k"))
        return {kCl100k,
                false,
                nullptr,
                {{"<|endoftext|>", 100257},
                 {"<|fim_prefix|>", 100258},
                 {"<|fim_middle|>", 100259},
                 {"<|fim_suffix|>", 100260},
                 {"<|endofprompt|>", 100276}}};
    if (called("o200k"))
        return {kO200k, false, nullptr, {{"<|endoftext|>", 199999}, {"<|endofprompt|>", 200018}}};
    if (called("qwen") || cls.starts_with("QWen") || cls.starts_with("Qwen"))
        return {kQwen, true, nullptr, qwenSpecials(first)};
    if (called(".model")) return {kCl100k, false, "<|begin_of_text|>", llama3Specials(first)};
    return {kCl100k, false, nullptr, {}};
}

/// The mergeable tokens, by rank.
Tokens readRanks(std::string_view bytes, const std::string& where) {
    Tokens out;
    Index number = 0;
    for (std::size_t at = 0; at < bytes.size();) {
        const std::size_t end = std::min(bytes.find('\n', at), bytes.size());
        std::string_view line = bytes.substr(at, end - at);
        at = end + 1;
        ++number;
        if (line.ends_with('\r')) line.remove_suffix(1);
        if (line.empty()) continue;
        const std::string here = where + ": line " + std::to_string(number);
        const std::size_t space = std::min(line.find(' '), line.size());
        const std::string_view digits = line.substr(std::min(space + 1, line.size()));
        std::int32_t rank = -1;
        const auto read = std::from_chars(digits.data(), digits.data() + digits.size(), rank);
        if (space == 0 || read.ec != std::errc() || read.ptr != digits.data() + digits.size() ||
            rank < 0 || rank >= kMostTokens)
            throw Error(Errc::Format, here + " is not a token in base64, a space and its rank");
        out.emplace_back(text::decodeBase64(line.substr(0, space), here), rank);
    }
    std::sort(out.begin(), out.end(),
              [](const auto& a, const auto& b) { return a.second < b.second; });
    return out;
}

}  // namespace

bool isTiktoken(std::string_view bytes) {
    const std::string_view line = bytes.substr(0, std::min<std::size_t>(bytes.find('\n'), 4096));
    const std::size_t space = line.find(' ');
    if (space == 0 || space == line.npos) return false;
    const auto all = [](std::string_view part, std::string_view of) {
        return !part.empty() && part.find_first_not_of(of) == part.npos;
    };
    std::string_view rank = line.substr(space + 1);
    if (rank.ends_with('\r')) rank.remove_suffix(1);
    return all(line.substr(0, space),
               "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=") &&
           all(rank, "0123456789");
}

json tiktokenAsJson(std::string_view bytes, const std::filesystem::path& file) {
    const std::string where = file.string();
    const Tokens ranks = readRanks(bytes, where);
    json vocab = json::object();
    for (std::size_t i = 0; i < ranks.size(); ++i) {
        const auto& [token, rank] = ranks[i];
        if (i > 0 && ranks[i - 1].second == rank)
            throw Error(Errc::Format, where + ": rank " + std::to_string(rank) + " is given twice");
        if (token.empty()) continue;  // Whisper's file has one: no text gives it
        if (!vocab.emplace(text::spellBytes(token), unsigned(rank)).second)
            throw Error(Errc::Format,
                        where + ": the token of rank " + std::to_string(rank) + " is given twice");
    }
    for (unsigned b = 0; b < 256; ++b) {
        const char byte = static_cast<char>(static_cast<unsigned char>(b));
        if (!vocab.contains(text::spellBytes({&byte, 1})))
            throw Error(Errc::Format,
                        where + ": has no token for the byte " + std::to_string(b) + " alone");
    }

    const json config = tokenizerConfig(file.parent_path());
    const Family family = familyOf(file.filename().string(), config, ranks.back().second + 1);
    json added = addedTokensOf(config, file.parent_path());
    if (added.empty())
        for (const auto& [content, id] : family.specials)
            added.push_back({{"id", unsigned(id)},
                             {"content", content},
                             {"single_word", false},
                             {"lstrip", false},
                             {"rstrip", false},
                             {"normalized", false},
                             {"special", true}});
    // In the vocabulary they keep their ids: there may be holes behind the ranks.
    for (const json& token : added) vocab[token["content"].get<std::string>()] = token["id"];
    const auto begin = std::find_if(added.begin(), added.end(), [&](const json& t) {
        return family.begin != nullptr && t["content"] == family.begin;
    });
    json post = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", false}};
    if (begin != added.end()) {
        const json token = {{"SpecialToken", {{"id", family.begin}, {"type_id", 0u}}}};
        const auto sequence = [](const char* id, unsigned type) {
            return json{{"Sequence", {{"id", id}, {"type_id", type}}}};
        };
        json second = token;
        second["SpecialToken"]["type_id"] = 1u;
        post = {
            {"type", "TemplateProcessing"},
            {"single", {token, sequence("A", 0)}},
            {"pair", {token, sequence("A", 0), second, sequence("B", 1)}},
            {"special_tokens",
             {{family.begin,
               {{"id", family.begin}, {"ids", {(*begin)["id"]}}, {"tokens", {family.begin}}}}}}};
    }
    json normalizer;
    if (family.nfc) normalizer = {{"type", "NFC"}};
    return {{"added_tokens", std::move(added)},
            {"normalizer", std::move(normalizer)},
            {"pre_tokenizer",
             {{"type", "Sequence"},
              {"pretokenizers",
               {{{"type", "Split"},
                 {"pattern", {{"Regex", family.pattern}}},
                 {"behavior", "Isolated"},
                 {"invert", false}},
                {{"type", "ByteLevel"},
                 {"add_prefix_space", false},
                 {"trim_offsets", false},
                 {"use_regex", false}}}}}},
            {"post_processor", std::move(post)},
            {"decoder", {{"type", "ByteLevel"}}},
            {"model",
             {{"type", "BPE"},
              {"vocab", std::move(vocab)},
              {"merges", text::kMergesByRank},
              {"ignore_merges", true}}}};
}

}  // namespace sparsight
