#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/model/config.h"
#include "core/model/input.h"
#include "kernels/backend.h"

namespace sparsight {

/// One layer's attention inside a forward pass: post-RoPE q, k, v; the callee writes all of `o`.
/// During decoding Nq < Nk (keys of the cache come first). A model on the CPU gives float32; one on
/// a GPU gives its own type in the GPU's memory, which only the kernels and `fetch` can read.
struct LayerCall {
    Index layer = 0;
    kernels::Problem problem;     ///< sinks and bias are in the CPU's memory
    kernels::TensorView q, k, v;  ///< [Hq, Nq, D], [Hkv, Nk, D], [Hkv, Nk, Dv]
    kernels::MutTensorView o;     ///< [Hq, Nq, Dv]
    /// Hidden states that enter the layer, [Nq][hidden]; null where a runner does not give them.
    const float* hidden = nullptr;
    /// Set by models on a GPU: copies `x`, a part of q, k or v, to [heads][tokens][d] of type `to`
    /// in the CPU's memory.
    std::function<void(const kernels::TensorView& x, Index heads, Index tokens, Index d,
                       kernels::DType to, void* out)>
        fetch;
    bool onGpu() const { return bool(fetch); }
};
/// A copy of q, k or v of a layer, or of a part of it, in the CPU's memory: [heads][tokens][d].
std::vector<std::byte> copyOf(const LayerCall& call, const kernels::TensorView& x, Index heads,
                              Index tokens, Index d, kernels::DType to);
/// The call with q, k and v in the CPU's memory as float32, for callees that read them; `memory`
/// keeps them. `o` stays where it is.
LayerCall readable(const LayerCall& call, std::vector<std::byte> (&memory)[3]);

using AttentionFn = std::function<void(const LayerCall&)>;

/// Rotated keys and values, float32: [Hkv][capacity][D] and [Hkv][capacity][Dv], taken from the
/// system when they are first written. A model on a GPU keeps its own there.
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
    /// What a runner keeps in place of key() and value(); null = nothing. A runner that finds
    /// another one's here starts again from tokens().
    std::shared_ptr<void>& own() { return m_own; }

private:
    float* row(std::vector<std::vector<float>>& buffers, Index layer, Index head, Index token,
               Index width);
    std::shared_ptr<void> m_own;
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
    /// Where the model runs, in words: "CPU", "cuda:0, bfloat16".
    virtual std::string device() const { return "CPU"; }
    /// What happened to the choice of device: why a model runs, or went on, on the CPU.
    virtual std::vector<std::string> notes() const { return {}; }
};

/// Opens a model. Small ones are converted to float32 at once; the layers of larger ones when they
/// are needed, and they stay in memory only as far as there is room: one pass over a prompt
/// (KvCache::Keep::LastLayer) holds one layer at a time. Defined in core/torch; the only door to
/// LibTorch.
/// @param threads  0 = physical cores
/// @param device   "cpu", "cuda" or "cuda:N". A GPU runs decoders in the type of their weights, one
///                 layer in its memory at a time unless all fit; encoders in float32. Without a GPU
///                 or a LibTorch that knows it, or when its memory does not do, the model runs on
///                 the CPU and notes() says so.
/// @throws Error(Format) missing tensors, wrong shapes, NaN weights (names the tensor);
///         Error(Usage) for a device that is none of these
std::unique_ptr<ModelRunner> loadModel(const std::filesystem::path& directory, int threads = 0,
                                       const Job& job = {}, std::string_view device = "cpu");

/// Matrix product rate of LibTorch, flop/s, measured in about 50 ms: float32 on this machine's CPU,
/// bfloat16 on a GPU. Defined in core/torch; 0 in a build without LibTorch.
double measureGemm(int threads = 0, std::string_view device = "cpu");

/// What LibTorch can run on, for messages and estimates. Defined in core/torch.
struct TorchDevices {
    bool gpu = false;    ///< this LibTorch was built with CUDA and sees at least one GPU
    std::string reason;  ///< a sentence why not; "" when it does
};
TorchDevices torchDevices();

/// Numbers in a GPU's memory as bfloat16, for measurements; null without LibTorch on that GPU.
/// Defined in core/torch.
std::shared_ptr<const void> onGpu(std::span<const float> values, std::string_view device);

/// @throws Error(Usage) for an empty list or an id outside the model's vocabulary
void checkIds(const ModelConfig& config, std::span<const std::int32_t> ids);

/// The same stop, no progress: for steps inside a step.
Job withoutReport(const Job& job);

/// Dense attention by `backend` (which must outlive it), for forward passes without a plan. Keeps
/// the plan of the last problem, which all layers of a pass share.
AttentionFn denseAttention(kernels::Backend& backend, const Job& job = {});

}  // namespace sparsight
