#pragma once

#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "core/model/config.h"
#include "core/model/input.h"
#include "kernels/backend.h"

namespace sparsight {

/// One layer's attention inside a forward pass: post-RoPE q, k, v as float32; the callee writes all
/// of `o`. During decoding Nq < Nk (keys of the cache come first).
struct LayerCall {
    Index layer = 0;
    kernels::Problem problem;
    kernels::TensorView q, k, v;  ///< [Hq, Nq, D], [Hkv, Nk, D], [Hkv, Nk, Dv]
    kernels::MutTensorView o;     ///< [Hq, Nq, Dv] float32
    /// Hidden states that enter the layer, [Nq][hidden]; null where a runner does not give them.
    const float* hidden = nullptr;
};
using AttentionFn = std::function<void(const LayerCall&)>;

/// Rotated keys and values, float32: [Hkv][capacity][D] and [Hkv][capacity][Dv].
class KvCache {
public:
    /// LastLayer: every layer overwrites the one before, for a single forward of the whole prompt
    /// by a caller that reads K and V inside its AttentionFn. Such a cache cannot be continued.
    enum class Keep { AllLayers, LastLayer };
    KvCache() = default;
    /// @param capacity  most tokens it will ever hold
    KvCache(const ModelConfig& config, Index capacity, Keep keep = Keep::AllLayers);
    /// True when a forward may start at length(), with the keys of earlier tokens.
    bool canContinue() const { return m_length == 0 || keepsAllLayers(); }
    bool keepsAllLayers() const { return Index(m_k.size()) == m_layers; }
    Index length() const { return m_length; }
    Index capacity() const { return m_capacity; }
    void setLength(Index n) { m_length = n; }
    /// The tokens whose keys are here, as far as the runner notes them: a model that drops its
    /// cache at some length (ModelConfig::recomputesAtSwitch) runs them again.
    std::vector<std::int32_t>& tokens() { return m_tokens; }
    /// Element (head, token, 0); token stride is the head width, head stride capacity * width.
    float* key(Index layer, Index head, Index token);
    float* value(Index layer, Index head, Index token);

private:
    Index m_kvHeads = 0, m_d = 0, m_dv = 0, m_capacity = 0, m_length = 0, m_layers = 0;
    std::vector<std::vector<float>> m_k, m_v;
    std::vector<std::int32_t> m_tokens;
};

/// Runs a model. Linear algebra by LibTorch (core/torch), attention by the caller's function.
/// One thread at a time.
class ModelRunner {
public:
    virtual ~ModelRunner() = default;
    virtual const ModelConfig& config() const = 0;

    /// Runs `ids` at positions cache.length() .. and appends their K and V to the cache.
    /// The hidden states after the last layer stay inside for logits(). A model with
    /// recomputesAtSwitch runs all tokens again in the call that crosses its length: LayerCall then
    /// has a row for each of them.
    /// @param lastLayer  stop after this layer (no logits then); -1 = all
    /// @throws Error(Usage) empty ids, an id outside the vocabulary or a full cache, Error(Format)
    /// when
    ///         activations turn NaN or infinite (names the layer), Cancelled
    virtual void forward(std::span<const std::int32_t> ids, KvCache& cache,
                         const AttentionFn& attention, const Job& job = {},
                         Index lastLayer = -1) = 0;
    /// One whole pass over an input of any kind, for captures and for logits(). Layers run in the
    /// order of layerOrder().
    /// @param wanted  stop after the last of these (no logits then), ascending; empty = all
    /// @throws Error as forward; Error(Usage) when a wanted layer reads what the input has not
    virtual void pass(const ModelInput& input, const AttentionFn& attention, const Job& job = {},
                      std::span<const Index> wanted = {});
    /// Encoder-decoders: runs the encoder; forward() then runs the decoder against it.
    /// @return the decoder's first token. @throws Error(Unsupported) for any other model
    virtual std::int32_t encode(std::span<const std::int32_t> ids, const AttentionFn& attention,
                                const Job& job = {});
    /// Logits after rows [row0, row1) of the last forward: out [row1 - row0][vocab], after pass()
    /// of the shape outputShape().
    virtual void logits(Index row0, Index row1, float* out) = 0;
    /// The final hidden states of rows [row0, row1) of the last forward, [row1 - row0][hidden], for
    /// logitsOf() after another forward has run: a comparison of two passes keeps N x hidden
    /// numbers instead of N x vocab. Empty when a runner cannot give them.
    virtual std::vector<float> hiddenStates(Index, Index) { return {}; }
    /// Logits of hidden states that hiddenStates() gave: out [rows][vocab].
    virtual void logitsOf(std::span<const float>, float*) {}
    virtual int threads() const = 0;
};

/// Opens a model. Small ones are converted to float32 at once; the layers of larger ones when they
/// are needed, and they stay in memory only as far as there is room: one pass over a prompt
/// (KvCache::Keep::LastLayer) holds one layer at a time. Defined in core/torch; the only door to
/// LibTorch.
/// @param threads  0 = physical cores
/// @throws Error(Format) missing tensors, wrong shapes, NaN weights (names the tensor)
std::unique_ptr<ModelRunner> loadModel(const std::filesystem::path& directory, int threads = 0,
                                       const Job& job = {});

/// float32 matrix product rate of LibTorch on this machine, flop/s, measured in about 50 ms.
/// Defined in core/torch; 0 in a build without LibTorch.
double measureGemm(int threads = 0);

/// @throws Error(Usage) for an empty list or an id outside the model's vocabulary
void checkIds(const ModelConfig& config, std::span<const std::int32_t> ids);

/// The same stop, no progress: for steps inside a step.
Job withoutReport(const Job& job);

/// Dense attention by `backend` (which must outlive it), for forward passes without a plan. Keeps
/// the plan of the last problem, which all layers of a pass share.
AttentionFn denseAttention(kernels::Backend& backend, const Job& job = {});

}  // namespace sparsight
