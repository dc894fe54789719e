#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/backend.h"
#include "kernels/cpu/scratch.h"
#include "kernels/cpu/thread_pool.h"

/// The vectorised inner parts of the CPU backend. Each is compiled once per instruction set and
/// chosen at run time. Query rows are worked on in *strips*: `width` consecutive rows, one per
/// vector lane. A packed strip is [d][width], pre-scaled; scores of a strip are [key][width], so
/// that row maxima, sums and rescaling need no operation across lanes, keys are read in place
/// (any run, pair or gather list costs the same), and the scores are the packed operand of P V.
namespace sparsight::kernels::cpu {

/// Keys of a chunk of columns; the same as the width of a KvTile.
inline constexpr int kChunk = int(kTile);

/// One query head of one batch entry. k and v are float rows; where the inputs are 16-bit these
/// are widened copies.
struct Head {
    const Problem* problem = nullptr;  ///< of the whole layer
    Index head = 0;
    TensorView q, kRaw, vRaw;  ///< [token][d] as the caller has them
    const float* k = nullptr;
    const float* v = nullptr;
    Index kStride = 0, vStride = 0;
    Index kFirst = 0;  ///< the token that k starts at
    /// Nobody has looked for NaN and Inf in k and v: forwardTile stops with kNeedsCheck
    /// when it meets one.
    bool unchecked = false;
    bool kFinite = true;                 ///< no NaN or Inf among the keys
    const std::uint8_t* vBad = nullptr;  ///< [Nk] 1 where a value row holds NaN or Inf; null: none

    float sink() const;  ///< the learned sink logit, -inf without
    const float* bias() const {
        return problem->relBias ? problem->relBias + head * (problem->Nq + problem->Nk - 1)
                                : nullptr;
    }
};

/// What forwardTile returns when it cannot go on without knowing which keys and values are finite.
inline constexpr Index kNeedsCheck = -1;

/// Scratch memory of one thread.
struct Workspace {
    Scratch q, s, p, o, state, keys, extra, top;
    std::vector<std::uint8_t> flags;
    std::vector<Range> ranges;
    std::vector<std::int32_t> topKeys;
};

struct ForwardOut {
    void* o = nullptr;  ///< row 0 of the head; null: LSE only
    DType type = DType::F32;
    Index rowStride = 0;
    float* lse = nullptr;  ///< [Nq] or null
};

struct CapturePass {
    Index strips = 0;                      ///< ceil(Nq / width)
    const float* packed = nullptr;         ///< [strips][d][width] queries
    const std::uint8_t* finite = nullptr;  ///< [strips] as packStrip returned it
    float* denominator = nullptr;  ///< [strips * width] log2 of the row's denominator; +inf: none
    Index block = 64;
    Index tileKeys = 0;  ///< keys of a key tile: a multiple of `block`
    Index groups = 1;    ///< owners of key tiles; owner g has the tiles g, g + groups, ...
    Index sinkTokens = 0, localTokens = 0;
    Index topK = 0;             ///< 0: no top keys
    CaptureOut out;             ///< of this head
    float* diagonal = nullptr;  ///< [groups][diagonals] partial sums or null
    Index diagonals = 0;
};

struct RenderPass {
    const RenderSpec* spec = nullptr;
    const float* lse = nullptr;
    float* px = nullptr;
};

struct AntidiagonalPass {
    Index stride = 8, block = 128;
    Index qGroups = 0, kGroups = 0;  ///< groups that hold at least one token
    Index offset = 0;                ///< row group I sees the key groups up to I + offset
    Index rows = 0, cols = 0;        ///< blocks of the result
    const float* keys = nullptr;     ///< [kGroups][stride * d]; what lies behind the last key is 0
    float* score = nullptr;          ///< [rows][cols] of this head
};

/// The functions of one instruction set. Those that return an Index give the number of rows that
/// NaN or Inf in the inputs has poisoned.
struct Simd {
    const char* name = "";
    int width = 0;
    /// Packs rows row0 .. row0 + width - 1 (zero beyond Nq), scaled.
    /// @return whether all of them are finite
    bool (*packStrip)(const Head&, Index row0, float* out) = nullptr;
    /// One work item by strips, or kNeedsCheck.
    Index (*forwardTile)(const Head&, const Plan&, const WorkItem&, const ForwardOut&, Workspace&,
                         TaskContext&) = nullptr;
    /// One work item of few rows, row by row, straight from the caller's k and v, for query heads
    /// that share their K/V head and the item's tiles.
    Index (*forwardRows)(std::span<const Head>, const Plan&, const WorkItem&,
                         std::span<const ForwardOut>, Workspace&, TaskContext&) = nullptr;
    /// Row statistics of the strips [first, last).
    Index (*captureRows)(const Head&, const CapturePass&, Index first, Index last, Workspace&,
                         TaskContext&) = nullptr;
    /// Blocks, columns and diagonals of the key tiles of one owner.
    void (*captureKeys)(const Head&, const CapturePass&, Index group, Workspace&,
                        TaskContext&) = nullptr;
    /// Pixel rows [first, last).
    void (*render)(const Head&, const RenderPass&, Index first, Index last, Workspace&,
                   TaskContext&) = nullptr;
    /// Block rows [first, last).
    void (*antidiagonal)(const Head&, const AntidiagonalPass&, Index first, Index last, Workspace&,
                         TaskContext&) = nullptr;
    /// n floats from n elements of another type.
    void (*widen)(const void* from, DType type, Index n, float* to) = nullptr;
    bool (*finite)(const float* from, Index n) = nullptr;
};

enum class Isa { Avx512, Avx2, Baseline };  ///< Baseline: what every CPU of the architecture has

/// The inner parts for an instruction set; null when this machine or this build lacks it.
const Simd* simd(Isa isa);

/// Token range of pixel `a` of `pixels` over `tokens`: floor(a R / px) .. floor((a + 1) R / px),
/// or the single token that the pixel lies in when that is empty.
inline Range pixelTokens(Index a, Index pixels, Index tokens) {
    const Index begin = a * tokens / pixels, end = (a + 1) * tokens / pixels;
    return {std::int32_t(begin), std::int32_t(end > begin ? end : begin + 1)};
}

}  // namespace sparsight::kernels::cpu
