#pragma once

#include "core/capture/decode.h"
#include "sessions/session.h"

namespace sparsight::sessions {

/// A capture of a prompt and of up to `steps` tokens that the model generates after it. The session
/// stores the prompt's and the generated tokens together and knows where the prompt ends.
/// On Cancelled or an error finished layers stay; resuming computes the others by a prefill of all
/// tokens, which gives the same rows to float32 rounding.
/// @param request    of the prompt alone; request.decodeSteps beyond the last generated token are
///                   dropped
/// @param tokenizer  gives the generated tokens their text; null = they have none
/// @return uuid
std::string decodeToSession(Session& session, ModelRunner& model, kernels::Backend& backend,
                            CaptureRequest request, const Tokenizer* tokenizer, Index steps,
                            const Job& job = {});

}  // namespace sparsight::sessions
