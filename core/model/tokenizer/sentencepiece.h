#pragma once

#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string_view>

namespace sparsight {

/// A SentencePiece `tokenizer.model` (Unigram or BPE) as the tokenizer.json that says the same.
/// Control and unknown symbols are special added tokens, user-defined symbols without spaces
/// ordinary ones. Of a file named sentencepiece.bpe.model the tokens are numbered as XLM-RoBERTa or
/// CamemBERT does.
/// @param config  the directory's tokenizer_config.json or null: add_bos_token, add_eos_token,
///                tokenizer_class say which special tokens a text gets
/// @throws Error(Format), Error(Unsupported)
nlohmann::json sentencePieceAsJson(std::string_view bytes, const nlohmann::json& config,
                                   const std::string& where);

/// `vocab.json` + `merges.txt` as the tokenizer.json of a byte-level BPE: GPT-2's, or by
/// tokenizer_class RoBERTa's, BART's, CLIP's or Qwen2's.
/// @param directory  its tokenizer_config.json and added_tokens.json give the added tokens
/// @throws Error(Format), Error(NotFound), Error(Io)
nlohmann::json vocabAndMergesAsJson(const std::filesystem::path& directory);

/// Added tokens that tokenizer_config.json (`config`, or null) and added_tokens.json of the
/// directory list, as tokenizer.json has them, by id.
nlohmann::json addedTokensOf(const nlohmann::json& config, const std::filesystem::path& directory);

/// tokenizer_config.json of the directory; null when there is none.
nlohmann::json tokenizerConfig(const std::filesystem::path& directory);

}  // namespace sparsight
