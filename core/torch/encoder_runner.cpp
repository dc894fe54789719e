#include "core/torch/encoder_runner.h"

#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/conv2d.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/rsqrt.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/upsample_bicubic2d.h>
#include <c10/core/InferenceMode.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <cmath>

#include "core/model/device.h"
#include "core/model/weights.h"
#include "core/torch/encoder_weights.h"
#include "core/torch/gpu.h"
#include "core/torch/ops.h"
#include "core/torch/threads.h"

namespace sparsight {
namespace {

constexpr Index kChunk = 1024;  ///< rows of the MLP that are computed at once

at::Tensor project(const at::Tensor& x, const Affine& w) {
    return w.bias.defined() ? at::addmm(w.bias, x, w.weight.t()) : at::mm(x, w.weight.t());
}

at::Tensor activate(const at::Tensor& x, const std::string& kind) {
    if (kind == "gelu") return at::gelu(x, "none");
    if (kind == "gelu_new" || kind == "gelu_pytorch_tanh" || kind == "gelu_fast")
        return at::gelu(x, "tanh");
    if (kind == "quick_gelu") return x * at::sigmoid(x * 1.702);
    if (kind == "relu") return at::relu(x);
    if (kind == "relu2") return at::relu(x).square();
    return at::silu(x);  // parseEncoder() lets no other name through
}

at::Tensor layerNorm(const at::Tensor& x, const Affine& w, double eps) {
    return at::layer_norm(x, {x.size(1)}, w.weight, w.bias, eps);
}

at::Tensor normalise(const at::Tensor& x, const Affine& w, const Tower& t) {
    if (!t.rmsNorm) return layerNorm(x, w, t.normEps);
    return x * at::rsqrt(x.square().mean(-1, true) + t.normEps) * w.weight;
}

at::Tensor idTensor(std::span<const std::int32_t> ids) {
    at::Tensor out = at::empty({Index(ids.size())}, at::kLong);
    std::copy(ids.begin(), ids.end(), out.data_ptr<std::int64_t>());
    return out;
}

/// [tokens, heads * d] as [heads][tokens][d].
kernels::TensorView headView(const at::Tensor& x, Index d) {
    const Index width = x.size(1);
    return gpu::viewOf(x, x.size(0) * width, d, width);
}

/// [heads, capacity, d] of a cache.
kernels::TensorView cacheView(const at::Tensor& x) {
    return gpu::viewOf(x, x.numel(), x.size(1) * x.size(2), x.size(2));
}

class EncoderRunner final : public ModelRunner {
    using Side = EncoderWeights::Side;

public:
    EncoderRunner(const std::filesystem::path& directory, ModelConfig config, int threads,
                  std::string_view device, const Job& job)
        : m_directory(directory), m_config(std::move(config)), m_threads(threads) {
        if (const TorchDevices torch = torchDevices(); device != "cpu" && !torch.gpu) {
            m_notes.push_back(torch.reason + " The model runs on the CPU.");
            device = "cpu";
        }
        m_device = gpu::device(device);
        // As the reference on the CPU: convolutions too multiply float32 numbers.
        if (!m_device.is_cpu()) at::globalContext().setAllowTF32CuDNN(false);
        guarded([&] {
            if (!m_w) openWeights(job);
        });
        if (const auto& unused = m_w->unused(); !unused.empty()) {
            std::string note = std::to_string(unused.size()) + " tensors are not used: ";
            for (std::size_t i = 0; i < std::min<std::size_t>(3, unused.size()); ++i)
                note += (i ? ", " : "") + unused[i];
            m_config.notes.push_back(note + (unused.size() > 3 ? ", .." : ""));
        }
    }
    const ModelConfig& config() const override { return m_config; }
    int threads() const override { return m_threads; }
    std::string device() const override {
        return m_device.is_cpu() ? "CPU" : m_device.str() + ", float32";
    }
    std::vector<std::string> notes() const override { return m_notes; }

    void pass(const ModelInput& input, const AttentionFn& attention, const Job& job,
              std::span<const Index> wanted) override {
        guarded([&] {
            const InputSize size = inputSize(m_config, input);
            const std::vector<Index> possible = layersFor(m_config, size);
            for (const Index l : wanted)
                if (!std::binary_search(possible.begin(), possible.end(), l)) refuseLayer(l);
            const std::span<const Index> goal = wanted.empty() ? possible : wanted;
            begin(attention, job, layerOrder(m_config, goal));
            if (wanted.empty()) m_stop = -1;
            if (size.image > 0) {
                const Tower& t = m_config.encoder->vision;
                at::Tensor x = embedImage(input.image);
                if (!runTower(t, Side::Vision, x, m_config.stacks.back().first)) finishImage(x);
                return;
            }
            if (!encodeText(input.ids)) return;
            if (size.decoder > 0) decode(input.decoderIds, nullptr);
        });
    }

    std::int32_t encode(std::span<const std::int32_t> ids, const AttentionFn& attention,
                        const Job& job) override {
        requireDecoder();
        guarded([&] {
            checkIds(m_config, ids);
            begin(attention, job, {});
            encodeText(ids);
        });
        return std::int32_t(m_config.encoder->startToken);
    }

    void forward(std::span<const std::int32_t> ids, KvCache& cache, const AttentionFn& attention,
                 const Job& job, Index) override {
        requireDecoder();
        guarded([&] {
            if (!m_encoded.defined())
                throw Error(Errc::Usage, "the decoder of '" + m_config.name +
                                             "' needs the encoder's text first");
            if (cache.length() + Index(ids.size()) > cache.capacity() || !cache.canContinue())
                throw Error(Errc::Usage, "the key/value cache cannot take " +
                                             std::to_string(ids.size()) + " more tokens");
            begin(attention, job, {});
            decode(ids, &cache);
        });
    }

    void logits(Index row0, Index row1, float* out) override {
        const Index rows = m_last.defined() ? m_last.size(0) : 0;
        if (row0 < 0 || row1 < row0 || row1 > rows)
            throw Error(Errc::Usage, "logits of rows " + std::to_string(row0) + " to " +
                                         std::to_string(row1) + " asked, the last forward has " +
                                         std::to_string(rows));
        guarded([&] {
            const at::Tensor y = head(m_last.narrow(0, row0, row1 - row0)).cpu().contiguous();
            std::copy_n(y.data_ptr<float>(), y.numel(), out);
        });
    }

private:
    /// Work that the GPU has no memory for is done again on the CPU.
    template <class Work>
    void guarded(Work work) {
        try {
            try {
                const c10::InferenceMode guard;
                useTorchThreads(m_threads);
                work();
            } catch (const c10::Error& e) {
                rethrowTorch(e);
            }
        } catch (const Error& e) {
            if (m_device.is_cpu() || e.code() != Errc::Resources) throw;
            useCpu(e.what());
            guarded(work);
        }
    }

    void useCpu(std::string why) {
        if (!why.ends_with('.')) why += '.';
        m_notes.push_back(why + " The model runs on the CPU.");
        const auto here = [](at::Tensor& x) {
            if (x.defined()) x = x.cpu();
        };
        const c10::InferenceMode guard;
        here(m_encoded);
        here(m_last);
        for (auto& [k, v] : m_cross) {
            here(k);
            here(v);
        }
        m_w.reset();
        gpu::releaseCache(m_device);
        m_device = at::kCPU;
        openWeights({});
    }

    /// A small model is read at once; of a larger one each part when a pass comes to it.
    void openWeights(const Job& job) {
        auto w = std::make_unique<EncoderWeights>(m_directory, m_config, m_device);
        const Index room = m_device.is_cpu() ? availableMemory() : gpu::freeMemory(m_device);
        m_keep = w->bytes() <= kConvertedAtOnce || w->bytes() <= room / 2;
        if (w->bytes() <= kConvertedAtOnce) w->readAll(job);
        m_w = std::move(w);
    }

    bool hasDecoder() const { return m_config.encoder->decoder.layers > 0; }
    void requireDecoder() const {
        if (!hasDecoder())
            throw Error(Errc::Unsupported, "model '" + m_config.name + "' (" + m_config.arch +
                                               ") has no decoder: it cannot generate");
    }
    [[noreturn]] void refuseLayer(Index l) const {
        throw Error(Errc::Usage, "layer " + layerName(m_config, l) + " reads " +
                                     inputInWords(m_config, l) + ", and this input has none");
    }
    void begin(const AttentionFn& attention, const Job& job, std::vector<Index> order) {
        m_attention = &attention;
        m_job = &job;
        m_stop = order.empty() ? -1 : order.back();
        m_total = order.empty() ? m_config.layers : Index(order.size());
        m_done = 0;
        m_last.reset();
    }

    // --- embeddings -----------------------------------------------------------------------------

    at::Tensor embedText(std::span<const std::int32_t> ids, const TextEmbedding& e,
                         const TextEmbeddingWeights& w, double eps, Index past) {
        checkIds(m_config, ids);
        const Index n = Index(ids.size());
        at::Tensor x = at::embedding(w.words, idTensor(ids).to(m_device));
        if (e.scale != 1.0) x = x * e.scale;
        if (w.types.defined()) x = x + w.types[0];
        if (w.positions.defined()) {
            if (past + n > m_config.maxPositions)
                throw Error(Errc::Usage, "model '" + m_config.name + "' has positions for " +
                                             std::to_string(m_config.maxPositions) +
                                             " tokens, the text has " + std::to_string(past + n));
            std::vector<std::int32_t> rows;
            Index counted = 0;
            for (Index i = 0; i < n; ++i) {
                if (!e.positionsCountNonPad) {
                    rows.push_back(std::int32_t(past + i + e.positionOffset));
                } else {
                    const bool pad = ids[std::size_t(i)] == e.padToken;
                    rows.push_back(std::int32_t(pad ? e.padToken : e.padToken + ++counted));
                }
            }
            x = x + at::embedding(w.positions, idTensor(rows).to(m_device));
        }
        if (w.norm.given()) x = layerNorm(x, w.norm, eps);
        return x;
    }

    /// The class token, then the patches row by row, with their positions.
    at::Tensor embedImage(const Pixels& image) {
        const ImageEmbedding& e = m_config.encoder->image;
        const Tower& t = m_config.encoder->vision;
        const ImageGrid grid = imageGrid(m_config, image), own = e.grid();
        if (Index(image.values.size()) != 3 * image.height * image.width)
            throw Error(Errc::Shape, "the image holds " + std::to_string(image.values.size()) +
                                         " values, not 3 x " + std::to_string(image.height) +
                                         " x " + std::to_string(image.width));
        const at::Tensor pixels = at::from_blob(const_cast<float*>(image.values.data()),
                                                {1, 3, image.height, image.width}, at::kFloat)
                                      .to(m_device);
        const ImageEmbeddingWeights& w = m_w->image();
        at::Tensor patches =
            at::conv2d(pixels, w.patches.weight, w.patches.bias, {e.patch, e.patch});
        patches = patches.flatten(2).transpose(1, 2)[0];
        at::Tensor positions = w.positions;
        // As the reference: the patches' positions are one square, whatever the image's sides.
        if (grid.rows != own.rows || grid.cols != own.cols) {
            const auto side = Index(std::sqrt(double(own.rows * own.cols)));
            if (side * side != own.rows * own.cols)
                throw Error(Errc::Unsupported,
                            "the positions of '" + m_config.name +
                                "' are not a square and cannot be fitted to another image size");
            const at::Tensor square = positions.narrow(0, 1, side * side)
                                          .view({1, side, side, t.hidden})
                                          .permute({0, 3, 1, 2});
            const at::Tensor fitted = at::upsample_bicubic2d(square, {grid.rows, grid.cols}, false)
                                          .permute({0, 2, 3, 1})
                                          .reshape({grid.rows * grid.cols, t.hidden});
            positions = at::cat({positions.narrow(0, 0, 1), fitted});
        }
        at::Tensor x = at::cat({w.classToken, patches}) + positions;
        if (w.norm.given()) x = layerNorm(x, w.norm, t.normEps);
        return x;
    }

    // --- blocks ---------------------------------------------------------------------------------

    /// One attention: the caller's function on these q, k, v. @return [Nq, heads * d], undefined
    /// when the pass ends with this layer
    at::Tensor attend(Index layer, const Tower& t, const at::Tensor& q, kernels::TensorView k,
                      kernels::TensorView v, Index keys, bool causal, const float* bias) {
        m_job->step(double(m_done) / double(m_total), "layer " + layerName(m_config, layer));
        ++m_done;
        if (!at::isfinite(q).all().item<bool>()) notFinite(layer);
        at::Tensor out = at::empty_like(q);
        LayerCall call;
        call.layer = layer;
        kernels::Problem& p = call.problem;
        p.Hq = p.Hkv = t.heads;
        p.Nq = q.size(0);
        p.Nk = keys;
        p.d = p.dv = t.headDim;
        p.scale = float(t.scale);
        p.causal = causal;
        p.relBias = bias;
        call.q = headView(q, t.headDim);
        call.k = k;
        call.v = v;
        call.o = {out.data_ptr(), kernels::DType::F32, out.numel(), t.headDim, q.size(1)};
        if (m_device.is_cpu()) {
            (*m_attention)(call);
        } else {
            call.fetch = gpu::fetcher(m_device);
            gpu::wait(m_device);
            const GpuPass pass;
            (*m_attention)(call);
        }
        useTorchThreads(m_threads);  // the callee may have run a pool of its own
        return layer == m_stop ? at::Tensor() : out;
    }

    /// x + branch, the norm after it when the architecture has it there.
    at::Tensor added(const at::Tensor& x, const at::Tensor& branch, const Affine& norm,
                     const Tower& t) {
        return t.preNorm ? x + branch : normalise(x + branch, norm, t);
    }
    at::Tensor entering(const at::Tensor& x, const Affine& norm, const Tower& t) {
        return t.preNorm ? normalise(x, norm, t) : x;
    }

    at::Tensor mlp(const at::Tensor& x, const EncoderBlockWeights& b, const Tower& t) {
        std::vector<at::Tensor> parts;
        for (Index r = 0; r < x.size(0); r += kChunk) {
            m_job->check();
            const at::Tensor part =
                entering(x.narrow(0, r, std::min(kChunk, x.size(0) - r)), b.mlpNorm, t);
            at::Tensor up = project(part, b.up);
            up = b.gate.given() ? activate(project(part, b.gate), t.activation) * up
                                : activate(up, t.activation);
            parts.push_back(project(up, b.down));
        }
        return added(x, at::cat(parts), b.mlpNorm, t);
    }

    /// [heads][Nq + Nk - 1] by key - query + Nq - 1, rows at the last Nq of Nk positions.
    std::vector<float> relativeBias(const Tower& t, const TowerWeights& w, Index nq, Index nk) {
        if (!w.relativeBias.defined()) return {};
        const EncoderConfig& e = *m_config.encoder;
        const Index width = nq + nk - 1;
        const at::Tensor here = w.relativeBias.cpu();
        const auto table = here.accessor<float, 2>();
        std::vector<float> bias(std::size_t(t.heads * width));
        for (Index i = 0; i < width; ++i) {
            const Index bucket = relativeBucket(i - (nk - 1), !t.causal, e.buckets, e.maxDistance);
            for (Index h = 0; h < t.heads; ++h) bias[std::size_t(h * width + i)] = table[bucket][h];
        }
        return bias;
    }

    /// The blocks of an encoder. @param first  number of its first layer
    /// @return whether the pass ends within them
    bool runTower(const Tower& t, Side side, at::Tensor& x, Index first) {
        const Index n = x.size(0);
        const std::vector<float> bias = relativeBias(t, m_w->tower(side), n, n);
        for (Index l = 0; l < t.layers; ++l) {
            // A pass that nobody continues uses each block once: it does not stay.
            const auto weights = m_w->block(side, l, false);
            const EncoderBlockWeights& b = *weights;
            const at::Tensor in = entering(x, b.attentionNorm, t);
            const at::Tensor k = project(in, b.k), v = project(in, b.v);
            const at::Tensor o =
                attend(first + l, t, project(in, b.q), headView(k, t.headDim),
                       headView(v, t.headDim), n, t.causal, bias.empty() ? nullptr : bias.data());
            if (!o.defined()) return true;
            x = mlp(added(x, project(o, b.o), b.attentionNorm, t), b, t);
            if (!at::isfinite(x).all().item<bool>()) notFinite(first + l);
        }
        return false;
    }

    /// The text through its tower. @return false when the pass ended on the way
    bool encodeText(std::span<const std::int32_t> ids) {
        const EncoderConfig& e = *m_config.encoder;
        const Tower& t = e.text;
        m_encoded.reset();
        m_cross.assign(std::size_t(e.decoder.layers), {});
        at::Tensor x = embedText(ids, e.words, m_w->words(Side::Text), t.normEps, 0);
        if (runTower(t, Side::Text, x, 0)) return false;
        if (const Affine& norm = m_w->tower(Side::Text).finalNorm; norm.given())
            x = normalise(x, norm, t);
        m_encoded = x;
        m_lastIsImage = false;
        if (e.head == EncoderHead::ClipProjection)
            m_last = x.narrow(0, pooledRow(ids), 1);
        else if (!hasDecoder())
            m_last = x;
        return true;
    }

    Index pooledRow(std::span<const std::int32_t> ids) const {
        const EncoderConfig& e = *m_config.encoder;
        if (e.poolLargest) return std::max_element(ids.begin(), ids.end()) - ids.begin();
        const auto at = std::find(ids.begin(), ids.end(), std::int32_t(e.poolToken));
        return at == ids.end() ? 0 : at - ids.begin();  // argmax over a row of zeros is 0
    }

    void finishImage(const at::Tensor& x) {
        const Affine& norm = m_w->tower(Side::Vision).finalNorm;
        m_last = x.narrow(0, 0, 1);
        if (norm.given()) m_last = normalise(m_last, norm, m_config.encoder->vision);
        m_lastIsImage = true;
    }

    /// The decoder over `ids`, from cache->length() on; without a cache from the start.
    void decode(std::span<const std::int32_t> ids, KvCache* cache) {
        const EncoderConfig& e = *m_config.encoder;
        const Tower& t = e.decoder;
        const Index past = cache ? cache->length() : 0, n = Index(ids.size()), keys = past + n;
        const Index dec = m_config.stacks[1].first, cross = m_config.stacks[2].first;
        const TowerWeights& tower = m_w->tower(Side::Decoder);
        at::Tensor x = embedText(ids, e.decoderWords, m_w->words(Side::Decoder), t.normEps, past);
        const std::vector<float> bias = relativeBias(t, tower, n, keys);
        for (Index l = 0; l < t.layers; ++l) {
            // Generating goes over the blocks again and again: they stay when there is room.
            const auto weights = m_w->block(Side::Decoder, l, cache && m_keep);
            const EncoderBlockWeights& b = *weights;
            at::Tensor in = entering(x, b.attentionNorm, t);
            const at::Tensor k = project(in, b.k), v = project(in, b.v);
            kernels::TensorView kView = headView(k, t.headDim), vView = headView(v, t.headDim);
            if (cache) {
                const auto [all, values] = keep(*cache, t, l, past, k, v);
                kView = cacheView(all);
                vView = cacheView(values);
            }
            at::Tensor o = attend(dec + l, t, project(in, b.q), kView, vView, keys, true,
                                  bias.empty() ? nullptr : bias.data());
            if (!o.defined()) return;
            x = added(x, project(o, b.o), b.attentionNorm, t);

            in = entering(x, b.crossNorm, t);
            auto& [crossK, crossV] = m_cross[std::size_t(l)];
            if (!crossK.defined()) {
                crossK = project(m_encoded, b.crossK);
                crossV = project(m_encoded, b.crossV);
            }
            o = attend(cross + l, t, project(in, b.crossQ), headView(crossK, t.headDim),
                       headView(crossV, t.headDim), m_encoded.size(0), false, nullptr);
            if (!o.defined()) return;
            x = added(x, project(o, b.crossO), b.crossNorm, t);
            x = mlp(x, b, t);
            if (!at::isfinite(x).all().item<bool>()) notFinite(dec + l);
        }
        if (cache) cache->setLength(keys);
        m_last = tower.finalNorm.given() ? normalise(x, tower.finalNorm, t) : x;
    }

    /// The decoder's keys and values stay on the device. @return those of layer `l`
    std::pair<at::Tensor&, at::Tensor&> keep(KvCache& cache, const Tower& t, Index l, Index past,
                                             const at::Tensor& k, const at::Tensor& v) const {
        if (!cache.own()) cache.own() = std::make_shared<gpu::Cache>();
        auto& kept = *static_cast<gpu::Cache*>(cache.own().get());
        kept.k.resize(std::size_t(t.layers));
        kept.v.resize(std::size_t(t.layers));
        const auto add = [&](at::Tensor& all, const at::Tensor& x) {
            if (!all.defined())
                all = at::empty({t.heads, cache.capacity(), t.headDim}, x.options());
            if (all.device() != m_device) all = all.to(m_device);
            all.narrow(1, past, x.size(0))
                .copy_(x.view({x.size(0), t.heads, t.headDim}).transpose(0, 1));
        };
        add(kept.k[std::size_t(l)], k);
        add(kept.v[std::size_t(l)], v);
        return {kept.k[std::size_t(l)], kept.v[std::size_t(l)]};
    }

    /// Logits of final hidden states.
    at::Tensor head(const at::Tensor& x) {
        const EncoderConfig& e = *m_config.encoder;
        const HeadWeights& w = m_w->head();
        const auto none = [&]() -> at::Tensor {
            throw Error(Errc::Unsupported, "the weights of '" + m_config.name +
                                               "' have no output head, so there are no logits");
        };
        switch (e.head) {
            case EncoderHead::BertMaskedLm:
            case EncoderHead::RobertaMaskedLm: {
                if (!w.output.given()) return none();
                const std::string act =
                    e.head == EncoderHead::BertMaskedLm ? e.text.activation : "gelu";
                const at::Tensor h = activate(project(x, w.dense), act);
                return project(layerNorm(h, w.norm, e.text.normEps), w.output);
            }
            case EncoderHead::LanguageModel:
                if (w.output.given())
                    return project(e.logitsScale == 1.0 ? x : x * e.logitsScale, w.output);
                return none();
            case EncoderHead::ImageClasses:
                return w.output.given() ? project(x, w.output) : none();
            case EncoderHead::ClipProjection: {
                const Affine& p = m_lastIsImage ? w.visualProjection : w.textProjection;
                return p.given() ? project(x, p) : none();
            }
            default:
                return none();
        }
    }

    [[noreturn]] void notFinite(Index layer) const {
        throw Error(Errc::Format, "model '" + m_config.name + "': the activations of layer " +
                                      layerName(m_config, layer) +
                                      " became NaN or infinite; the weights may be damaged");
    }

    std::filesystem::path m_directory;
    ModelConfig m_config;
    std::unique_ptr<EncoderWeights> m_w;  ///< on m_device
    bool m_keep = false;                  ///< there is room for all blocks
    int m_threads;
    at::Device m_device = at::kCPU;
    std::vector<std::string> m_notes;

    at::Tensor m_encoded;                                    ///< final hidden states of the text
    std::vector<std::pair<at::Tensor, at::Tensor>> m_cross;  ///< k, v of the text by decoder layer
    at::Tensor m_last;  ///< rows that logits() turns into logits
    bool m_lastIsImage = false;

    // Of the pass that runs.
    const AttentionFn* m_attention = nullptr;
    const Job* m_job = nullptr;
    Index m_stop = -1;  ///< the pass ends after this layer's attention; -1 = it is complete
    Index m_done = 0, m_total = 1;
};

}  // namespace

std::unique_ptr<ModelRunner> loadEncoder(const std::filesystem::path& directory, ModelConfig config,
                                         int threads, const Job& job, std::string_view device) {
    return std::make_unique<EncoderRunner>(directory, std::move(config), threads, device, job);
}

}  // namespace sparsight
