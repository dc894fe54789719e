#pragma once

#include "core/capture/layer_capture.h"

namespace sparsight {

/// Exact statistics and LSE of one layer in two passes over its keys, causal or not, square or
/// rectangular.
/// @param lse  [Hq][Nq], filled in: the memory that layer.lse looks at
/// @throws Error(Format) when scores are NaN or infinite, Cancelled
LayerStats measureLayer(kernels::Backend& backend, const LayerCapture& layer, float* lse,
                        const Job& job = {});

}  // namespace sparsight
