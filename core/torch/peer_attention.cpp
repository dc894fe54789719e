#include "core/torch/peer_attention.h"

#include <dlfcn.h>

#include <ATen/core/Tensor.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/full.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/softmax.h>
#include <c10/core/InferenceMode.h>
#include <torch/version.h>
#if TORCH_VERSION_MAJOR >= 2
#include <ATen/ops/scaled_dot_product_attention.h>
#endif

#include <chrono>
#include <cmath>

#include "core/torch/threads.h"

namespace sparsight {
namespace {

class Attention final : public TorchAttention {
public:
    Attention(Index heads, Index kvHeads, Index nq, Index nk, Index d, bool causal, int threads)
        : m_causal(causal), m_threads(threads), m_scale(1 / std::sqrt(double(d))) {
        const c10::InferenceMode guard;
        useTorchThreads(threads);
        m_q = at::randn({heads, nq, d});
        m_k = at::randn({kvHeads, nk, d}).repeat_interleave(heads / kvHeads, 0);
        m_v = at::randn({kvHeads, nk, d}).repeat_interleave(heads / kvHeads, 0);
        if (causal) m_mask = at::full({nq, nk}, -INFINITY).triu(nk - nq + 1);
    }

    double run() override {
        const c10::InferenceMode guard;
        useTorchThreads(m_threads);
        const auto start = std::chrono::steady_clock::now();
#if TORCH_VERSION_MAJOR >= 2
        const bool square = m_q.size(1) == m_k.size(1);
        const at::Tensor o = at::scaled_dot_product_attention(
            m_q.unsqueeze(0), m_k.unsqueeze(0), m_v.unsqueeze(0),
            m_causal && !square ? c10::optional<at::Tensor>(m_mask) : c10::nullopt, 0.0,
            m_causal && square);
#else
        at::Tensor scores = at::bmm(m_q.mul(m_scale), m_k.transpose(1, 2));
        if (m_causal) scores.add_(m_mask);
        const at::Tensor o = at::bmm(at::softmax(scores, -1), m_v);
#endif
        m_sink = o.data_ptr<float>()[0];
        return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start)
            .count();
    }

private:
    bool m_causal;
    int m_threads;
    double m_scale;
    at::Tensor m_q, m_k, m_v, m_mask;
    volatile float m_sink = 0;
};

}  // namespace

std::unique_ptr<TorchAttention> makeTorchAttention(Index heads, Index kvHeads, Index nq, Index nk,
                                                   Index d, bool causal, int threads) {
    return std::make_unique<Attention>(heads, kvHeads, nq, nk, d, causal, threads);
}

std::string torchDescription() {
    std::string text = "LibTorch " TORCH_VERSION;
    const auto core = reinterpret_cast<char* (*)()>(dlsym(RTLD_DEFAULT, "openblas_get_corename"));
    if (core) text += std::string(", OpenBLAS ") + core();
    return text;
}

}  // namespace sparsight
