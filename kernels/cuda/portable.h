#pragma once

#include "kernels/cuda/layer.h"

/// Kernels for every GPU from compute capability 8.0 on, by mma.sync: bf16 and fp16 with float32
/// accumulators, float32 by three TF32 products. Any problem, stored rows of 64, 128 or 256
/// elements (`width`) less than 2 GB apart. Everything is enqueued on `stream`; nothing waits.
/// Results are deterministic.
namespace sparsight::kernels::cuda::portable {

/// Backend::forward; with `o.p` null Backend::lseOnly. `lse` may be null.
/// @param q, k, v  rows of `width` elements of type `type`
void forward(const Layer& layer, DType type, int width, Rows q, Rows k, Rows v,
             const DevicePlan& plan, OutRows o, float* lse, cudaStream_t stream);

/// Row statistics over every visible pair, [batch][Hq][Nq] each.
void captureRows(const Layer& layer, DType type, int width, Rows q, Rows k,
                 const RowStatistics& out, cudaStream_t stream);

/// Block, column and diagonal statistics.
/// @param norm2 [batch][Hq][Nq] base-2 LSE of each row with its sink; -inf for a row that sees no
///              key, NaN for a poisoned row, whose NaN goes to everything that it sees
void captureMass(const Layer& layer, DType type, int width, Rows q, Rows k, const float* norm2,
                 const MassStatistics& out, cudaStream_t stream);

/// The topK largest P of each row (CaptureOut::topKey, topP), exact, ranked by float32 scores.
void topKeys(const Layer& layer, DType type, int width, Rows q, Rows k, const float* norm2,
             int topK, std::int32_t* key, float* p, cudaStream_t stream);

/// The mask of a rendered rectangle: rows q0 .. q1-1 keep keys ranges[rowPtr[i]] ..
/// ranges[rowPtr[i+1]-1], sorted and disjoint (device pointers); null = every visible pair.
struct RenderMask {
    const Index* rowPtr = nullptr;
    const Range* ranges = nullptr;
    bool kept = true;  ///< show what the mask keeps, or what it drops
};
/// Backend::render of one head. @param norm2 [Nq] as above @param px [height][width]
/// `spec.mask` and `spec.show` are not read.
void render(const Layer& layer, DType type, int width, Rows q, Rows k, const float* norm2,
            const RenderSpec& spec, const RenderMask& mask, float* px, cudaStream_t stream);

/// Backend::antidiagonal, with the same meaning of every parameter; `padTo` > 0.
void antidiagonal(const Layer& layer, DType type, int width, Rows q, Rows k, int stride, int block,
                  int padTo, float* blockScore, cudaStream_t stream);

}  // namespace sparsight::kernels::cuda::portable
