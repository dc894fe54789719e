#include "core/model/runner.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/silu.h>
#include <c10/core/InferenceMode.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <chrono>
#include <cmath>

#include "core/model/rope.h"
#include "core/torch/threads.h"
#include "core/torch/weights.h"

namespace sparsight {
namespace {

at::Tensor matrix(float* p, Index rows, Index cols) {
    return at::from_blob(p, {rows, cols}, at::kFloat);
}

/// out = x w^T (+ bias).
void project(at::Tensor out, const at::Tensor& x, const Weight& w, const Weight& bias) {
    if (bias.given())
        at::addmm_out(out, bias.tensor, x, w.tensor.t());
    else
        at::mm_out(out, x, w.tensor.t());
}

/// sum += x w^T (+ bias).
void projectOnto(at::Tensor sum, const at::Tensor& x, const Weight& w, const Weight& bias) {
    sum.addmm_(x, w.tensor.t());
    if (bias.given()) sum.add_(bias.tensor);
}

void activate(at::Tensor x, const std::string& kind) {
    if (kind == "silu")
        at::silu_(x);
    else if (kind == "gelu")
        at::gelu_(x, "none");
    else if (kind == "gelu_new" || kind == "gelu_pytorch_tanh" || kind == "gelu_fast")
        at::gelu_(x, "tanh");
    else if (kind == "quick_gelu")
        x.mul_(at::sigmoid(x.mul(1.702)));
    else if (kind == "relu")
        at::relu_(x);
    else if (kind == "relu2")
        at::relu_(x).square_();
    else
        throw Error(Errc::Unsupported, "hidden_act \"" + kind + "\" is not supported");
}

/// y = w * x / sqrt(mean(x^2) + eps), row by row.
void rmsNorm(const float* x, const float* w, double eps, Index rows, Index width, float* y) {
    for (Index i = 0; i < rows; ++i, x += width, y += width) {
        double sum[4] = {};
        Index c = 0;
        for (; c + 4 <= width; c += 4)
            for (Index a = 0; a < 4; ++a) sum[a] += double(x[c + a]) * double(x[c + a]);
        for (; c < width; ++c) sum[0] += double(x[c]) * double(x[c]);
        const double mean = (sum[0] + sum[1] + sum[2] + sum[3]) / double(width);
        const float inverse = float(1.0 / std::sqrt(mean + eps));
        for (c = 0; c < width; ++c) y[c] = w[c] * (x[c] * inverse);
    }
}

/// cos and sin of the rotation of each position, [rows][pairs].
struct Rotation {
    Index pairs = 0;
    bool interleaved = false;
    std::vector<float> cosine, sine;

    Rotation(const ModelConfig& config, Index first, Index rows)
        : interleaved(config.rope.interleaved) {
        const RopeTable table = ropeTable(config.rope, config.headDim, first + rows);
        pairs = Index(table.inverseFrequency.size());
        cosine.resize(std::size_t(rows * pairs));
        sine.resize(std::size_t(rows * pairs));
        for (Index i = 0; i < rows; ++i)
            for (Index p = 0; p < pairs; ++p) {
                const float angle = float(first + i) * table.inverseFrequency[std::size_t(p)];
                const auto at = std::size_t(i * pairs + p);
                cosine[at] = std::cos(angle) * table.attentionFactor;
                sine[at] = std::sin(angle) * table.attentionFactor;
            }
    }
    /// Turns the head vector `x` of row `row` in place.
    void apply(float* x, Index row) const {
        const float* c = cosine.data() + row * pairs;
        const float* s = sine.data() + row * pairs;
        const Index apart = interleaved ? 1 : pairs, step = interleaved ? 2 : 1;
        for (Index p = 0; p < pairs; ++p) {
            float &a = x[p * step], &b = x[p * step + apart];
            const float a0 = a, b0 = b;
            a = a0 * c[p] - b0 * s[p];
            b = b0 * c[p] + a0 * s[p];
        }
    }
};

[[noreturn]] void rethrow(const c10::Error& e) {
    const std::string what = e.what_without_backtrace();
    const bool memory = what.find("allocate") != std::string::npos;
    throw Error(memory ? Errc::Resources : Errc::Device, "LibTorch: " + what);
}

class LlamaRunner final : public ModelRunner {
public:
    LlamaRunner(ModelConfig config, ModelWeights weights, int threads)
        : m_config(std::move(config)), m_weights(std::move(weights)), m_threads(threads) {
        // One product of a chunk takes at most ~10 Gflop, which bounds memory and the wait for a
        // stop.
        const double flopsPerRow = 2.0 * double(m_config.hidden) *
                                   double(std::max(m_config.intermediate, m_config.hidden));
        m_chunk = std::clamp<Index>(Index(10e9 / flopsPerRow), 64, 1024);
    }
    const ModelConfig& config() const override { return m_config; }
    int threads() const override { return m_threads; }

    void forward(std::span<const std::int32_t> ids, KvCache& cache, const AttentionFn& attention,
                 const Job& job, Index lastLayer) override {
        try {
            run(ids, cache, attention, job, lastLayer);
        } catch (const c10::Error& e) {
            rethrow(e);
        }
    }

    void logits(Index row0, Index row1, float* out) override {
        checkRows(row0, row1);
        head(m_x.data() + row0 * m_config.hidden, row1 - row0, out);
    }

    std::vector<float> hiddenStates(Index row0, Index row1) override {
        checkRows(row0, row1);
        return {m_x.begin() + row0 * m_config.hidden, m_x.begin() + row1 * m_config.hidden};
    }

    void logitsOf(std::span<const float> hidden, float* out) override {
        head(hidden.data(), Index(hidden.size()) / m_config.hidden, out);
    }

private:
    void checkRows(Index row0, Index row1) const {
        if (row0 < 0 || row1 < row0 || row1 > m_rows)
            throw Error(Errc::Usage, "logits of rows " + std::to_string(row0) + " to " +
                                         std::to_string(row1) + " asked, the last forward has " +
                                         std::to_string(m_rows));
    }

    /// Final norm and output matrix over `count` rows of hidden states.
    void head(const float* hidden, Index count, float* out) const {
        try {
            const c10::InferenceMode guard;
            useTorchThreads(m_threads);
            const Weight& w = m_weights.head.given() ? m_weights.head : m_weights.embedding;
            std::vector<float> normed(std::size_t(std::min(m_chunk, count) * m_config.hidden));
            for (Index r = 0; r < count; r += m_chunk) {
                const Index rows = std::min(m_chunk, count - r);
                norm(m_weights.norm, hidden + r * m_config.hidden, rows, normed.data());
                project(matrix(out + r * m_config.vocab, rows, m_config.vocab),
                        matrix(normed.data(), rows, m_config.hidden), w, {});
            }
        } catch (const c10::Error& e) {
            rethrow(e);
        }
    }

    void norm(const Weight& w, const float* x, Index rows, float* y) const {
        rmsNorm(x, w.values.data(), m_config.normEps, rows, m_config.hidden, y);
    }

    void run(std::span<const std::int32_t> ids, KvCache& cache, const AttentionFn& attention,
             const Job& job, Index lastLayer) {
        const ModelConfig& c = m_config;
        const Index n = Index(ids.size()), past = cache.length();
        check(ids, cache);
        const Index layers = lastLayer < 0 ? c.layers : std::min(lastLayer + 1, c.layers);
        m_rows = 0;
        const c10::InferenceMode guard;
        useTorchThreads(m_threads);

        m_x.resize(std::size_t(n * c.hidden));
        for (Index i = 0; i < n; ++i)
            std::copy_n(m_weights.embedding.values.data() + ids[std::size_t(i)] * c.hidden,
                        c.hidden, m_x.data() + i * c.hidden);
        const Rotation rotation(c, past, n);
        const Index width = c.heads * c.headDim;
        std::vector<float> q(std::size_t(n * width)), o(std::size_t(n * width));

        for (Index l = 0; l < layers; ++l) {
            const std::string stage =
                "layer " + std::to_string(l + 1) + " of " + std::to_string(layers);
            job.step(double(l) / double(layers), stage);
            queriesKeysValues(l, past, n, rotation, q.data(), cache, job);

            LayerCall call;
            call.layer = l;
            kernels::Problem& p = call.problem;
            p.Hq = c.heads;
            p.Hkv = c.kvHeads;
            p.Nq = n;
            p.Nk = past + n;
            p.d = p.dv = c.headDim;
            p.scale = float(c.scale());
            const Index headStride = cache.capacity() * c.headDim;
            call.q = {q.data(), kernels::DType::F32, n * width, c.headDim, width};
            call.k = {cache.key(l, 0, 0), kernels::DType::F32, c.kvHeads * headStride, headStride,
                      c.headDim};
            call.v = {cache.value(l, 0, 0), kernels::DType::F32, c.kvHeads * headStride, headStride,
                      c.headDim};
            call.o = {o.data(), kernels::DType::F32, n * width, c.headDim, width};
            attention(call);
            useTorchThreads(m_threads);  // the callee may have run a pool of its own

            // The last layer's output matters only to logits.
            if (lastLayer < 0 || l + 1 < layers) finishLayer(l, n, o.data(), job);
        }
        cache.setLength(past + n);
        if (layers == c.layers && lastLayer < 0) m_rows = n;
        job.step(1, "forward pass done");
    }

    void check(std::span<const std::int32_t> ids, const KvCache& cache) const {
        if (ids.empty()) throw Error(Errc::Usage, "there are no tokens to run the model on");
        for (std::size_t i = 0; i < ids.size(); ++i)
            if (ids[i] < 0 || ids[i] >= m_config.vocab)
                throw Error(Errc::Usage, "token " + std::to_string(i) + " has id " +
                                             std::to_string(ids[i]) + ", model '" + m_config.name +
                                             "' has ids 0 to " +
                                             std::to_string(m_config.vocab - 1));
        if (cache.length() + Index(ids.size()) > cache.capacity())
            throw Error(Errc::Usage, "the key/value cache holds " +
                                         std::to_string(cache.capacity()) + " tokens, " +
                                         std::to_string(cache.length() + Index(ids.size())) +
                                         " are needed");
        if (!cache.canContinue())
            throw Error(Errc::Usage, "this key/value cache keeps one layer only and cannot go on");
    }

    /// q [n][Hq D] and the layer's part of the cache, rotated.
    void queriesKeysValues(Index l, Index past, Index n, const Rotation& rotation, float* q,
                           KvCache& cache, const Job& job) {
        const ModelConfig& c = m_config;
        const BlockWeights& b = m_weights.blocks[std::size_t(l)];
        const Index width = c.heads * c.headDim, kvWidth = c.kvHeads * c.headDim;
        const Index most = std::min(m_chunk, n);
        std::vector<float> normed(std::size_t(most * c.hidden));
        std::vector<float> k(std::size_t(most * kvWidth)), v(std::size_t(most * kvWidth));
        for (Index r = 0; r < n; r += m_chunk) {
            job.check();
            const Index rows = std::min(m_chunk, n - r);
            norm(b.attentionNorm, m_x.data() + r * c.hidden, rows, normed.data());
            const at::Tensor x = matrix(normed.data(), rows, c.hidden);
            project(matrix(q + r * width, rows, width), x, b.q, b.qBias);
            project(matrix(k.data(), rows, kvWidth), x, b.k, b.kBias);
            project(matrix(v.data(), rows, kvWidth), x, b.v, b.vBias);
            if (!allFinite(q + r * width, rows * width) || !allFinite(k.data(), rows * kvWidth) ||
                !allFinite(v.data(), rows * kvWidth))
                notFinite(l, "queries, keys or values");
            for (Index i = 0; i < rows; ++i) {
                for (Index h = 0; h < c.heads; ++h)
                    rotation.apply(q + (r + i) * width + h * c.headDim, r + i);
                for (Index h = 0; h < c.kvHeads; ++h) {
                    float* head = k.data() + i * kvWidth + h * c.headDim;
                    rotation.apply(head, r + i);
                    std::copy_n(head, c.headDim, cache.key(l, h, past + r + i));
                    std::copy_n(v.data() + i * kvWidth + h * c.headDim, c.headDim,
                                cache.value(l, h, past + r + i));
                }
            }
        }
    }

    /// x += o(attention); x += mlp(x), in chunks of rows.
    void finishLayer(Index l, Index n, float* attention, const Job& job) {
        const ModelConfig& c = m_config;
        const BlockWeights& b = m_weights.blocks[std::size_t(l)];
        const Index width = c.heads * c.headDim, most = std::min(m_chunk, n);
        std::vector<float> normed(std::size_t(most * c.hidden));
        std::vector<float> gate(std::size_t(most * c.intermediate)), up(gate.size());
        for (Index r = 0; r < n; r += m_chunk) {
            job.check();
            const Index rows = std::min(m_chunk, n - r);
            float* x = m_x.data() + r * c.hidden;
            const at::Tensor sum = matrix(x, rows, c.hidden);
            projectOnto(sum, matrix(attention + r * width, rows, width), b.o, b.oBias);
            norm(b.mlpNorm, x, rows, normed.data());
            const at::Tensor in = matrix(normed.data(), rows, c.hidden);
            const at::Tensor g = matrix(gate.data(), rows, c.intermediate);
            const at::Tensor u = matrix(up.data(), rows, c.intermediate);
            project(g, in, b.gate, b.gateBias);
            job.check();
            project(u, in, b.up, b.upBias);
            job.check();
            activate(g, c.activation);
            g.mul_(u);
            projectOnto(sum, g, b.down, b.downBias);
            if (!allFinite(x, rows * c.hidden)) notFinite(l, "activations");
        }
    }

    [[noreturn]] void notFinite(Index layer, const std::string& what) const {
        throw Error(Errc::Format, "model '" + m_config.name + "': the " + what + " of layer " +
                                      std::to_string(layer) +
                                      " became NaN or infinite; the weights may be damaged or "
                                      "the prompt far beyond the model's positions");
    }

    ModelConfig m_config;
    ModelWeights m_weights;
    int m_threads;
    Index m_chunk = 1024;
    std::vector<float> m_x;  ///< hidden states of the last forward, [m_rows][hidden]
    Index m_rows = 0;        ///< 0 = no complete forward yet
};

}  // namespace

std::unique_ptr<ModelRunner> loadModel(const std::filesystem::path& directory, int threads,
                                       const Job& job) {
    ModelConfig config = readConfig(directory);
    try {
        const c10::InferenceMode guard;
        ModelWeights weights = loadWeights(directory, config, job);
        return std::make_unique<LlamaRunner>(std::move(config), std::move(weights),
                                             threads > 0 ? threads : kernels::physicalCores());
    } catch (const c10::Error& e) {
        rethrow(e);
    }
}

double measureGemm(int threads) {
    const c10::InferenceMode guard;
    useTorchThreads(threads > 0 ? threads : kernels::physicalCores());
    constexpr Index n = 512;
    std::vector<float> a(std::size_t(n * n), 0.5f), b(a), out(a);
    const at::Tensor x = matrix(a.data(), n, n), y = matrix(b.data(), n, n);
    at::Tensor product = matrix(out.data(), n, n);
    at::mm_out(product, x, y.t());  // starts the threads
    using Clock = std::chrono::steady_clock;
    const auto start = Clock::now();
    int runs = 0;
    double seconds = 0;
    while (seconds < 0.05) {
        at::mm_out(product, x, y.t());
        ++runs;
        seconds = std::chrono::duration<double>(Clock::now() - start).count();
    }
    return double(runs) * 2.0 * double(n * n * n) / seconds;
}

}  // namespace sparsight
