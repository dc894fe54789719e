#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <memory>
#include <string>
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

/// What a tower has besides its blocks.
struct TowerWeights {
    Affine finalNorm;
    at::Tensor relativeBias;  ///< [buckets, heads]
};

struct TextEmbeddingWeights {
    at::Tensor words, positions, types;  ///< [V, H], [P, H], [types, H]
    Affine norm;
};

struct ImageEmbeddingWeights {
    Affine patches;                    ///< [H, 3, p, p]
    at::Tensor classToken, positions;  ///< [1, H], [1 + patches, H]
    Affine norm;
};

/// The head's parts by use: dense and norm before the output matrix, projections of CLIP. A
/// checkpoint of the bare model has none.
struct HeadWeights {
    Affine dense, norm, output, textProjection, visualProjection;
};

/// The weights that `config` calls for as float32 on a device, each part read when it is asked for:
/// a file is mapped when one of its tensors is. One thread at a time.
/// @throws Error(Format) in each function: a tensor holds a value that is not finite
class EncoderWeights {
public:
    /// Checks names and shapes of everything by the files' headers.
    /// @throws Error(Format) a tensor is missing or has another shape
    EncoderWeights(const std::filesystem::path& directory, const ModelConfig& config,
                   at::Device device);
    ~EncoderWeights();

    enum class Side { Text, Decoder, Vision };

    const TextEmbeddingWeights& words(Side side);  ///< Text or Decoder
    const ImageEmbeddingWeights& image();
    const TowerWeights& tower(Side side);
    const HeadWeights& head();
    /// Block `l` of a tower. One that does not stay is read again the next time, and its pages
    /// leave the memory: a pass that uses each block once needs one at a time.
    std::shared_ptr<const EncoderBlockWeights> block(Side side, Index l, bool stays);
    /// Reads everything now, to stay.
    void readAll(const Job& job);

    Index bytes() const;                             ///< of everything, as float32
    const std::vector<std::string>& unused() const;  ///< tensors of the file that nothing reads

private:
    struct Impl;
    std::unique_ptr<Impl> m_impl;
};

}  // namespace sparsight
