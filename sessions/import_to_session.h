#pragma once

#include "core/import/tensor_map.h"
#include "sessions/session.h"

namespace sparsight::sessions {

struct ImportRequest {
    ImportOptions options;
    std::string modelName;            ///< "" = as the file says, else the first file's stem
    std::filesystem::path tokenizer;  ///< of the model, for the tokens' texts; "" = none
    std::string device;               ///< for the session's record
    bool topKeys = false;             ///< as CaptureOptions::topKeys
};

struct ImportResult {
    std::shared_ptr<Session> session;
    std::string capture;  ///< uuid
    Index layers = 0;
    /// Largest |LSE of the file - ours| over all rows; empty when the files hold no LSE. A large
    /// one says that scale, softcap, window, sinks or causality are not the model's.
    std::optional<double> lseDifference;
};

/// Imports tensors as an ordinary capture: statistics, pyramid and LSE by our kernels.
/// @param folder  of the session, made when it is not there (its parent too)
/// On Cancelled or an error the capture is marked and finished layers stay; the exception goes on.
/// @param plan  of the same set and request.options; without problems
/// @throws Error(Shape) with the plan's first problem, and what reading and writing throw
ImportResult importToSession(const std::filesystem::path& folder, const TensorSet& set,
                             const ImportPlan& plan, const ImportRequest& request,
                             kernels::Backend& backend, const Job& job = {});

}  // namespace sparsight::sessions
