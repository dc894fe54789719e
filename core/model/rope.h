#pragma once

#include <vector>

#include "core/model/config.h"

namespace sparsight {

/// Frequencies of a rotary position embedding: pair k turns by position * inverseFrequency[k]
/// radians; cos and sin are multiplied by `attentionFactor`, so that scores scale by its square.
struct RopeTable {
    std::vector<float> inverseFrequency;  ///< [ropePairs(dim)], dim = int(headDim * partial)
    float attentionFactor = 1.0f;
};

/// Pairs that turn when RoPE is given `dim` dimensions. Of an odd share of a head one dimension
/// more turns (the frequencies still divide by `dim`), as in the reference.
constexpr Index ropePairs(Index dim) {
    return (dim + 1) / 2;
}

/// The table of model-formats.md 3, in the float32 steps of the reference implementation: at
/// position 16k one unit in the last place of a frequency is 1e-3 radians.
/// @param length  largest position + 1 that the table is for: dynamic and longrope depend on it
/// @throws Error(Unsupported) unknown kind, Error(Format) lists of the wrong length
RopeTable ropeTable(const RopeConfig& rope, Index headDim, Index length);

/// True when ropeTable depends on its `length`.
bool ropeDependsOnLength(const RopeConfig& rope);

}  // namespace sparsight
