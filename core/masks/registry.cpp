#include "core/masks/a_shape.h"
#include "core/masks/antidiagonal.h"
#include "core/masks/dense.h"
#include "core/masks/oracle_blocks.h"
#include "core/masks/retrieval_heads.h"
#include "core/masks/vertical_slash.h"

namespace sparsight {
namespace {

template <class Mask>
std::unique_ptr<MaskPolicy> make(const ParamValues& complete) {
    return std::make_unique<Mask>(complete);
}

// To add a method: one file in core/masks, one row here, one test (docs/adding-a-method.md).
constexpr Method kMethods[] = {
    {"dense", "Dense", "Transformer, 2017", "Every pair that the model itself sees.", "#999999",
     DenseMask::kParams, true, 0, "", make<DenseMask>},
    {"a-shape", "A-shape (sink + window)", "StreamingLLM, 2023",
     "The first keys and the latest keys of every query, nothing between.", "#56b4e9",
     AShape::kParams, true, 0, "window", make<AShape>},
    {"vertical-slash", "Vertical-slash", "MInference, 2024",
     "The key columns and the distances that the last queries look at most.", "#e69f00",
     VerticalSlashMask::kParams, false, 0, "slash", make<VerticalSlashMask>},
    {"antidiagonal", "Antidiagonal blocks", "XAttention, 2025",
     "Blocks ranked by strided antidiagonal sums until a share of the estimate is covered.",
     "#009e73", Antidiagonal::kParams, false, 128, "threshold", make<Antidiagonal>},
    {"retrieval-heads", "Retrieval heads dense, others stream",
     "Retrieval Head, 2024; DuoAttention, 2024",
     "Heads that copy from the context stay dense; every other head keeps sink and window.",
     "#cc79a7", RetrievalHeads::kParams, true, 0, "window", make<RetrievalHeads>},
    {"oracle-blocks", "Oracle blocks (upper bound)", "Sparsight",
     "The heaviest blocks of the true attention at a density: what no block method can beat.",
     "#0072b2", OracleBlocks::kParams, false, 64, "density", make<OracleBlocks>},
};

}  // namespace

std::span<const Method> methods() {
    return kMethods;
}

void requireOneSequence(const kernels::Problem& problem, const std::string& method) {
    if (problem.causal || problem.Nq == problem.Nk) return;
    throw Error(Errc::Unsupported,
                method +
                    ": cross-attention has no window before the query, its rows and keys are "
                    "different sequences; choose oracle-blocks for this head");
}

}  // namespace sparsight
