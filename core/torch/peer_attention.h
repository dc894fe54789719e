#pragma once

#include <memory>
#include <string>

#include "kernels/base/view.h"

namespace sparsight {

/// Attention by LibTorch alone on normal random inputs, for comparison in benchmarks: its scaled
/// dot product attention where this LibTorch has one (2.0 and later), else the softmax of a batched
/// product, which is what 1.13 does inside.
class TorchAttention {
public:
    virtual ~TorchAttention() = default;
    /// One forward. @return milliseconds
    virtual double run() = 0;
};
/// @param threads  of LibTorch and of its BLAS
std::unique_ptr<TorchAttention> makeTorchAttention(Index heads, Index kvHeads, Index nq, Index nk,
                                                   Index d, bool causal, int threads);

/// "LibTorch 1.13.1, OpenBLAS SkylakeX"
std::string torchDescription();

}  // namespace sparsight
