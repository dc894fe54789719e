#include "core/torch/gpu_decoder.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/clamp.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/rsqrt.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tanh.h>
#include <ATen/ops/zeros.h>
#include <c10/core/InferenceMode.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>
#include <atomic>
#include <future>
#include <mutex>

#include "core/capture/cost.h"
#include "core/model/device.h"
#include "core/model/rope.h"
#include "core/torch/experts.h"
#include "core/torch/gpu.h"
#include "core/torch/ops.h"
#include "core/torch/threads.h"

namespace sparsight {
namespace {

/// A matrix [out, in] with its bias, or a norm's weight and bias; undefined = not there.
struct Part {
    at::Tensor w, b;
    bool given() const { return w.defined(); }
};
struct Mlp {
    Part gate, up, down;
};
/// LayerWeights on the device.
struct Layer {
    Part attentionNorm, attentionOutNorm, attentionSumNorm, mlpNorm, mlpOutNorm, mlpSumNorm;
    Part q, k, v, o, qNorm, kNorm, qDown, kvDown, kvUp, qDownNorm, kvDownNorm, router;
    Mlp mlp;
    std::vector<Mlp> experts;
    std::vector<float> sinks, correction;  ///< in the CPU's memory
};

at::Tensor project(const at::Tensor& x, const Part& w) {
    return w.b.defined() ? at::addmm(w.b, x, w.w.t()) : at::mm(x, w.w.t());
}

at::Tensor activate(const at::Tensor& x, const std::string& kind) {
    if (kind == "silu") return at::silu(x);
    if (kind == "gelu") return at::gelu(x, "none");
    if (kind == "gelu_new" || kind == "gelu_pytorch_tanh" || kind == "gelu_fast")
        return at::gelu(x, "tanh");
    if (kind == "quick_gelu") return x * at::sigmoid(x * 1.702);
    if (kind == "relu") return at::relu(x);
    if (kind == "relu2") return at::relu(x).square();
    throw Error(Errc::Unsupported, "hidden_act \"" + kind + "\" is not supported");
}

at::Tensor mlpOf(const Mlp& w, const at::Tensor& x, const std::string& activation) {
    at::Tensor up = project(x, w.up);
    if (w.gate.given())
        up = activate(project(x, w.gate), activation).mul_(up);
    else
        up = activate(up, activation);
    return project(up, w.down);
}

/// c tanh(x / c); c = 0 changes nothing.
at::Tensor capped(const at::Tensor& x, double c) {
    return c > 0 ? at::tanh(x / c) * c : x;
}

/// cos and sin of the rotation of each position, [rows, 1, pairs] float32.
class Rotation {
public:
    /// @param dim  width of the part of a head that RoPE may turn
    Rotation(const RopeConfig& rope, Index dim, Index first, Index rows, at::Device device)
        : m_interleaved(rope.interleaved), m_writesHalves(rope.writesHalves) {
        const RopeTable table = ropeTable(rope, dim, first + rows);
        m_pairs = Index(table.inverseFrequency.size());
        const auto options = at::TensorOptions(at::kFloat).device(device);
        const at::Tensor frequency =
            at::from_blob(const_cast<float*>(table.inverseFrequency.data()), {1, 1, m_pairs},
                          at::kFloat)
                .to(device);
        const at::Tensor angle =
            at::arange(first, first + rows, options).view({rows, 1, 1}) * frequency;
        m_cosine = angle.cos() * double(table.attentionFactor);
        m_sine = angle.sin() * double(table.attentionFactor);
    }
    /// Turns the first 2 * pairs numbers of each head of x [rows, heads, dim] in place; its first
    /// row is row `row` of the pass.
    void apply(const at::Tensor& x, Index row) const {
        if (m_pairs == 0) return;
        const Index rows = x.size(0), heads = x.size(1);
        const at::Tensor part = x.narrow(2, 0, 2 * m_pairs), wide = part.to(at::kFloat);
        const at::Tensor c = m_cosine.narrow(0, row, rows), s = m_sine.narrow(0, row, rows);
        at::Tensor a, b;
        if (m_interleaved || m_writesHalves) {
            const at::Tensor pairs = wide.reshape({rows, heads, m_pairs, 2});
            a = pairs.select(3, 0);
            b = pairs.select(3, 1);
        } else {
            a = wide.narrow(2, 0, m_pairs);
            b = wide.narrow(2, m_pairs, m_pairs);
        }
        const at::Tensor first = a * c - b * s, second = b * c + a * s;
        part.copy_(m_interleaved && !m_writesHalves
                       ? at::stack({first, second}, 3).reshape({rows, heads, 2 * m_pairs})
                       : at::cat({first, second}, 2));
    }

private:
    bool m_interleaved, m_writesHalves;
    Index m_pairs = 0;
    at::Tensor m_cosine, m_sine;
};

class GpuDecoder final : public Decoder {
public:
    GpuDecoder(ModelConfig config, WeightFile file, int threads, std::string_view device)
        : Decoder(std::move(config), std::move(file), threads), m_device(gpu::device(device)) {
        const StDType stored = m_file.file().tensors().at(m_embedding).dtype;
        m_type = stored == StDType::F16   ? at::kHalf
                 : stored == StDType::F32 ? at::kFloat
                                          : at::kBFloat16;
        m_file.setMode(WeightFile::Mode::Stored);
        m_layers.resize(std::size_t(m_config.layers));
        m_bytesEach = m_type == at::kFloat ? 4 : 2;
        m_keep = modelParameters(m_config) * m_bytesEach <= gpu::freeMemory(m_device) / 2;
    }
    ~GpuDecoder() override { forgetNext(); }

    std::string device() const override {
        const std::string type = m_type == at::kFloat  ? "float32"
                                 : m_type == at::kHalf ? "float16"
                                                       : "bfloat16";
        return m_device.str() + ", " + type;
    }
    std::vector<std::string> notes() const override { return m_notes; }

    void logits(Index row0, Index row1, float* out) override {
        checkRows(row0, row1);
        guarded([&] { logitsFrom(m_x.narrow(0, row0, row1 - row0), out); });
    }

    std::vector<float> hiddenStates(Index row0, Index row1) override {
        checkRows(row0, row1);
        std::vector<float> out(std::size_t((row1 - row0) * m_config.hidden));
        guarded([&] {
            at::from_blob(out.data(), {row1 - row0, m_config.hidden}, at::kFloat)
                .copy_(m_x.narrow(0, row0, row1 - row0));
        });
        return out;
    }

    void logitsOf(std::span<const float> hidden, float* out) override {
        guarded([&] { logitsFrom(moved(hidden), out); });
    }

    void setHiddenStates(std::span<const float> hidden) override {
        guarded([&] { m_x = moved(hidden); });
        m_rows = m_x.size(0);
    }

private:
    template <class Work>
    void guarded(Work work) {
        try {
            const c10::InferenceMode guard;
            useTorchThreads(m_threads);
            work();
        } catch (const c10::Error& e) {
            rethrowTorch(e);
        }
    }

    at::TensorOptions options(at::ScalarType type) const {
        return at::TensorOptions(type).device(m_device);
    }

    /// Rows [hidden] of the CPU's memory as activations.
    at::Tensor moved(std::span<const float> rows) const {
        return moved(rows.data(), Index(rows.size()) / m_config.hidden, m_config.hidden);
    }
    at::Tensor moved(const float* p, Index rows, Index cols) const {
        at::Tensor out = at::empty({rows, cols}, options(m_type));
        out.copy_(at::from_blob(const_cast<float*>(p), {rows, cols}, at::kFloat));
        return out;
    }

    // --- weights ---

    Part uploaded(const Linear& l, at::ScalarType type, at::Tensor& sum) const {
        if (m_stopUpload) throw Cancelled{};
        return {gpu::upload(l.w, m_device, type, sum), gpu::upload(l.b, m_device, type, sum)};
    }
    /// Norms stay in float32.
    Part uploaded(const NormWeight& n, at::Tensor& sum) const {
        return {gpu::upload(n.w, m_device, at::kFloat, sum),
                gpu::upload(n.b, m_device, at::kFloat, sum)};
    }
    Mlp uploaded(const MlpWeights& m, at::Tensor& sum) const {
        return {uploaded(m.gate, m_type, sum), uploaded(m.up, m_type, sum),
                uploaded(m.down, m_type, sum)};
    }
    std::vector<float> toHost(const Weight& w, at::Tensor& sum) const {
        const at::Tensor x = gpu::upload(w, m_device, at::kFloat, sum);
        if (!x.defined()) return {};
        const at::Tensor here = x.cpu().contiguous();
        return {here.data_ptr<float>(), here.data_ptr<float>() + here.numel()};
    }
    /// The sum of all weights of a part is finite when every weight is.
    bool isFinite(const at::Tensor& sum) const {
        return !sum.defined() || at::isfinite(sum).item<bool>();
    }

    /// The weights of layer `l` but for the experts, read and copied.
    Layer upload(Index l) {
        const std::lock_guard lock(m_fileMutex);
        const LayerWeights w = readLayer(m_file, m_config, l);
        at::Tensor sum;
        Layer out;
        out.attentionNorm = uploaded(w.attentionNorm, sum);
        out.attentionOutNorm = uploaded(w.attentionOutNorm, sum);
        out.attentionSumNorm = uploaded(w.attentionSumNorm, sum);
        out.mlpNorm = uploaded(w.mlpNorm, sum);
        out.mlpOutNorm = uploaded(w.mlpOutNorm, sum);
        out.mlpSumNorm = uploaded(w.mlpSumNorm, sum);
        out.q = uploaded(w.q, m_type, sum);
        out.k = uploaded(w.k, m_type, sum);
        out.v = uploaded(w.v, m_type, sum);
        out.o = uploaded(w.o, m_type, sum);
        out.qNorm = uploaded(w.qNorm, sum);
        out.kNorm = uploaded(w.kNorm, sum);
        out.qDown = uploaded(w.qDown, m_type, sum);
        out.kvDown = uploaded(w.kvDown, m_type, sum);
        out.kvUp = uploaded(w.kvUp, m_type, sum);
        out.qDownNorm = uploaded(w.qDownNorm, sum);
        out.kvDownNorm = uploaded(w.kvDownNorm, sum);
        out.router = uploaded(w.router, at::kFloat, sum);
        out.mlp = uploaded(w.mlp, sum);
        out.sinks = toHost(w.sinks, sum);
        out.correction = toHost(w.correction, sum);
        if (m_config.layer(l).experts) out.experts.resize(std::size_t(m_config.experts.count));
        if (!isFinite(sum)) {
            m_file.setMode(WeightFile::Mode::Convert);
            readLayer(m_file, m_config, l);  // names the tensor
            throw Error(Errc::Format, "model '" + m_config.name + "': the weights of layer " +
                                          std::to_string(l) + " are too large for " + device());
        }
        if (!m_keep) m_file.releasePages();
        return out;
    }

    /// The same on a stream beside the one that computes.
    Layer uploadBeside(Index l) {
        const c10::InferenceMode guard;
        if (m_device.is_cpu()) return upload(l);
        const c10::impl::VirtualGuardImpl impl(m_device.type());
        const c10::Stream main = impl.getDefaultStream(m_device);
        const c10::Stream side = impl.getStreamFromGlobalPool(m_device);
        const c10::StreamGuard streams(side);
        Layer out = upload(l);
        side.synchronize();
        // The memory belongs to the side stream: it must outlive what the main one does with it.
        for (const Part* p : {&out.attentionNorm,
                              &out.attentionOutNorm,
                              &out.attentionSumNorm,
                              &out.mlpNorm,
                              &out.mlpOutNorm,
                              &out.mlpSumNorm,
                              &out.q,
                              &out.k,
                              &out.v,
                              &out.o,
                              &out.qNorm,
                              &out.kNorm,
                              &out.qDown,
                              &out.kvDown,
                              &out.kvUp,
                              &out.qDownNorm,
                              &out.kvDownNorm,
                              &out.router,
                              &out.mlp.gate,
                              &out.mlp.up,
                              &out.mlp.down})
            for (const at::Tensor* t : {&p->w, &p->b})
                if (t->defined()) t->record_stream(main);
        return out;
    }

    /// The weights of layer `l`; those of layer `next` (-1 = none) are on their way after that.
    std::shared_ptr<Layer> layerFor(Index l, Index next) {
        auto& slot = m_layers[std::size_t(l)];
        std::shared_ptr<Layer> w = slot;
        if (!w) {
            if (m_next.valid() && m_nextLayer != l) forgetNext();
            w = std::make_shared<Layer>(m_next.valid() ? m_next.get() : upload(l));
            if (m_keep) slot = w;
        }
        if (next >= 0 && !m_layers[std::size_t(next)] && !m_next.valid()) {
            m_nextLayer = next;
            m_next = std::async(std::launch::async, [this, next] { return uploadBeside(next); });
        }
        return w;
    }
    void forgetNext() {
        if (!m_next.valid()) return;
        m_stopUpload = true;
        m_next.wait();
        m_next = {};
        m_stopUpload = false;
    }

    Mlp expert(Index l, Layer& w, Index e) {
        Mlp& kept = w.experts[std::size_t(e)];
        if (kept.down.given()) return kept;
        const std::lock_guard lock(m_fileMutex);
        at::Tensor sum;
        const Mlp m = uploaded(readExpert(m_file, m_config, l, e), sum);
        if (!isFinite(sum)) {
            m_file.setMode(WeightFile::Mode::Convert);
            readExpert(m_file, m_config, l, e);  // names the tensor
            notFinite(l, "weights of expert " + std::to_string(e));
        }
        if (m_keep) kept = m;
        return m;
    }

    Part part(const std::string& name, Index out, Index in) {
        const std::lock_guard lock(m_fileMutex);
        Linear l;
        l.w = m_file.read(name, {out, in});
        at::Tensor sum;
        const Part p = uploaded(l, m_type, sum);
        if (!isFinite(sum)) {
            m_file.setMode(WeightFile::Mode::Convert);
            m_file.read(name, {out, in});
        }
        return p;
    }

    // --- logits ---

    void readHead() {
        if (m_head.given()) return;
        const ModelConfig& c = m_config;
        if (c.finalNorm) {
            const std::lock_guard lock(m_fileMutex);
            at::Tensor sum;
            m_norm = uploaded(m_file.norm(m_file.prefix() + m_row.finalNorm, c.hidden,
                                          c.block.norm == NormKind::Layer),
                              sum);
        }
        if (m_width != c.hidden)
            m_projectOut = part(m_file.prefix() + "project_out.weight", m_width, c.hidden);
        m_head = part(outputMatrix(m_file, c), c.vocab, m_width);
    }

    /// In float32, whatever the model's type: near-equal logits would tie in bfloat16.
    void logitsFrom(const at::Tensor& hidden, float* out) {
        const ModelConfig& c = m_config;
        readHead();
        constexpr Index kRows = 256, kVocab = 16384;
        for (Index r = 0; r < hidden.size(0); r += kRows) {
            const Index rows = std::min(kRows, hidden.size(0) - r);
            at::Tensor x = hidden.narrow(0, r, rows).to(at::kFloat);
            if (m_norm.given()) x = norm(m_norm, x, c.normEps).to(at::kFloat);
            if (m_projectOut.given()) x = at::mm(x, m_projectOut.w.to(at::kFloat).t());
            at::Tensor y = at::empty({rows, c.vocab}, options(at::kFloat));
            for (Index v = 0; v < c.vocab; v += kVocab) {
                const Index count = std::min(kVocab, c.vocab - v);
                y.narrow(1, v, count)
                    .copy_(at::mm(x, m_head.w.narrow(0, v, count).to(at::kFloat).t()));
            }
            at::from_blob(out + r * c.vocab, {rows, c.vocab}, at::kFloat)
                .copy_(capped(y, c.logitSoftcap));
        }
    }

    // --- the pass ---

    void keepLastRows(Index count) override {
        m_x = m_x.narrow(0, m_rows - count, count).clone();
        m_rows = count;
    }

    /// Rows computed at a time, so that the pass fits beside the weights.
    /// @throws Error(Resources) when not even the smallest part does
    Index chunkFor(Index n, const KvCache& cache) {
        if (n <= kFewestGpuRows && cache.length() > 0) return n;  // a step of decoding
        const Index free = gpu::freeMemory(m_device);
        GpuNeed need = gpuNeed(m_config, n, cache.capacity(),
                               cache.keepsAllLayers() ? m_config.layers : 1, m_bytesEach);
        if (m_keep) need.weights = need.everyWeight;
        for (const auto& l : m_layers)
            if (l) need.weights -= std::min(need.weights, need.everyWeight / m_config.layers);
        const Index chunk = gpuRows(need, n, free);
        if (chunk == 0)
            throw Error(Errc::Resources,
                        std::to_string(n) + " tokens of '" + m_config.name + "' need " +
                            bytesText(need.bytes(std::min(n, kFewestGpuRows))) + " on " +
                            m_device.str() + ", where " + bytesText(free) + " are free");
        if (chunk < std::min(n, kMostGpuRows))
            note("The GPU's memory is short: rows are computed " + std::to_string(chunk) +
                 " at a time.");
        return chunk;
    }

    void run(std::span<const std::int32_t> ids, KvCache& cache, const AttentionFn& attention,
             const Job& job, Index lastLayer) override {
        try {
            runLayers(ids, cache, attention, job, lastLayer);
        } catch (...) {
            forgetNext();
            m_x.reset();
            throw;
        }
    }

    void runLayers(std::span<const std::int32_t> ids, KvCache& cache, const AttentionFn& attention,
                   const Job& job, Index lastLayer) {
        const ModelConfig& c = m_config;
        const Index n = Index(ids.size()), past = cache.length();
        const Index layers = lastLayer < 0 ? c.layers : std::min(lastLayer + 1, c.layers);
        m_rows = 0;
        m_x.reset();
        const c10::InferenceMode guard;
        useTorchThreads(m_threads);
        if (past == 0) cache.own().reset();
        m_chunk = chunkFor(n, cache);
        if (!cache.own()) cache.own() = std::make_shared<gpu::Cache>();
        auto& kv = *static_cast<gpu::Cache*>(cache.own().get());
        kv.k.resize(std::size_t(cache.keepsAllLayers() ? c.layers : 1));
        kv.v.resize(kv.k.size());
        embed(ids, past);

        const Index turned = c.latent.used() ? c.latent.rope : c.headDim;
        const Rotation rotation(c.rope, turned, past, n, m_device);
        const Rotation local(c.localRope, turned, past, n, m_device);
        at::Tensor q = at::empty({n, c.heads * c.headDim}, options(m_type));
        at::Tensor o = at::empty({n, c.heads * c.valueWidth()}, options(m_type));
        for (Index l = 0; l < layers; ++l) {
            job.step(double(l) / double(layers),
                     "layer " + std::to_string(l + 1) + " of " + std::to_string(layers));
            const auto w = layerFor(l, l + 1 < layers ? l + 1 : -1);
            const LayerConfig layer = c.layer(l);
            const Rotation* turn = !layer.rotates ? nullptr : layer.localRope ? &local : &rotation;
            at::Tensor &k = kv.k[std::size_t(l) % kv.k.size()],
                       &v = kv.v[std::size_t(l) % kv.v.size()];
            if (!k.defined()) {
                k = at::empty({c.kvHeads, cache.capacity(), c.headDim}, options(m_type));
                v = at::empty({c.kvHeads, cache.capacity(), c.valueWidth()}, options(m_type));
            }
            queriesKeysValues(l, *w, past, n, turn, q, k, v, job);
            attend(l, *w, past, n, q, k, v, o, attention);
            // The last layer's output matters only to logits.
            if (lastLayer < 0 || l + 1 < layers) finishLayer(l, *w, n, o, job);
        }
        cache.setLength(past + n);
        if (layers == c.layers && lastLayer < 0) m_rows = n;
        gpu::wait(m_device);
        job.step(1, "forward pass done");
    }

    /// m_x [n, hidden]: token embeddings and learned positions.
    void embed(std::span<const std::int32_t> ids, Index past) {
        const ModelConfig& c = m_config;
        const Index n = Index(ids.size());
        if (m_width != c.hidden && !m_projectIn.given())
            m_projectIn = part(m_file.prefix() + "project_in.weight", c.hidden, m_width);
        m_x = at::empty({n, c.hidden}, options(m_type));
        const std::lock_guard lock(m_fileMutex);
        std::vector<float> space;
        const auto rowsOf = [&](const std::string& name, Index first, Index rows, Index width,
                                auto rowAt) {
            space.resize(std::size_t(rows * width));
            for (Index i = 0; i < rows; ++i)
                m_file.readPart(name, rowAt(first + i) * width,
                                {space.data() + i * width, std::size_t(width)});
            return moved(space.data(), rows, width);
        };
        for (Index r = 0; r < n; r += m_chunk) {
            const Index rows = std::min(m_chunk, n - r);
            at::Tensor x = rowsOf(m_embedding, r, rows, m_width,
                                  [&](Index i) { return Index(ids[std::size_t(i)]); });
            if (m_projectIn.given()) x = project(x, m_projectIn);
            // As the reference, in which the factor has the activations' type.
            if (c.embeddingScale != 1) x = x * at::scalar_tensor(c.embeddingScale, options(m_type));
            if (c.positionRows > 0)
                x = x + rowsOf(m_file.prefix() + m_row.positions, r, rows, c.hidden,
                               [&](Index i) { return past + i + c.positionOffset; });
            m_x.narrow(0, r, rows).copy_(x);
        }
    }

    /// The norm of the last dimension in float32, rounded once to the activations' type; x itself
    /// where the block has no such norm.
    at::Tensor norm(const Part& w, const at::Tensor& x, double eps) const {
        if (!w.given()) return x;
        const at::Tensor wide = x.to(at::kFloat);
        if (m_config.block.norm == NormKind::Layer)
            return at::layer_norm(wide, {x.size(-1)}, w.w, w.b, eps).to(x.scalar_type());
        const at::Tensor scaled = wide * at::rsqrt(wide.square().mean(-1, true) + eps);
        if (m_config.block.norm == NormKind::RmsOnePlus)
            return (scaled * (w.w + 1.0)).to(x.scalar_type());
        return (scaled * w.w).to(x.scalar_type());
    }
    at::Tensor norm(const Part& w, const at::Tensor& x) const {
        return norm(w, x, m_config.normEps);
    }

    /// The q and k norms: over each head, or over all of them together.
    at::Tensor normHeads(const Part& w, const at::Tensor& x, Index heads) const {
        if (!w.given() || m_config.block.wholeNorms) return norm(w, x);
        return norm(w, x.view({x.size(0), heads, m_config.headDim})).view(x.sizes());
    }

    /// q [n, Hq D] and the new tokens' part of k [Hkv, capacity, D] and v, rotated.
    void queriesKeysValues(Index l, const Layer& w, Index past, Index n, const Rotation* rotation,
                           const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                           const Job& job) {
        const ModelConfig& c = m_config;
        at::Tensor sum = at::zeros({}, options(at::kFloat));
        for (Index r = 0; r < n; r += m_chunk) {
            job.check();
            const Index rows = std::min(m_chunk, n - r);
            const at::Tensor x = norm(w.attentionNorm, m_x.narrow(0, r, rows));
            at::Tensor qr, kr, vr;  // [rows, heads, width]
            if (c.latent.used()) {
                latentProjections(w, x, r, rotation, qr, kr, vr);
            } else {
                qr = normHeads(w.qNorm, project(x, w.q), c.heads).view({rows, c.heads, c.headDim});
                kr = normHeads(w.kNorm, project(x, w.k), c.kvHeads)
                         .view({rows, c.kvHeads, c.headDim});
                vr = project(x, w.v).view({rows, c.kvHeads, c.valueWidth()});
                if (rotation) {
                    rotation->apply(qr, r);
                    rotation->apply(kr, r);
                }
            }
            sum.add_(qr.sum(at::kFloat)).add_(kr.sum(at::kFloat)).add_(vr.sum(at::kFloat));
            q.narrow(0, r, rows).copy_(qr.reshape({rows, c.heads * c.headDim}));
            k.narrow(1, past + r, rows).copy_(kr.transpose(0, 1));
            v.narrow(1, past + r, rows).copy_(vr.transpose(0, 1));
        }
        if (!isFinite(sum)) notFinite(l, "queries, keys or values");
    }

    /// Latent attention: q and the expanded keys and values of every head, rotated.
    ///
    ///     q = [q_nope | rot(q_rope)],  k = [k_nope | rot(k_rope), shared by all heads]
    void latentProjections(const Layer& w, const at::Tensor& x, Index row, const Rotation* rotation,
                           at::Tensor& q, at::Tensor& k, at::Tensor& v) const {
        const ModelConfig& c = m_config;
        const LatentConfig& m = c.latent;
        const Index rows = x.size(0), dv = c.valueWidth();
        q = m.qRank > 0 ? project(norm(w.qDownNorm, project(x, w.qDown), kLatentEps), w.q)
                        : project(x, w.q);
        q = q.view({rows, c.heads, c.headDim});
        const at::Tensor both = project(x, w.kvDown);
        const at::Tensor shared =
            both.narrow(1, m.kvRank, m.rope).contiguous().view({rows, 1, m.rope});
        const at::Tensor expanded =
            project(norm(w.kvDownNorm, both.narrow(1, 0, m.kvRank), kLatentEps), w.kvUp)
                .view({rows, c.heads, m.nope + dv});
        if (rotation) {
            rotation->apply(q.narrow(2, m.nope, m.rope), row);
            rotation->apply(shared, row);
        }
        k = at::cat({expanded.narrow(2, 0, m.nope), shared.expand({rows, c.heads, m.rope})}, 2);
        v = expanded.narrow(2, m.nope, dv);
    }

    void attend(Index l, const Layer& w, Index past, Index n, const at::Tensor& q,
                const at::Tensor& k, const at::Tensor& v, const at::Tensor& o,
                const AttentionFn& attention) const {
        const ModelConfig& c = m_config;
        const Index d = c.headDim, dv = c.valueWidth(), capacity = k.size(1);
        LayerCall call;
        call.layer = l;
        call.problem = problemOf(l, n, past + n);
        if (!w.sinks.empty()) call.problem.sinks = w.sinks.data();
        call.q = gpu::viewOf(q, n * c.heads * d, d, c.heads * d);
        call.k = gpu::viewOf(k, c.kvHeads * capacity * d, capacity * d, d);
        call.v = gpu::viewOf(v, c.kvHeads * capacity * dv, capacity * dv, dv);
        call.o = {o.data_ptr(), gpu::typeOf(o), n * c.heads * dv, dv, c.heads * dv};
        call.fetch = gpu::fetcher(m_device);
        gpu::wait(m_device);
        const GpuPass pass;
        try {
            attention(call);
        } catch (const Error& e) {
            if (e.code() != Errc::Resources) throw;
            gpu::releaseCache(m_device);  // what LibTorch keeps for later is the kernels' now
            attention(call);
        }
        useTorchThreads(m_threads);  // the callee may have run a pool of its own
    }

    /// x = sumNorm(x + outNorm(branch))
    void addBranch(const Part& outNorm, const Part& sumNorm, const at::Tensor& x,
                   const at::Tensor& branch) const {
        x.add_(norm(outNorm, branch));
        if (sumNorm.given()) x.copy_(norm(sumNorm, x));
    }

    /// x += attention, x += mlp with the block's norms around them, in chunks of rows; experts take
    /// all rows at once, so that each is read once.
    void finishLayer(Index l, Layer& w, Index n, const at::Tensor& attention, const Job& job) {
        const ModelConfig& c = m_config;
        const bool experts = c.layer(l).experts;
        at::Tensor mlpIn;
        if (experts) mlpIn = at::empty({n, c.hidden}, options(m_type));
        at::Tensor sum = at::zeros({}, options(at::kFloat));
        for (Index r = 0; r < n; r += m_chunk) {
            job.check();
            const Index rows = std::min(m_chunk, n - r);
            const at::Tensor x = m_x.narrow(0, r, rows);
            at::Tensor in;
            if (c.block.parallel) in = norm(w.mlpNorm, x).clone();
            addBranch(w.attentionOutNorm, w.attentionSumNorm, x,
                      project(attention.narrow(0, r, rows), w.o));
            if (!c.block.parallel) in = norm(w.mlpNorm, x);
            if (experts) {
                mlpIn.narrow(0, r, rows).copy_(in);
                continue;
            }
            addBranch(w.mlpOutNorm, w.mlpSumNorm, x, mlpOf(w.mlp, in, c.activation));
            sum.add_(x.sum(at::kFloat));
        }
        if (experts) {
            const at::Tensor mixed = mixture(l, w, mlpIn, job);
            for (Index r = 0; r < n; r += m_chunk) {
                const Index rows = std::min(m_chunk, n - r);
                const at::Tensor x = m_x.narrow(0, r, rows);
                addBranch(w.mlpOutNorm, w.mlpSumNorm, x, mixed.narrow(0, r, rows).to(m_type));
                sum.add_(x.sum(at::kFloat));
            }
        }
        if (!isFinite(sum)) notFinite(l, "activations");
    }

    /// The mixture of experts of every row, the shared expert included, summed in float32. The
    /// choice of experts is made on the CPU, from float32 logits.
    at::Tensor mixture(Index l, Layer& w, const at::Tensor& x, const Job& job) {
        const ExpertsConfig& e = m_config.experts;
        const Index n = x.size(0), H = m_config.hidden;
        std::vector<float> logits(std::size_t(n * e.count));
        at::Tensor sum = at::zeros({n, H}, options(at::kFloat));
        for (Index r = 0; r < n; r += m_chunk) {
            const Index rows = std::min(m_chunk, n - r);
            at::from_blob(logits.data() + r * e.count, {rows, e.count}, at::kFloat)
                .copy_(project(x.narrow(0, r, rows).to(at::kFloat), w.router));
            if (w.mlp.down.given())
                sum.narrow(0, r, rows)
                    .copy_(mlpOf(w.mlp, x.narrow(0, r, rows), m_config.activation));
        }
        const Routing routing =
            route(e, logits.data(), n, w.correction.empty() ? nullptr : w.correction.data());
        std::vector<std::vector<std::int64_t>> rowsOf(std::size_t(e.count));
        std::vector<std::vector<float>> weightsOf(rowsOf.size());
        for (std::size_t p = 0; p < routing.expert.size(); ++p) {
            const auto k = std::size_t(routing.expert[p]);
            rowsOf[k].push_back(Index(p) / e.perToken);
            weightsOf[k].push_back(routing.weight[p]);
        }
        for (Index k = 0; k < e.count; ++k) {
            auto& mine = rowsOf[std::size_t(k)];
            if (mine.empty()) continue;
            const Mlp m = expert(l, w, k);
            for (Index first = 0; first < Index(mine.size()); first += m_chunk) {
                job.check();
                const Index count = std::min(m_chunk, Index(mine.size()) - first);
                const at::Tensor rows =
                    at::from_blob(mine.data() + first, {count}, at::kLong).to(m_device);
                const at::Tensor weight =
                    at::from_blob(weightsOf[std::size_t(k)].data() + first, {count, 1}, at::kFloat)
                        .to(m_device);
                const at::Tensor in = at::index_select(x, 0, rows);
                at::Tensor y;
                if (e.clamp > 0) {
                    const at::Tensor gate = project(in, m.gate).clamp_max(e.clamp),
                                     up = at::clamp(project(in, m.up), -e.clamp, e.clamp);
                    y = project((up + 1.0) * (gate * at::sigmoid(gate * e.sigmoidSlope)), m.down);
                } else {
                    y = mlpOf(m, in, m_config.activation);
                }
                // Each row is in the list once, so the sum has one order.
                sum.index_add_(0, rows, y.to(at::kFloat) * weight);
            }
        }
        return sum;
    }

    void note(const std::string& text) {
        if (std::find(m_notes.begin(), m_notes.end(), text) == m_notes.end())
            m_notes.push_back(text);
    }

    at::Device m_device;
    at::ScalarType m_type = at::kFloat;
    Index m_bytesEach = 4, m_chunk = kMostGpuRows;
    bool m_keep = false;                           ///< there is room for all layers
    std::vector<std::shared_ptr<Layer>> m_layers;  ///< null = not on the device
    std::mutex m_fileMutex;                        ///< guards m_file
    std::future<Layer> m_next;
    std::atomic<bool> m_stopUpload{false};
    Index m_nextLayer = -1;
    Part m_projectIn, m_projectOut, m_head, m_norm;
    at::Tensor m_x;  ///< hidden states of the last forward, [m_rows, hidden]
    std::vector<std::string> m_notes;
};

}  // namespace

std::unique_ptr<Decoder> makeGpuDecoder(ModelConfig config, WeightFile file, int threads,
                                        std::string_view device) {
    try {
        const c10::InferenceMode guard;
        return std::make_unique<GpuDecoder>(std::move(config), std::move(file), threads, device);
    } catch (const c10::Error& e) {
        rethrowTorch(e);
    }
}

}  // namespace sparsight
