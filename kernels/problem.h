#pragma once

#include <algorithm>

#include "kernels/base/tensor.h"

namespace sparsight::kernels {

/// The attention of one layer (or of one head: Hq = Hkv = 1).
/// Query head h reads key/value head h / (Hq / Hkv). Query row i stands at absolute position
/// i + (Nk - Nq) (bottom-right alignment). Scores: softcap and relBias are applied to scale * q.k.
struct Problem {
    Index batch = 1, Hq = 1, Hkv = 1, Nq = 0, Nk = 0, d = 0, dv = 0;
    float scale = 1.0f;
    bool causal = true;
    Index window = 0;                ///< the layer's own window, 0 = none; counts the query itself
    float softcap = 0;               ///< c in c * tanh(s / c), 0 = none
    const float* sinks = nullptr;    ///< [Hq] learned sink logits, or null
    const float* relBias = nullptr;  ///< [Hq][Nq + Nk - 1] by j - i + Nq - 1, or null

    Index position(Index row) const { return row + (Nk - Nq); }
    /// Keys that row `row` sees in the model's own attention: [visibleBegin, visibleEnd).
    Index visibleBegin(Index row) const {
        return window > 0 ? std::clamp<Index>(position(row) - window + 1, 0, visibleEnd(row)) : 0;
    }
    Index visibleEnd(Index row) const {
        return causal ? std::clamp<Index>(position(row) + 1, 0, Nk) : Nk;
    }
    Index kvHead(Index h) const { return h / (Hq / Hkv); }
    /// The problem of query head `h` alone (its sink and bias included).
    Problem oneHead(Index h) const {
        Problem p = *this;
        p.Hq = p.Hkv = 1;
        if (sinks) p.sinks = sinks + h;
        if (relBias) p.relBias = relBias + h * (Nq + Nk - 1);
        return p;
    }
};

/// Number of visible (query, key) pairs of one head.
Index validPairs(const Problem& problem);

}  // namespace sparsight::kernels
