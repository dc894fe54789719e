#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <vector>

#include "core/model/encoder_config.h"
#include "kernels/base/job.h"

namespace sparsight {

/// A matrix [out, in] with its bias, or a norm's weight and bias [width]; undefined = not there.
struct Affine {
    at::Tensor weight, bias;
    bool given() const { return weight.defined(); }
};

struct EncoderBlockWeights {
    Affine q, k, v, o, attentionNorm;
    Affine crossQ, crossK, crossV, crossO, crossNorm;
    Affine up, gate, down, mlpNorm;
};

struct TowerWeights {
    std::vector<EncoderBlockWeights> blocks;
    Affine finalNorm;
    at::Tensor relativeBias;  ///< [buckets, heads]
};

struct TextEmbeddingWeights {
    at::Tensor words, positions, types;  ///< [V, H], [P, H], [types, H]
    Affine norm;
};

struct EncoderWeights {
    TowerWeights text, decoder, vision;
    TextEmbeddingWeights words, decoderWords;
    Affine patches;                    ///< [H, 3, p, p]
    at::Tensor classToken, positions;  ///< [1, H], [1 + patches, H]
    Affine imageNorm;
    /// The head's parts by use: dense and norm before the output matrix, projections of CLIP.
    Affine headDense, headNorm, output, textProjection, visualProjection;
    std::vector<std::string> unused;  ///< tensors of the file that nothing reads
};

/// Reads the weights that `config` calls for as float32.
/// @throws Error(Format) a tensor is missing, has another shape, or holds a value that is not
///         finite
EncoderWeights loadEncoderWeights(const std::filesystem::path& directory, const ModelConfig& config,
                                  const Job& job);

}  // namespace sparsight
