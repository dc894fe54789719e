#pragma once

#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string_view>

namespace sparsight {

/// True for the text of a tiktoken file: lines of a token's bytes in base64 and its rank.
bool isTiktoken(std::string_view bytes);

/// A tiktoken file as the tokenizer.json of a byte-level BPE. A token's id is its rank, and two
/// tokens merge when their concatenation is a token too, the lowest rank first.
///
/// How texts are cut, and the special tokens, are not in the file. They are those of its family:
/// by its name GPT-2 (r50k_base, p50k_base, gpt2), cl100k_base, o200k_base or Qwen 1 (qwen), by
/// tokenizer_class Qwen 1; else of a .model Llama 3, of others cl100k_base without special tokens.
/// Added tokens of tokenizer_config.json win over the family's.
/// @throws Error(Format) naming the line
nlohmann::json tiktokenAsJson(std::string_view bytes, const std::filesystem::path& file);

}  // namespace sparsight
