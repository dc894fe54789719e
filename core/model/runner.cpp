#include "core/model/runner.h"

#include <optional>

namespace sparsight {
namespace {

bool sameShape(const kernels::Problem& a, const kernels::Problem& b) {
    return a.Hq == b.Hq && a.Hkv == b.Hkv && a.Nq == b.Nq && a.Nk == b.Nk && a.d == b.d &&
           a.dv == b.dv && a.causal == b.causal && a.window == b.window;
}

/// The dense plan of the last problem: all layers of a pass have the same one.
struct DensePlan {
    kernels::Problem problem;
    kernels::Plan plan;
    bool valid = false;

    const kernels::Plan& of(const kernels::Problem& p) {
        if (!valid || !sameShape(p, problem)) {
            const kernels::Policy dense = kernels::Dense{};
            plan = kernels::buildPlan(p, {&dense, 1}, kernels::PlanMode::Exact);
            problem = p;
            valid = true;
        }
        return plan;
    }
};

}  // namespace

KvCache::KvCache(const ModelConfig& config, Index capacity, Keep keep)
    : m_kvHeads(config.kvHeads),
      m_d(config.headDim),
      m_dv(config.valueWidth()),
      m_capacity(capacity),
      m_layers(config.layers) {
    for (const AttentionStack& s : config.stacks)
        if (s.name == "dec") {  // its numbers here are those within the decoder
            m_kvHeads = s.heads;
            m_d = m_dv = s.headDim;
            m_layers = s.layers;
        }
    const auto buffers = std::size_t(keep == Keep::AllLayers ? m_layers : 1);
    m_k.resize(buffers);
    m_v.resize(buffers);
}

float* KvCache::row(std::vector<std::vector<float>>& buffers, Index layer, Index head, Index token,
                    Index width) {
    std::vector<float>& b = buffers[std::size_t(layer) % buffers.size()];
    if (b.empty()) b.resize(std::size_t(m_kvHeads * m_capacity * width));
    return b.data() + (head * m_capacity + token) * width;
}

float* KvCache::key(Index layer, Index head, Index token) {
    return row(m_k, layer, head, token, m_d);
}

float* KvCache::value(Index layer, Index head, Index token) {
    return row(m_v, layer, head, token, m_dv);
}

std::vector<std::byte> copyOf(const LayerCall& call, const kernels::TensorView& x, Index heads,
                              Index tokens, Index d, kernels::DType to) {
    std::vector<std::byte> out(std::size_t(heads * tokens * d * kernels::bytesOf(to)));
    if (call.onGpu()) {
        call.fetch(x, heads, tokens, d, to, out.data());
        return out;
    }
    for (Index h = 0; h < heads; ++h)
        for (Index n = 0; n < tokens; ++n)
            for (Index c = 0; c < d; ++c)
                kernels::storeFloat(out.data(), to, (h * tokens + n) * d + c,
                                    kernels::loadFloat(x.p, x.t, h * x.sh + n * x.sn + c));
    return out;
}

LayerCall readable(const LayerCall& call, std::vector<std::byte> (&memory)[3]) {
    if (!call.onGpu()) return call;
    const kernels::Problem& p = call.problem;
    LayerCall here = call;
    const auto move = [&](kernels::TensorView& x, Index heads, Index tokens, Index d,
                          std::vector<std::byte>& to) {
        to = copyOf(call, x, heads, tokens, d, kernels::DType::F32);
        x = {to.data(), kernels::DType::F32, heads * tokens * d, tokens * d, d};
    };
    move(here.q, p.Hq, p.Nq, p.d, memory[0]);
    move(here.k, p.Hkv, p.Nk, p.d, memory[1]);
    move(here.v, p.Hkv, p.Nk, p.dv, memory[2]);
    here.fetch = nullptr;
    return here;
}

void ModelRunner::pass(const ModelInput& input, const AttentionFn& attention, const Job& job,
                       std::span<const Index> wanted) {
    inputSize(config(), input);
    KvCache cache(config(), Index(input.ids.size()), KvCache::Keep::LastLayer);
    forward(input.ids, cache, attention, job, wanted.empty() ? -1 : wanted.back());
}

std::int32_t ModelRunner::encode(std::span<const std::int32_t>, const AttentionFn&, const Job&) {
    throw Error(Errc::Unsupported,
                "model '" + config().name + "' (" + config().arch + ") is no encoder-decoder");
}

void checkIds(const ModelConfig& config, std::span<const std::int32_t> ids) {
    if (ids.empty()) throw Error(Errc::Usage, "there are no tokens to run the model on");
    for (std::size_t i = 0; i < ids.size(); ++i)
        if (ids[i] < 0 || ids[i] >= config.vocab)
            throw Error(Errc::Usage, "token " + std::to_string(i) + " has id " +
                                         std::to_string(ids[i]) + ", model '" + config.name +
                                         "' has ids 0 to " + std::to_string(config.vocab - 1));
}

Job withoutReport(const Job& job) {
    return Job({}, [job] { return job.stopAsked(); });
}

AttentionFn denseAttention(kernels::Backend& backend, const Job& job) {
    // Above this many KvTiles (16 bytes each) heads go one by one through the plan of one head.
    constexpr Index kMostTiles = Index(1) << 20;
    return [&backend, quiet = withoutReport(job),
            cached = std::make_shared<DensePlan>()](const LayerCall& call) {
        const kernels::Problem& p = call.problem;
        const Index tiles = (p.Nq / kernels::kTile + 1) * (p.Nk / kernels::kTile + 1);
        if (p.Hq * tiles <= kMostTiles) {
            try {
                backend.forward(p, call.q, call.k, call.v, cached->of(p), call.o, nullptr, quiet);
                return;
            } catch (const Error& e) {  // a GPU may have the memory for one head
                if (e.code() != Errc::Resources || p.Hq == 1) throw;
            }
        }
        for (Index h = 0; h < p.Hq; ++h) {
            const kernels::Problem one = p.oneHead(h);
            kernels::MutTensorView o = call.o;
            o.p = static_cast<char*>(o.p) + h * o.sh * kernels::bytesOf(o.t);
            backend.forward(one, call.q.head(h), call.k.head(p.kvHead(h)), call.v.head(p.kvHead(h)),
                            cached->of(one), o, nullptr, quiet);
        }
    };
}

}  // namespace sparsight
