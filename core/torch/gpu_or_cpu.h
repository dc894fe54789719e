#pragma once

#include <functional>
#include <memory>

#include "core/torch/decoder.h"

namespace sparsight {

using MakeGpuDecoder = std::function<std::unique_ptr<Decoder>()>;
using MakeCpuDecoder = std::function<std::unique_ptr<Decoder>(const Job&)>;

/// A decoder on a GPU that goes on on the CPU when an Error(Resources) comes, from the model or
/// from its attention: the pass begins again there, keys of earlier tokens are computed again, and
/// notes() says why.
/// @param cpu  called when it is needed
std::unique_ptr<ModelRunner> makeGpuOrCpu(const MakeGpuDecoder& gpu, MakeCpuDecoder cpu,
                                          const Job& job);

}  // namespace sparsight
