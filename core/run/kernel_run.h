#pragma once

#include <optional>
#include <vector>

#include "core/capture/layer_capture.h"
#include "core/masks/method.h"

namespace sparsight {

/// One layer of a captured session as a run wants it.
struct RunLayer {
    std::shared_ptr<const LayerCapture> layer;
    std::shared_ptr<const LayerStats> stats;  ///< may be null
    std::vector<Index> heads;                 ///< query heads to run; empty = all
    std::vector<std::optional<double>> retrieval;  ///< score by query head of the layer; may be empty
};

/// Dense against a method on this machine: warm, interleaved (dense, sparse, dense, ...), median.
struct KernelRun {
    /// All chosen layers and heads together. On a GPU dense and sparse are the kernels' own times;
    /// selectMs has the copies to the GPU in it.
    double denseMs = 0;
    double sparseMs = 0;  ///< forward over the plan
    double selectMs = 0;  ///< choosing the mask and building the plan
    double speedup = 0;   ///< denseMs / (sparseMs + selectMs)
    double density = 0;   ///< executed tile area / valid tile area: what the plan promises
    double outputError = 0;  ///< of the nominal (token-exact) set, relative, over all chosen heads
    double denseSpread = 0, sparseSpread = 0;  ///< (max - min) / median of the repeats
    int repeats = 0, threads = 0;
    std::string kernel, device;
};

/// @param exact    time token-exact masks inside the tiles; else the rounded tiles that production
///                 kernels run (outputError is always of the exact set)
/// @param repeats  at least 5
/// @throws Error(Unsupported) for a layer without V
KernelRun runKernels(kernels::Backend& backend, const std::vector<RunLayer>& layers,
                     const MethodSpec& method, int repeats, bool exact, const Job& job = {});

}  // namespace sparsight
