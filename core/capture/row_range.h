#pragma once

#include "core/capture/layer_capture.h"

namespace sparsight {

/// Which rows of a capture an analysis covers.
enum class RowRange : std::uint8_t {
    All,
    Prefill,  ///< the prompt's rows over the prompt's keys
    Decode    ///< the generated tokens' rows over all keys
};

/// A part of a layer's rows as a layer of its own, with its statistics.
struct RowPart {
    std::shared_ptr<const LayerCapture> layer;
    std::shared_ptr<const LayerStats> stats;
};
/// @param layer    causal and square; it stays alive as long as the part
/// @param prefill  rows of the prompt
/// @param range    Prefill or Decode
/// @throws Error(Usage) for a part without rows, Cancelled
RowPart rowPart(kernels::Backend& backend, std::shared_ptr<const LayerCapture> layer, Index prefill,
                RowRange range, const Job& job = {});

/// "prefill", "decode", "all". @throws Error(Usage)
RowRange parseRows(const std::string& text);

}  // namespace sparsight
