#pragma once

#include "core/capture/layer_capture.h"
#include "core/import/tensor_map.h"

namespace sparsight {

/// One layer's q, k, v and sinks in memory. Types as in the file (f64 becomes f32). LSE is empty.
struct ImportedLayer {
    LayerCapture capture;
    std::vector<float> fileLse;  ///< [Hq, Nq] as the file has it; empty = it has none
};
/// Peak memory: the layer, and one more copy of a tensor whose axes must be turned.
/// @throws Error(Format), Error(Io), Cancelled
ImportedLayer readImportedLayer(const TensorSet& set, const ImportLayer& layer, const Job& job);

}  // namespace sparsight
