#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "kernels/backend.h"

namespace sparsight {

/// Half-open span of tokens.
struct TokenSpan {
    Index begin = 0, end = 0;
    bool contains(Index t) const { return t >= begin && t < end; }
    Index size() const { return end - begin; }
};

/// What a probe prompt knows about itself.
struct NeedleTruth {
    TokenSpan needle;  ///< tokens in the needle whose offsets lie in the answer's characters; a
                       ///< lone leading space is outside
    TokenSpan answer;  ///< the gold answer's tokens at the end of the prompt (teacher-forced part)
    Index questionBegin = 0;
    std::string needleText, answerText;
    std::string generator;  ///< e.g. "niah:tokens=1500,depth=0.5,seed=1"
};

/// One captured layer, in memory or mapped. Immutable; shared by all views.
/// Stored values are those that every later number is computed from: with 16-bit storage the
/// statistics were computed from the rounded q, k.
struct LayerCapture {
    Index layer = 0;
    kernels::Problem problem;     ///< of all Hq heads
    kernels::TensorView q, k, v;  ///< [Hq, Nq, D], [Hkv, Nk, D], [Hkv, Nk, Dv]; problem.dv = 0: no
                                  ///< V is known (imported tensors), v is null
    View<const float, 2> lse;     ///< [Hq, Nq]
    std::shared_ptr<const void> owner;  ///< keeps the memory alive
};

/// The keys with the largest probabilities of some rows, largest first; equal scores: the lower key
/// first.
struct TopKeys {
    Index k = 0;                    ///< per row
    std::vector<std::int32_t> key;  ///< [rows][k]; -1 beyond the keys that the row sees
    std::vector<float> p;           ///< [rows][k] their probabilities, 0 beyond

    Index rows() const { return k > 0 ? Index(key.size()) / k : 0; }
};
inline constexpr Index kTopKeys = 64;  ///< per row in a capture that keeps them

/// Exact statistics of one captured layer, without an n x n array.
struct LayerStats {
    Index layer = 0;
    Index heads = 0, Nq = 0, Nk = 0;
    struct Level {
        Index block = 64;
        Index rows = 0, cols = 0;
        std::vector<float> sum, max;  ///< [heads][rows][cols]
    };
    std::vector<Level> pyramid;        ///< block 64, 128, ... until one block is left
    std::vector<float> colMass;        ///< [heads][Nk]
    std::vector<float> diagMass;       ///< [heads][Nk]
    std::vector<float> entropy;        ///< [heads][Nq] nats
    std::vector<float> meanDistance;   ///< [heads][Nq] tokens
    std::vector<float> sinkMass;       ///< [heads][Nq] first 4 keys
    std::vector<float> localMass;      ///< [heads][Nq] distances 0..63
    TopKeys top;                       ///< rows [heads][Nq]; k = 0: not asked for
    double massError = 0;  ///< largest |sum of block mass - Nq| / Nq over the heads

    View<const float, 3> sums(std::size_t level) const {
        const Level& l = pyramid[level];
        return {l.sum.data(), {heads, l.rows, l.cols}};
    }
    View<const float, 3> maxima(std::size_t level) const {
        const Level& l = pyramid[level];
        return {l.max.data(), {heads, l.rows, l.cols}};
    }
};

/// The pyramid's upper levels from its base: sums add, max of max.
void buildPyramid(LayerStats& stats);

/// One head of a captured layer as masks and metrics want it.
/// @param head  query head in the model
kernels::Problem headProblem(const LayerCapture& layer, Index head);
kernels::TensorView headQ(const LayerCapture& layer, Index head);
kernels::TensorView headK(const LayerCapture& layer, Index head);
kernels::TensorView headV(const LayerCapture& layer, Index head);

}  // namespace sparsight
