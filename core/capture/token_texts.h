#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/model/tokenizer.h"

namespace sparsight {

/// A text and where each token of it lies.
struct TokenTexts {
    std::string text;
    std::vector<TokenOffset> offsets;
};

/// Continues `texts` with the decoded text of ids[from..]. Tokens that make one character together
/// (bytes of an emoji) have the same span; special tokens are shown as the vocabulary spells them.
/// @param ids   all tokens so far: those before `from` are context only
void appendDecoded(const Tokenizer& tokenizer, std::span<const std::int32_t> ids, Index from,
                   TokenTexts& texts);

}  // namespace sparsight
