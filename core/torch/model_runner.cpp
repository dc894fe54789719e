#include "core/model/runner.h"

#include <ATen/ops/empty_like.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/full.h>
#include <ATen/ops/mm.h>
#include <c10/core/InferenceMode.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <chrono>
#include <cmath>

#include "core/model/device.h"
#include "core/model/rope.h"
#include "core/torch/decoder.h"
#include "core/torch/encoder_runner.h"
#include "core/torch/experts.h"
#include "core/torch/gpu.h"
#include "core/torch/gpu_decoder.h"
#include "core/torch/gpu_or_cpu.h"
#include "core/torch/ops.h"
#include "core/torch/threads.h"

namespace sparsight {
namespace {

/// cos and sin of the rotation of each position, [rows][pairs].
class Rotation {
public:
    /// @param dim  width of the part of a head that RoPE may turn
    Rotation(const RopeConfig& rope, Index dim, Index first, Index rows, const Job& job)
        : m_interleaved(rope.interleaved), m_writesHalves(rope.writesHalves) {
        const RopeTable table = ropeTable(rope, dim, first + rows);
        m_pairs = Index(table.inverseFrequency.size());
        m_cosine.resize(std::size_t(rows * m_pairs));
        m_sine.resize(std::size_t(rows * m_pairs));
        m_old.resize(std::size_t(2 * m_pairs));
        for (Index i = 0; i < rows; ++i) {
            if (i % 512 == 0) job.check();
            for (Index p = 0; p < m_pairs; ++p) {
                const float angle = float(first + i) * table.inverseFrequency[std::size_t(p)];
                const auto at = std::size_t(i * m_pairs + p);
                m_cosine[at] = std::cos(angle) * table.attentionFactor;
                m_sine[at] = std::sin(angle) * table.attentionFactor;
            }
        }
    }
    /// Turns the vector `x` of row `row` in place.
    void apply(float* x, Index row) {
        const float* c = m_cosine.data() + row * m_pairs;
        const float* s = m_sine.data() + row * m_pairs;
        if (m_writesHalves) {
            std::copy_n(x, 2 * m_pairs, m_old.data());
            for (Index p = 0; p < m_pairs; ++p) {
                const float a = m_old[std::size_t(2 * p)], b = m_old[std::size_t(2 * p + 1)];
                x[p] = a * c[p] - b * s[p];
                x[p + m_pairs] = b * c[p] + a * s[p];
            }
            return;
        }
        const Index apart = m_interleaved ? 1 : m_pairs, step = m_interleaved ? 2 : 1;
        for (Index p = 0; p < m_pairs; ++p) {
            float &a = x[p * step], &b = x[p * step + apart];
            const float a0 = a, b0 = b;
            a = a0 * c[p] - b0 * s[p];
            b = b0 * c[p] + a0 * s[p];
        }
    }

private:
    Index m_pairs = 0;
    bool m_interleaved, m_writesHalves;
    std::vector<float> m_cosine, m_sine, m_old;
};

/// c tanh(x / c); c = 0 changes nothing.
void cap(float* x, Index count, double c) {
    if (c <= 0) return;
    for (Index i = 0; i < count; ++i) x[i] = float(c) * std::tanh(x[i] / float(c));
}

/// The forward pass of every decoder on the CPU, in float32: ModelConfig says what its blocks are
/// made of.
class DecoderRunner final : public Decoder {
public:
    DecoderRunner(ModelConfig config, WeightFile file, int threads, const Job& job)
        : Decoder(std::move(config), std::move(file), threads) {
        // One product of a chunk takes at most ~10 Gflop, which bounds memory and the wait for a
        // stop.
        const double flopsPerRow = 2.0 * double(m_config.hidden) *
                                   double(std::max(m_config.intermediate, m_config.hidden));
        m_chunk = std::clamp<Index>(Index(10e9 / flopsPerRow), 64, 1024);

        if (m_width != m_config.hidden)
            m_projectIn =
                m_file.linear(m_file.prefix() + "project_in", m_config.hidden, m_width, false);
        m_layers.resize(std::size_t(m_config.layers));
        const Index bytes = m_file.wantedBytes();
        m_keep = bytes <= kConvertedAtOnce || bytes <= availableMemory() / 2;
        if (bytes > kConvertedAtOnce) return;
        for (Index l = 0; l < m_config.layers; ++l) {
            job.step(double(l) / double(m_config.layers), "reading layer " + std::to_string(l + 1) +
                                                              " of " +
                                                              std::to_string(m_config.layers));
            LayerWeights& w = keep(l);
            for (std::size_t e = 0; e < w.experts.size(); ++e)
                w.experts[e] = readExpert(m_file, m_config, l, Index(e));
        }
        readHead();
    }
    void logits(Index row0, Index row1, float* out) override {
        checkRows(row0, row1);
        logitsFrom(m_x.data() + row0 * m_config.hidden, row1 - row0, out);
    }

    std::vector<float> hiddenStates(Index row0, Index row1) override {
        checkRows(row0, row1);
        return {m_x.begin() + row0 * m_config.hidden, m_x.begin() + row1 * m_config.hidden};
    }

    void logitsOf(std::span<const float> hidden, float* out) override {
        logitsFrom(hidden.data(), Index(hidden.size()) / m_config.hidden, out);
    }

    void setHiddenStates(std::span<const float> hidden) override {
        m_x.assign(hidden.begin(), hidden.end());
        m_rows = Index(hidden.size()) / m_config.hidden;
    }

private:
    // --- weights ---

    LayerWeights& keep(Index l) {
        auto& slot = m_layers[std::size_t(l)];
        slot = std::make_unique<LayerWeights>(readLayer(m_file, m_config, l));
        if (m_config.layer(l).experts) slot->experts.resize(std::size_t(m_config.experts.count));
        return *slot;
    }

    /// What turns hidden states into logits is read when somebody asks for logits.
    void readHead() {
        if (m_head.given()) return;
        const ModelConfig& c = m_config;
        if (c.finalNorm)
            m_norm = m_file.norm(m_file.prefix() + m_row.finalNorm, c.hidden,
                                 c.block.norm == NormKind::Layer);
        if (m_projectIn.given())
            m_projectOut = m_file.linear(m_file.prefix() + "project_out", m_width, c.hidden, false);
        m_head.w = m_file.read(outputMatrix(m_file, c), {c.vocab, m_width});
    }

    // --- logits ---

    /// Final norm and output matrix over `count` rows of hidden states.
    void logitsFrom(const float* hidden, Index count, float* out) {
        const ModelConfig& c = m_config;
        try {
            const c10::InferenceMode guard;
            useTorchThreads(m_threads);
            readHead();
            const Index most = std::min(m_chunk, count);
            std::vector<float> normed(std::size_t(most * c.hidden));
            std::vector<float> narrow(m_projectOut.given() ? std::size_t(most * m_width) : 0);
            for (Index r = 0; r < count; r += m_chunk) {
                const Index rows = std::min(m_chunk, count - r);
                const float* x = hidden + r * c.hidden;
                if (m_norm.given()) {
                    applyNorm(c.block.norm, m_norm, c.normEps, x, rows, c.hidden, normed.data());
                    x = normed.data();
                }
                if (m_projectOut.given()) {
                    project(narrow.data(), x, rows, m_projectOut);
                    x = narrow.data();
                }
                project(out + r * c.vocab, x, rows, m_head);
                cap(out + r * c.vocab, rows * c.vocab, c.logitSoftcap);
            }
        } catch (const c10::Error& e) {
            rethrowTorch(e);
        }
    }

    // --- the pass ---

    void keepLastRows(Index count) override {
        m_x.erase(m_x.begin(), m_x.begin() + (m_rows - count) * m_config.hidden);
        m_rows = count;
    }

    void run(std::span<const std::int32_t> ids, KvCache& cache, const AttentionFn& attention,
             const Job& job, Index lastLayer) override {
        const ModelConfig& c = m_config;
        const Index n = Index(ids.size()), past = cache.length();
        const Index layers = lastLayer < 0 ? c.layers : std::min(lastLayer + 1, c.layers);
        m_rows = 0;
        const c10::InferenceMode guard;
        useTorchThreads(m_threads);
        embed(ids, past);

        const Index turned = c.latent.used() ? c.latent.rope : c.headDim;
        Rotation rotation(c.rope, turned, past, n, job);
        const bool two = std::any_of(c.layerConfigs.begin(), c.layerConfigs.end(),
                                     [](const LayerConfig& layer) { return layer.localRope; });
        Rotation local(c.localRope, turned, past, two ? n : 0, job);
        std::vector<float> q(std::size_t(n * c.heads * c.headDim)),
            o(std::size_t(n * c.heads * c.valueWidth()));

        for (Index l = 0; l < layers; ++l) {
            job.step(double(l) / double(layers),
                     "layer " + std::to_string(l + 1) + " of " + std::to_string(layers));
            // A pass that nobody continues uses each layer once: it does not stay.
            const bool stays = m_layers[std::size_t(l)] || (m_keep && cache.keepsAllLayers());
            LayerWeights once;
            if (!stays) once = readLayer(m_file, m_config, l);
            LayerWeights& w = !stays                     ? once
                              : m_layers[std::size_t(l)] ? *m_layers[std::size_t(l)]
                                                         : keep(l);
            const LayerConfig layer = c.layer(l);
            Rotation* turn = !layer.rotates ? nullptr : layer.localRope ? &local : &rotation;
            queriesKeysValues(l, w, past, n, turn, q.data(), cache, job);
            attend(l, w, past, n, q.data(), o.data(), cache, attention);
            // The last layer's output matters only to logits.
            if (lastLayer < 0 || l + 1 < layers) finishLayer(l, w, n, o.data(), job);
            if (!stays) m_file.releasePages();
        }
        cache.setLength(past + n);
        if (layers == c.layers && lastLayer < 0) m_rows = n;
        job.step(1, "forward pass done");
    }

    /// m_x [n][hidden]: token embeddings and learned positions.
    void embed(std::span<const std::int32_t> ids, Index past) {
        const ModelConfig& c = m_config;
        const Index n = Index(ids.size());
        m_x.resize(std::size_t(n * c.hidden));
        std::vector<float> narrow(m_projectIn.given() ? std::size_t(n * m_width) : 0);
        float* rows = m_projectIn.given() ? narrow.data() : m_x.data();
        for (Index i = 0; i < n; ++i)
            m_file.readPart(m_embedding, ids[std::size_t(i)] * m_width,
                            {rows + i * m_width, std::size_t(m_width)});
        if (m_projectIn.given()) project(m_x.data(), rows, n, m_projectIn);
        if (c.embeddingScale != 1)
            for (float& x : m_x) x *= float(c.embeddingScale);
        if (c.positionRows == 0) return;
        std::vector<float> position(static_cast<std::size_t>(c.hidden));
        for (Index i = 0; i < n; ++i) {
            m_file.readPart(m_file.prefix() + m_row.positions,
                            (past + i + c.positionOffset) * c.hidden, position);
            for (Index e = 0; e < c.hidden; ++e)
                m_x[std::size_t(i * c.hidden + e)] += position[std::size_t(e)];
        }
    }

    /// y = norm of m_x's rows, or the rows themselves where the block has no such norm.
    const float* normed(const NormWeight& w, Index row, Index rows, std::vector<float>& y) const {
        const ModelConfig& c = m_config;
        const float* x = m_x.data() + row * c.hidden;
        if (!w.given()) return x;
        applyNorm(c.block.norm, w, c.normEps, x, rows, c.hidden, y.data());
        return y.data();
    }

    /// q [n][Hq D] and the layer's part of the cache, rotated.
    void queriesKeysValues(Index l, const LayerWeights& w, Index past, Index n, Rotation* rotation,
                           float* q, KvCache& cache, const Job& job) {
        const ModelConfig& c = m_config;
        const Index d = c.headDim, dv = c.valueWidth(), width = c.heads * d, kWidth = c.kvHeads * d,
                    vWidth = c.kvHeads * dv;
        const Index most = std::min(m_chunk, n);
        std::vector<float> space(std::size_t(most * c.hidden));
        std::vector<float> k(std::size_t(most * kWidth)), v(std::size_t(most * vWidth));
        for (Index r = 0; r < n; r += m_chunk) {
            job.check();
            const Index rows = std::min(m_chunk, n - r);
            const float* x = normed(w.attentionNorm, r, rows, space);
            float* qRows = q + r * width;
            if (c.latent.used()) {
                latentProjections(w, x, r, rows, rotation, qRows, k.data(), v.data());
            } else {
                project(qRows, x, rows, w.q);
                project(k.data(), x, rows, w.k);
                project(v.data(), x, rows, w.v);
                normHeads(w.qNorm, rows, c.heads, qRows);
                normHeads(w.kNorm, rows, c.kvHeads, k.data());
            }
            if (!allFinite(qRows, rows * width) || !allFinite(k.data(), rows * kWidth) ||
                !allFinite(v.data(), rows * vWidth))
                notFinite(l, "queries, keys or values");
            for (Index i = 0; i < rows; ++i) {
                if (rotation && !c.latent.used()) {
                    for (Index h = 0; h < c.heads; ++h)
                        rotation->apply(qRows + i * width + h * d, r + i);
                    for (Index h = 0; h < c.kvHeads; ++h)
                        rotation->apply(k.data() + i * kWidth + h * d, r + i);
                }
                for (Index h = 0; h < c.kvHeads; ++h) {
                    std::copy_n(k.data() + i * kWidth + h * d, d, cache.key(l, h, past + r + i));
                    std::copy_n(v.data() + i * vWidth + h * dv, dv,
                                cache.value(l, h, past + r + i));
                }
            }
        }
    }

    /// The q and k norms: over each head, or over all of them together.
    void normHeads(const NormWeight& w, Index rows, Index heads, float* x) const {
        if (!w.given()) return;
        const ModelConfig& c = m_config;
        if (c.block.wholeNorms)
            applyNorm(c.block.norm, w, c.normEps, x, rows, heads * c.headDim, x);
        else
            applyNorm(c.block.norm, w, c.normEps, x, rows * heads, c.headDim, x);
    }

    /// Latent attention: q and the expanded keys and values of every head, rotated.
    ///
    ///     q = [q_nope | rot(q_rope)],  k = [k_nope | rot(k_rope), shared by all heads]
    void latentProjections(const LayerWeights& w, const float* x, Index firstRow, Index rows,
                           Rotation* rotation, float* q, float* k, float* v) const {
        const ModelConfig& c = m_config;
        const LatentConfig& m = c.latent;
        const Index d = c.headDim, dv = c.valueWidth(), down = m.kvRank + m.rope, up = m.nope + dv;
        if (m.qRank > 0) {
            std::vector<float> latent(std::size_t(rows * m.qRank));
            project(latent.data(), x, rows, w.qDown);
            applyNorm(c.block.norm, w.qDownNorm, kLatentEps, latent.data(), rows, m.qRank,
                      latent.data());
            project(q, latent.data(), rows, w.q);
        } else {
            project(q, x, rows, w.q);
        }
        std::vector<float> both(std::size_t(rows * down)), latent(std::size_t(rows * m.kvRank)),
            expanded(std::size_t(rows * c.heads * up));
        project(both.data(), x, rows, w.kvDown);
        for (Index i = 0; i < rows; ++i)
            std::copy_n(both.data() + i * down, m.kvRank, latent.data() + i * m.kvRank);
        applyNorm(c.block.norm, w.kvDownNorm, kLatentEps, latent.data(), rows, m.kvRank,
                  latent.data());
        project(expanded.data(), latent.data(), rows, w.kvUp);
        for (Index i = 0; i < rows; ++i) {
            float* kRope = both.data() + i * down + m.kvRank;
            if (rotation) rotation->apply(kRope, firstRow + i);
            for (Index h = 0; h < c.heads; ++h) {
                const Index head = i * c.heads + h;
                const float* from = expanded.data() + head * up;
                if (rotation) rotation->apply(q + head * d + m.nope, firstRow + i);
                std::copy_n(from, m.nope, k + head * d);
                std::copy_n(kRope, m.rope, k + head * d + m.nope);
                std::copy_n(from + m.nope, dv, v + head * dv);
            }
        }
    }

    void attend(Index l, const LayerWeights& w, Index past, Index n, const float* q, float* o,
                KvCache& cache, const AttentionFn& attention) const {
        const ModelConfig& c = m_config;
        const Index d = c.headDim, dv = c.valueWidth();
        LayerCall call;
        call.layer = l;
        call.problem = problemOf(l, n, past + n);
        call.problem.sinks = w.sinks.data;
        const Index kHead = cache.capacity() * d, vHead = cache.capacity() * dv;
        const auto f32 = kernels::DType::F32;
        call.q = {q, f32, n * c.heads * d, d, c.heads * d};
        call.k = {cache.key(l, 0, 0), f32, c.kvHeads * kHead, kHead, d};
        call.v = {cache.value(l, 0, 0), f32, c.kvHeads * vHead, vHead, dv};
        call.o = {o, f32, n * c.heads * dv, dv, c.heads * dv};
        call.hidden = m_x.data();
        attention(call);
        useTorchThreads(m_threads);  // the callee may have run a pool of its own
    }

    /// x += attention, x += mlp with the block's norms around them, in chunks of rows; experts take
    /// all rows at once, so that each is read once.
    void finishLayer(Index l, LayerWeights& w, Index n, const float* attention, const Job& job) {
        const ModelConfig& c = m_config;
        const bool experts = c.layer(l).experts;
        const Index most = std::min(m_chunk, n), oWidth = c.heads * c.valueWidth();
        std::vector<float> space(std::size_t(most * c.hidden)), branch(space.size());
        std::vector<float> mlpIn(experts ? std::size_t(n * c.hidden) : 0);
        for (Index r = 0; r < n; r += m_chunk) {
            job.check();
            const Index rows = std::min(m_chunk, n - r);
            float* x = m_x.data() + r * c.hidden;
            const float* in = nullptr;
            if (c.block.parallel) in = normed(w.mlpNorm, r, rows, space);
            addBranch(w.attentionOutNorm, w.attentionSumNorm, x, rows, branch,
                      [&](float* sum) { projectOnto(sum, attention + r * oWidth, rows, w.o); });
            if (!c.block.parallel) in = normed(w.mlpNorm, r, rows, space);
            if (experts) {
                std::copy_n(in, rows * c.hidden, mlpIn.data() + r * c.hidden);
                continue;
            }
            // Without a norm before the branch its input is x, which the branch is added to.
            addBranch(w.mlpOutNorm, w.mlpSumNorm, x, rows, branch,
                      [&](float* sum) { mlpOnto(w.mlp, in, rows, c.activation, sum, job); });
            if (!allFinite(x, rows * c.hidden)) notFinite(l, "activations");
        }
        if (!experts) return;
        std::vector<float> sum(mlpIn.size());
        runExperts(
            c, w, mlpIn.data(), n, m_chunk,
            [&](Index e) -> MlpWeights {
                if (m_layers[std::size_t(l)] == nullptr) return readExpert(m_file, c, l, e);
                MlpWeights& kept = w.experts[std::size_t(e)];
                if (!kept.down.given()) kept = readExpert(m_file, c, l, e);
                return kept;
            },
            sum.data(), job);
        for (Index r = 0; r < n; r += m_chunk) {
            const Index rows = std::min(m_chunk, n - r);
            float* x = m_x.data() + r * c.hidden;
            addBranch(w.mlpOutNorm, w.mlpSumNorm, x, rows, branch, [&](float* to) {
                const float* from = sum.data() + r * c.hidden;
                for (Index i = 0; i < rows * c.hidden; ++i) to[i] += from[i];
            });
            if (!allFinite(x, rows * c.hidden)) notFinite(l, "activations");
        }
    }

    /// x = sumNorm(x + outNorm(branch)); `addTo` adds the branch to what it is given.
    template <class AddTo>
    void addBranch(const NormWeight& outNorm, const NormWeight& sumNorm, float* x, Index rows,
                   std::vector<float>& space, AddTo addTo) const {
        const ModelConfig& c = m_config;
        const Index count = rows * c.hidden;
        if (outNorm.given()) {
            std::fill_n(space.begin(), count, 0.0f);
            addTo(space.data());
            applyNorm(c.block.norm, outNorm, c.normEps, space.data(), rows, c.hidden, space.data());
            for (Index i = 0; i < count; ++i) x[i] += space[std::size_t(i)];
        } else {
            addTo(x);
        }
        if (sumNorm.given()) applyNorm(c.block.norm, sumNorm, c.normEps, x, rows, c.hidden, x);
    }

    Index m_chunk = 1024;
    bool m_keep = true;                                   ///< there is room for all layers
    std::vector<std::unique_ptr<LayerWeights>> m_layers;  ///< null = not converted
    Linear m_projectIn, m_projectOut, m_head;
    NormWeight m_norm;
    std::vector<float> m_x;  ///< hidden states of the last forward, [m_rows][hidden]
};

std::unique_ptr<Decoder> makeCpuDecoder(const std::filesystem::path& directory,
                                        const ModelConfig& config, int threads, const Job& job) {
    const c10::InferenceMode guard;
    return std::make_unique<DecoderRunner>(config, openWeights(directory, config), threads, job);
}

}  // namespace

std::unique_ptr<ModelRunner> loadModel(const std::filesystem::path& directory, int threads,
                                       const Job& job, std::string_view device) {
    const DeviceChoice choice = parseDevice(device);
    ModelConfig config = readConfig(directory);
    if (threads <= 0) threads = kernels::physicalCores();
    if (config.encoder) return loadEncoder(directory, std::move(config), threads, job, choice.id());
    try {
        if (!choice.gpu) return makeCpuDecoder(directory, config, threads, job);
        return makeGpuOrCpu(
            [=]() -> std::unique_ptr<Decoder> {
                const TorchDevices torch = torchDevices();
                if (!torch.gpu) throw Error(Errc::Resources, torch.reason);
                return makeGpuDecoder(config, openWeights(directory, config), threads,
                                      choice.id());
            },
            [=](const Job& quiet) { return makeCpuDecoder(directory, config, threads, quiet); },
            job);
    } catch (const c10::Error& e) {
        rethrowTorch(e);
    }
}

double measureGemm(int threads, std::string_view device) {
    const c10::InferenceMode guard;
    useTorchThreads(threads > 0 ? threads : kernels::physicalCores());
    const bool onGpu = parseDevice(device).gpu;
    if (onGpu && !torchDevices().gpu) return 0;
    try {
        const at::Device place = gpu::device(device);
        const Index n = onGpu ? 4096 : 512;
        const at::Tensor x = at::full({n, n}, 0.5,
                                      at::TensorOptions(onGpu ? at::kBFloat16 : at::kFloat)
                                          .device(place));
        at::Tensor product = at::empty_like(x);
        at::mm_out(product, x, x.t());  // starts the threads
        gpu::wait(place);
        using Clock = std::chrono::steady_clock;
        const auto start = Clock::now();
        int runs = 0;
        double seconds = 0;
        while (seconds < 0.05) {
            at::mm_out(product, x, x.t());
            gpu::wait(place);
            ++runs;
            seconds = std::chrono::duration<double>(Clock::now() - start).count();
        }
        return double(runs) * 2.0 * double(n * n * n) / seconds;
    } catch (const c10::Error& e) {
        rethrowTorch(e);
    }
}

std::shared_ptr<const void> onGpu(std::span<const float> values, std::string_view device) {
    if (!parseDevice(device).gpu || !torchDevices().gpu) return nullptr;
    try {
        const c10::InferenceMode guard;
        const at::Device place = gpu::device(device);
        auto tensor = std::make_shared<at::Tensor>(
            at::from_blob(const_cast<float*>(values.data()), {Index(values.size())}, at::kFloat)
                .to(at::TensorOptions(at::kBFloat16).device(place)));
        gpu::wait(place);
        return {tensor, tensor->data_ptr()};
    } catch (const c10::Error& e) {
        rethrowTorch(e);
    }
}

}  // namespace sparsight
