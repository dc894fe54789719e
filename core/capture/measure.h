#pragma once

#include "core/capture/layer_capture.h"

namespace sparsight {

/// Exact statistics and LSE of one layer in two passes over its keys, causal or not, square or
/// rectangular. A backend without the memory for all heads at once gets fewer at a time.
/// @param lse   [Hq][Nq], filled in: the memory that layer.lse looks at
/// @param topK  keys per row in LayerStats::top; 0 = none
/// @throws Error(Format) when scores are NaN or infinite, Cancelled
LayerStats measureLayer(kernels::Backend& backend, const LayerCapture& layer, float* lse,
                        const Job& job = {}, Index topK = 0);

}  // namespace sparsight
