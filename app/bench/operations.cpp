#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>

#include "app/bench/inputs.h"
#include "core/metrics/mask_estimate.h"
#include "core/metrics/mask_metrics.h"

namespace sparsight::bench {
namespace {

using namespace kernels;

class Table {
public:
    Table(Backend& backend, const std::string& filter, std::vector<std::shared_ptr<Peer>> peers)
        : m_backend(&backend), m_filter(filter), m_peers(std::move(peers)) {}

    std::vector<Operation> take() { return std::move(m_operations); }

    /// Dense attention. @param bar least fraction of the FMA peak
    void dense(const std::string& id, Shape s, double bar = 0, bool peers = false) {
        if (!wanted(id)) return;
        Operation op;
        op.id = id;
        op.title = "dense forward + LSE";
        op.shape = s;
        op.flops = productFlops(s, pairsOf(s));
        auto input = planned(s, everyHead(Dense{}), PlanMode::Exact);
        op.run = [backend = m_backend, input]() mutable { forward(*backend, input()); };
        op.error = [backend = m_backend, s] {
            return forwardError(*backend, s, everyHead(Dense{}), PlanMode::Exact);
        };
        op.errorLimit = errorLimitOf(s.type);
        op.peakBar = bar;
        if (peers)
            for (const auto& peer : m_peers)
                op.rivals.push_back(
                    {Rival::Peer, peer->name(), [peer, s] { return peer->attention(s); }});
        m_operations.push_back(std::move(op));
    }

    /// A mask against the dense forward of the same shape, by the density of its plan.
    void sparse(const std::string& id, const std::string& title, Shape s, const Policies& policies,
                PlanMode mode, double bar, bool lseOnly = false) {
        if (!wanted(id)) return;
        Operation op;
        op.id = id;
        op.title = title;
        op.shape = s;
        auto input = planned(s, policies, mode);
        const double density = densityOf(input().plan);
        op.flops = productFlops(s, pairsOf(s)) * density / (lseOnly ? 2 : 1);
        if (lseOnly) {
            op.run = [backend = m_backend, input]() mutable {
                Planned& x = input();
                backend->lseOnly(x.layer.problem, x.layer.q, x.layer.k, x.plan, x.layer.lse.data());
            };
            op.rivals.push_back({Rival::Cost, "forward of the same plan",
                                 [backend = m_backend, input]() mutable {
                                     return timed([&] { forward(*backend, input()); });
                                 },
                                 1, bar});
        } else {
            op.run = [backend = m_backend, input]() mutable { forward(*backend, input()); };
            // One dense head is enough to know the price of dense work.
            Shape one = s;
            one.heads = one.kvHeads = 1;
            auto dense = planned(one, everyHead(Dense{}), PlanMode::Exact);
            char name[64];
            std::snprintf(name, sizeof name, "density %.4f x dense", density);
            op.rivals.push_back({Rival::Cost, name,
                                 [backend = m_backend, dense]() mutable {
                                     return timed([&] { forward(*backend, dense()); });
                                 },
                                 density * double(s.heads), bar});
        }
        op.error = [backend = m_backend, s, policies, mode] {
            return forwardError(*backend, s, policies, mode);
        };
        op.errorLimit = errorLimitOf(s.type);
        m_operations.push_back(std::move(op));
    }

    /// Rows alone, or with the passes over keys, or those and the top 64 keys against the capture
    /// without them.
    enum class Captures { Rows, All, TopK };
    void capture(const std::string& id, Shape s, Captures what, double bar) {
        if (!wanted(id)) return;
        const bool keyPass = what != Captures::Rows, topK = what == Captures::TopK;
        struct Both {
            Layer layer;
            Captured captured;
            Both(const Shape& shape, bool keys, bool top)
                : layer(shape), captured(layer.problem, keys, top) {}
        };
        Operation op;
        op.id = id;
        op.title = topK      ? "capture + top 64 keys per query"
                   : keyPass ? "capture: LSE, entropy, blocks, columns, diagonals"
                             : "capture: row statistics only";
        op.shape = s;
        op.flops = productFlops(s, pairsOf(s)) / (keyPass ? 1 : 2);
        const auto captured = [backend = m_backend, s, keyPass](bool top) {
            auto input = lazy<Both>([=] { return std::make_shared<Both>(s, keyPass, top); });
            return [backend, input]() mutable {
                Both& x = input();
                backend->capture(x.layer.problem, x.layer.q, x.layer.k, x.captured.spec,
                                 x.captured.out);
            };
        };
        op.run = captured(topK);
        op.error = [backend = m_backend, s, keyPass, topK] {
            return captureError(*backend, s, keyPass, topK);
        };
        op.errorLimit = 2e-5;
        if (topK)
            op.rivals.push_back(
                {Rival::Cost, "capture without",
                 [run = captured(false)]() mutable { return timed([&] { run(); }); }, 1, bar});
        else
            op.rivals.push_back(denseForward(s, 1, bar));
        m_operations.push_back(std::move(op));
    }

    void antidiagonal(const std::string& id, Shape s, Index stride, Index block, double bar) {
        if (!wanted(id)) return;
        struct Scored {
            Layer layer;
            std::vector<float> score;
            Scored(const Shape& shape, Index edge)
                : layer(shape),
                  score(std::size_t(shape.heads * ((shape.nq + edge - 1) / edge) *
                                    ((shape.nk + edge - 1) / edge))) {}
        };
        const auto score = [stride, block](Backend& backend, Scored& x) {
            backend.antidiagonal(x.layer.problem, x.layer.q, x.layer.k, stride, block, 0,
                                 x.score.data());
        };
        Operation op;
        op.id = id;
        op.title = "antidiagonal scores, stride " + std::to_string(stride);
        op.shape = s;
        op.flops = productFlops(s, pairsOf(s)) / (2.0 * double(stride));
        auto input = lazy<Scored>([s, block] { return std::make_shared<Scored>(s, block); });
        op.run = [backend = m_backend, input, score]() mutable { score(*backend, input()); };
        op.error = [backend = m_backend, s, block, score] {
            Shape small = s;
            small.heads = small.kvHeads = 1;
            small.nq = small.nk = kCheckedTokens;
            Scored a(small, block), b(small, block);
            score(*backend, a);
            score(*makeReference(), b);
            return distance(a.score.data(), b.score.data(), Index(a.score.size()));
        };
        op.errorLimit = 2e-5;
        op.rivals.push_back(denseForward(s, 1, bar));
        m_operations.push_back(std::move(op));
    }

    void render(const std::string& id, Index tokens, Index pixels, Statistic statistic) {
        if (!wanted(id)) return;
        Shape s;
        s.heads = s.kvHeads = 1;
        s.nq = s.nk = tokens;
        struct Drawn {
            Layer layer;
            RenderSpec spec;
            std::vector<float> px;
            Drawn(const Shape& shape, Index edge, Statistic wanted) : layer(shape) {
                spec.q1 = spec.k1 = shape.nq;
                spec.width = spec.height = edge;
                spec.statistic = wanted;
                px.resize(std::size_t(edge * edge));
            }
        };
        const auto make = [statistic](Backend& backend, const Shape& shape, Index edge) {
            auto drawn = std::make_shared<Drawn>(shape, edge, statistic);
            CaptureOut out;
            out.lse = drawn->layer.lse.data();
            backend.capture(drawn->layer.problem, drawn->layer.q, drawn->layer.k, {}, out);
            return drawn;
        };
        const auto draw = [](Backend& backend, Drawn& x) {
            backend.render(x.layer.problem, x.layer.q, x.layer.k, x.layer.lse.data(), x.spec,
                           x.px.data());
        };
        Operation op;
        op.id = id;
        op.title = "render " + std::to_string(tokens) + " x " + std::to_string(tokens) +
                   " tokens to " + std::to_string(pixels) + " x " + std::to_string(pixels);
        op.shape = s;
        op.flops = 2.0 * pairsOf(s) * double(s.d);
        auto input = lazy<Drawn>(
            [backend = m_backend, make, s, pixels] { return make(*backend, s, pixels); });
        op.run = [backend = m_backend, input, draw]() mutable { draw(*backend, input()); };
        op.error = [backend = m_backend, make, draw, s, pixels] {
            Shape small = s;
            small.nq = small.nk = std::min<Index>(s.nq, kCheckedTokens);
            const auto reference = makeReference();
            const auto a = make(*backend, small, std::min<Index>(pixels, 300)),
                       b = make(*reference, small, std::min<Index>(pixels, 300));
            draw(*backend, *a);
            draw(*reference, *b);
            return distance(a->px.data(), b->px.data(), Index(a->px.size()));
        };
        op.errorLimit = 2e-5;
        m_operations.push_back(std::move(op));
    }

    /// What a user waits for while a slider moves: one head of 16k tokens from its statistics, or
    /// measured.
    void interactive() {
        struct Stored {
            Layer layer;
            LayerStats stats;
            Stored(Backend& backend, const Shape& shape, Index heads) : layer(shape) {
                stats.heads = heads;
                stats.Nq = shape.nq;
                stats.Nk = shape.nk;
                LayerStats::Level base;
                base.rows = (shape.nq + 63) / 64;
                base.cols = (shape.nk + 63) / 64;
                base.sum.resize(std::size_t(base.rows * base.cols));
                stats.colMass.resize(std::size_t(shape.nk));
                stats.diagMass.resize(std::size_t(shape.nk));
                stats.sinkMass.resize(std::size_t(shape.nq));
                CaptureOut out;
                out.lse = layer.lse.data();
                out.blockSum = base.sum.data();
                out.colMass = stats.colMass.data();
                out.diagMass = stats.diagMass.data();
                out.sinkMass = stats.sinkMass.data();
                backend.capture(layer.problem, layer.q, layer.k, {}, out);
                for (Index h = 1; h < heads; ++h)
                    base.sum.insert(base.sum.end(), base.sum.begin(),
                                    base.sum.begin() + std::ptrdiff_t(base.rows * base.cols));
                stats.pyramid.push_back(std::move(base));
            }
        };
        Shape s;
        s.heads = s.kvHeads = 1;
        s.nq = s.nk = 16384;
        s.causal = true;
        auto stored = lazy<Stored>(
            [backend = m_backend, s] { return std::make_shared<Stored>(*backend, s, 64); });
        const auto add = [&](const std::string& id, const std::string& title,
                             std::function<void()> run) {
            if (!wanted(id)) return;
            Operation op;
            op.id = id;
            op.title = title;
            op.shape = s;
            op.run = std::move(run);
            m_operations.push_back(std::move(op));
        };
        Problem p;
        p.Nq = p.Nk = s.nq;
        p.d = p.dv = s.d;
        const std::pair<std::string, Policy> masks[] = {
            {"streaming", Streaming{128, 1024}},
            {"blocks", randomBlocks(64, 0.1)(p)[0]},
            {"vertical-slash", randomVerticalSlash(1000, 200)(p)[0]}};
        for (const auto& [name, policy] : masks) {
            add("estimate-" + name, "recall and density of a new mask from the statistics",
                [stored, policy = policy]() mutable {
                    Stored& x = stored();
                    estimateMask(x.layer.problem, x.stats, 0, policy);
                });
            add("measure-" + name, "recall and density of a new mask, measured",
                [backend = m_backend, stored, policy = policy]() mutable {
                    Stored& x = stored();
                    HeadInput head;
                    head.problem = x.layer.problem;
                    head.q = x.layer.q;
                    head.k = x.layer.k;
                    head.lse = x.layer.lse.data();
                    head.backend = backend;
                    MetricsOptions options;
                    options.outputError = options.tileRecall = false;
                    measureMask(*backend, head, x.layer.v, policy, options);
                });
            add("plan-" + name, "planner: nominal set to tiles",
                [stored, policy = policy]() mutable {
                    buildPlan(stored().layer.problem, std::span(&policy, 1), PlanMode::Tile);
                });
        }
        add("block-curve", "recall against density of block masks, 64 heads, 20 densities",
            [backend = m_backend, stored]() mutable {
                Stored& x = stored();
                std::vector<double> densities;
                for (int i = 1; i <= 20; ++i) densities.push_back(0.03 * i);
                const BlockMasses masses{x.layer.problem, &x.stats};
                blockCurve(std::span(&masses, 1), densities, backend->threads());
            });
    }

    /// One decode step: memory decides.
    void decode(const std::string& id, Shape s) {
        if (!wanted(id)) return;
        Operation op;
        op.id = id;
        op.title = "decode step";
        op.shape = s;
        op.flops = productFlops(s, pairsOf(s));
        op.bytes = 2.0 * double(s.kvHeads * s.nk * s.d * bytesOf(s.type));
        auto input = planned(s, everyHead(Dense{}), PlanMode::Exact);
        op.run = [backend = m_backend, input]() mutable { forward(*backend, input()); };
        op.error = [backend = m_backend, s] {
            return forwardError(*backend, s, everyHead(Dense{}), PlanMode::Exact);
        };
        op.errorLimit = errorLimitOf(s.type);
        m_operations.push_back(std::move(op));
    }

private:
    bool wanted(const std::string& id) const { return id.find(m_filter) != std::string::npos; }

    static auto planned(const Shape& s, const Policies& policies, PlanMode mode)
        -> std::function<Planned&()> {
        return lazy<Planned>([=] { return std::make_shared<Planned>(s, policies, mode); });
    }
    Rival denseForward(const Shape& s, double share, double bar) {
        auto input = planned(s, everyHead(Dense{}), PlanMode::Exact);
        return {Rival::Cost, "dense forward",
                [backend = m_backend, input]() mutable {
                    return timed([&] { forward(*backend, input()); });
                },
                share, bar};
    }

    Backend* m_backend;
    std::string m_filter;
    std::vector<std::shared_ptr<Peer>> m_peers;
    std::vector<Operation> m_operations;
};

}  // namespace

std::vector<Operation> cpuOperations(Backend& backend, const std::string& filter,
                                     const std::vector<std::shared_ptr<Peer>>& peers) {
    Table t(backend, filter, peers);
    const auto square = [](Index heads, Index kvHeads, Index n, Index d, bool causal,
                           DType type = DType::F32) {
        return Shape{heads, kvHeads, n, n, d, causal, type};
    };
    t.dense("dense-full-d128", square(4, 4, 4096, 128, false), 0.62, true);
    t.dense("dense-causal-d128", square(4, 4, 4096, 128, true), 0.52, true);
    t.dense("dense-full-d64", square(8, 8, 4096, 64, false), 0, true);
    t.dense("dense-causal-d64", square(8, 8, 4096, 64, true), 0, true);
    t.dense("dense-causal-gqa", square(8, 2, 4096, 128, true));
    t.dense("dense-causal-bf16", square(4, 4, 4096, 128, true, DType::BF16));
    for (const Index d : {32, 80, 96, 256})
        t.dense("dense-full-d" + std::to_string(d), square(4, 4, 2048, d, false));
    const Shape longer = square(2, 2, 16384, 128, true);
    t.sparse("blocks-128-10", "random blocks of 128, 10 %", longer, randomBlocks(128, 0.1),
             PlanMode::Tile, 1.15);
    t.sparse("blocks-64-10", "random blocks of 64, 10 %", longer, randomBlocks(64, 0.1),
             PlanMode::Tile, 1.15);
    t.sparse("vertical-slash", "vertical-slash 1000 + 200, tiles", longer,
             randomVerticalSlash(1000, 200), PlanMode::Tile, 1.35);
    t.sparse("vertical-slash-exact", "vertical-slash 1000 + 200, token-exact", longer,
             randomVerticalSlash(1000, 200), PlanMode::Exact, 0);
    t.sparse("streaming", "streaming 128 + 1024", longer, everyHead(Streaming{128, 1024}),
             PlanMode::Tile, 0);
    t.sparse(
        "mixed", "one dense head + 31 streaming 128 + 1024", square(32, 32, 8192, 128, true),
        [](const Problem& p) {
            std::vector<Policy> all(std::size_t(p.Hq), Streaming{128, 1024});
            all[0] = Dense{};
            return all;
        },
        PlanMode::Tile, 1.15);
    t.sparse("lse-dense", "LSE only, dense", square(4, 4, 4096, 128, true), everyHead(Dense{}),
             PlanMode::Exact, 0, true);
    t.sparse("recall-blocks", "LSE only, random blocks of 64, 10 %", longer, randomBlocks(64, 0.1),
             PlanMode::Exact, 0, true);
    using Captures = Table::Captures;
    t.capture("capture", square(4, 4, 4096, 128, true), Captures::All, 2.2);
    t.capture("capture-d64", square(8, 8, 4096, 64, true), Captures::All, 2.2);
    t.capture("capture-rows", square(4, 4, 4096, 128, true), Captures::Rows, 0);
    t.capture("capture-top", square(4, 4, 4096, 128, true), Captures::TopK, 1.5);
    t.capture("capture-top-d64", square(8, 8, 4096, 64, true), Captures::TopK, 1.5);
    t.render("render-sum", 2048, 1024, Statistic::Sum);
    t.render("render-max", 2048, 1024, Statistic::Max);
    t.antidiagonal("antidiagonal-8", square(4, 4, 4096, 128, true), 8, 128, 0.25);
    t.antidiagonal("antidiagonal-16", square(4, 4, 4096, 128, true), 16, 128, 0);
    t.interactive();
    t.decode("decode", Shape{32, 8, 1, 32768, 128, true, DType::F32});
    t.decode("decode-bf16", Shape{32, 8, 1, 32768, 128, true, DType::BF16});
    return t.take();
}

}  // namespace sparsight::bench
