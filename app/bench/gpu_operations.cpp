#include <cuda_runtime.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <utility>

#include "app/bench/inputs.h"

namespace sparsight::bench {
namespace {

using namespace kernels;

void check(cudaError_t status, const char* what) {
    if (status != cudaSuccess)
        throw Error(Errc::Resources,
                    "bench: " + std::string(what) + ": " + cudaGetErrorString(status));
}

/// Memory of the GPU.
class Memory {
public:
    explicit Memory(Index bytes) {
        check(cudaMalloc(&m_p, std::size_t(std::max<Index>(1, bytes))), "taking GPU memory");
    }
    ~Memory() { cudaFree(m_p); }
    Memory(const Memory&) = delete;
    Memory& operator=(const Memory&) = delete;
    void* get() const { return m_p; }
    float* floats() const { return static_cast<float*>(m_p); }

    /// Normal random numbers: a block of them over and over, each time from another place on.
    void randomize(Index count, DType type, unsigned seed) {
        constexpr Index kBlock = (Index(1) << 21) + 1;
        const auto block = randomTensor(kBlock, type, seed);
        const Index bytes = bytesOf(type);
        for (Index at = 0, n = 0; at < count; at += kBlock, ++n)
            check(cudaMemcpy(static_cast<char*>(m_p) + at * bytes, block.data(),
                             std::size_t(std::min(kBlock, count - at) * bytes),
                             cudaMemcpyHostToDevice),
                  "filling GPU memory");
    }

private:
    void* m_p = nullptr;
};

/// One layer on the GPU.
struct GpuLayer {
    Problem problem;
    Memory qData, kData, vData, oData, lse;
    TensorView q, k, v;
    MutTensorView o;

    explicit GpuLayer(const Shape& s)
        : problem(problemOf(s)),
          qData(s.heads * s.nq * s.d * bytesOf(s.type)),
          kData(s.kvHeads * s.nk * s.d * bytesOf(s.type)),
          vData(s.kvHeads * s.nk * s.d * bytesOf(s.type)),
          oData(s.heads * s.nq * s.d * bytesOf(s.type)),
          lse(s.heads * s.nq * 4) {
        qData.randomize(s.heads * s.nq * s.d, s.type, 1);
        kData.randomize(s.kvHeads * s.nk * s.d, s.type, 2);
        vData.randomize(s.kvHeads * s.nk * s.d, s.type, 3);
        q = {qData.get(), s.type, 0, s.nq * s.d, s.d};
        k = {kData.get(), s.type, 0, s.nk * s.d, s.d};
        v = {vData.get(), s.type, 0, s.nk * s.d, s.d};
        o = {oData.get(), s.type, 0, s.nq * s.d, s.d};
    }
};

/// Masks and their plan, which know the density before any GPU memory is taken.
struct Masked {
    std::vector<Policy> policies;
    Plan plan;
    Masked(const Problem& p, const Policies& masks, PlanMode mode)
        : policies(masks(p)), plan(buildPlan(p, policies, mode)) {}
};
struct GpuPlanned {
    GpuLayer layer;
    std::shared_ptr<const Masked> masked;
    GpuPlanned(const Shape& s, std::shared_ptr<const Masked> m) : layer(s), masked(std::move(m)) {}
};

double forwardMs(Backend& backend, GpuPlanned& x) {
    return backend
        .forward(x.layer.problem, x.layer.q, x.layer.k, x.layer.v, x.masked->plan, x.layer.o,
                 x.layer.lse.floats())
        .kernelMs;
}
/// With the plan made in the same call.
double plannedMs(Backend& backend, GpuPlanned& x) {
    const Report r =
        backend.forwardMasks(x.layer.problem, x.layer.q, x.layer.k, x.layer.v, x.masked->policies,
                             PlanMode::Tile, x.layer.o, x.layer.lse.floats());
    return r.planMs + r.kernelMs;
}
double lseMs(Backend& backend, GpuPlanned& x) {
    return backend
        .lseOnly(x.layer.problem, x.layer.q, x.layer.k, x.masked->plan, x.layer.lse.floats())
        .kernelMs;
}

/// Everything that capture gives, on the GPU.
struct GpuCaptured {
    GpuLayer layer;
    CaptureSpec spec;
    std::vector<std::unique_ptr<Memory>> memory;
    CaptureOut out;

    GpuCaptured(const Shape& s, bool keyPass, bool topK) : layer(s) {
        const Problem& p = layer.problem;
        const Index rows = p.Hq * p.Nq;
        const Index blocks =
            p.Hq * ((p.Nq + spec.block - 1) / spec.block) * ((p.Nk + spec.block - 1) / spec.block);
        for (float** x : {&out.lse, &out.rowMax, &out.entropy, &out.meanDistance, &out.sinkMass,
                          &out.localMass})
            *x = take(rows);
        if (topK) {
            out.topKey = static_cast<std::int32_t*>(static_cast<void*>(take(rows * spec.topK)));
            out.topP = take(rows * spec.topK);
        }
        if (!keyPass) return;
        out.blockSum = take(blocks);
        out.blockMax = take(blocks);
        out.colMass = take(p.Hq * p.Nk);
        out.diagMass = take(p.Hq * p.Nk);
    }
    float* take(Index floats) {
        memory.push_back(std::make_unique<Memory>(4 * floats));
        return memory.back()->floats();
    }
};
double captureMs(Backend& backend, GpuCaptured& x) {
    return backend.capture(x.layer.problem, x.layer.q, x.layer.k, x.spec, x.out).kernelMs;
}

/// The block list of every head as bytes [heads][rows][cols] in a file that the peers read.
class BlockFile {
public:
    BlockFile(const std::vector<Policy>& policies, Index heads, Index blocks) {
        static int number = 0;
        m_path = std::filesystem::temp_directory_path() /
                 ("sparsight-bench-" + std::to_string(::getpid()) + "-" + std::to_string(number++) +
                  ".blocks");
        std::vector<char> bytes(std::size_t(heads * blocks * blocks), 0);
        for (Index h = 0; h < heads; ++h) {
            const auto& list =
                std::get<BlockList>(policies[policies.size() == 1 ? 0 : std::size_t(h)]);
            for (Index row = 0; row < blocks; ++row)
                for (auto i = list.rowPtr[std::size_t(row)]; i < list.rowPtr[std::size_t(row) + 1];
                     ++i)
                    bytes[std::size_t((h * blocks + row) * blocks + list.col[std::size_t(i)])] = 1;
        }
        std::ofstream(m_path, std::ios::binary).write(bytes.data(), std::streamsize(bytes.size()));
    }
    ~BlockFile() {
        std::error_code ignored;
        std::filesystem::remove(m_path, ignored);
    }
    BlockFile(const BlockFile&) = delete;
    BlockFile& operator=(const BlockFile&) = delete;
    std::string path() const { return m_path.string(); }

private:
    std::filesystem::path m_path;
};

class GpuTable {
public:
    GpuTable(Backend& backend, std::string filter, std::vector<std::shared_ptr<Peer>> peers)
        : m_backend(&backend), m_filter(std::move(filter)), m_peers(std::move(peers)) {}
    std::vector<Operation> take() { return std::move(m_operations); }

    void dense(const std::string& id, Shape s, double bar) {
        if (!wanted(id)) return;
        Operation op = operation(id, "dense forward + LSE", s);
        op.flops = productFlops(s, pairsOf(s));
        auto input = planned(s, everyHead(Dense{}), PlanMode::Exact);
        op.milliseconds = [backend = m_backend, input]() mutable {
            return forwardMs(*backend, input());
        };
        op.error = [backend = m_backend, s] {
            return forwardError(*backend, s, everyHead(Dense{}), PlanMode::Exact);
        };
        op.errorLimit = errorLimitOf(s.type, true);
        if (s.type != DType::F32)
            for (const auto& [name, least] :
                 {std::pair(std::string("cudnn"), bar), {"flash", 0.0}, {"efficient", 0.0}})
                peer(op, "sdpa " + name, request("sdpa " + name, s), least);
        m_operations.push_back(std::move(op));
    }

    /// A mask by its plan's share of dense. @param flex  least ratio against FlexAttention, -1:
    /// not asked
    /// @param plansToo  the plan is made in every run
    void sparse(const std::string& id, const std::string& title, Shape s, const Policies& masks,
                double bar, double flex = -1, bool plansToo = false) {
        if (!wanted(id)) return;
        const auto masked = std::make_shared<Masked>(problemOf(s), masks, PlanMode::Tile);
        auto input = planned(s, masked);
        const double density = densityOf(masked->plan);
        Operation op = operation(id, title, s);
        op.flops = density * productFlops(s, pairsOf(s));
        op.milliseconds = [backend = m_backend, input, plansToo]() mutable {
            return plansToo ? plannedMs(*backend, input()) : forwardMs(*backend, input());
        };
        op.error = [backend = m_backend, s, masks] {
            return forwardError(*backend, s, masks, PlanMode::Tile);
        };
        op.errorLimit = errorLimitOf(s.type, true);
        auto dense = planned(s, everyHead(Dense{}), PlanMode::Exact);
        char name[64];
        std::snprintf(name, sizeof name, "density %.4f x dense", density);
        op.rivals.push_back(
            {Rival::Cost, name,
             [backend = m_backend, dense]() mutable { return forwardMs(*backend, dense()); },
             density, bar});
        if (flex >= 0) {
            const Index block = std::get<BlockList>(masked->policies[0]).block;
            auto file =
                std::make_shared<BlockFile>(masked->policies, s.heads, (s.nq + block - 1) / block);
            const std::string text =
                request("flex " + std::to_string(block) + " " + file->path(), s);
            for (const auto& p : m_peers)
                op.rivals.push_back({Rival::Peer, p->name() + " FlexAttention",
                                     [p, text, file] { return p->ask(text); }, 1, flex});
        }
        m_operations.push_back(std::move(op));
    }

    /// Recall of a plan against the forward of that plan.
    void recall(const std::string& id, const std::string& title, Shape s, const Policies& masks,
                PlanMode mode, double bar) {
        if (!wanted(id)) return;
        Operation op = operation(id, title, s);
        auto input = planned(s, masks, mode);
        op.milliseconds = [backend = m_backend, input]() mutable {
            return lseMs(*backend, input());
        };
        op.rivals.push_back(
            {Rival::Cost, "forward of the same plan",
             [backend = m_backend, input]() mutable { return forwardMs(*backend, input()); }, 1,
             bar});
        m_operations.push_back(std::move(op));
    }

    /// @param eager  least ratio against the n x n matrix in PyTorch, -1: not asked
    void capture(const std::string& id, const std::string& title, Shape s, bool keyPass, bool topK,
                 double bar, double eager = -1) {
        if (!wanted(id)) return;
        Operation op = operation(id, title, s);
        op.flops = productFlops(s, pairsOf(s)) / (keyPass ? 1 : 2);
        auto input =
            lazy<GpuCaptured>([=] { return std::make_shared<GpuCaptured>(s, keyPass, topK); });
        op.milliseconds = [backend = m_backend, input]() mutable {
            return captureMs(*backend, input());
        };
        op.error = [backend = m_backend, s, keyPass, topK] {
            return captureError(*backend, s, keyPass, topK);
        };
        op.errorLimit = 2e-3;
        auto dense = planned(s, everyHead(Dense{}), PlanMode::Exact);
        op.rivals.push_back(
            {Rival::Cost, "our dense forward",
             [backend = m_backend, dense]() mutable { return forwardMs(*backend, dense()); }, 1,
             0});
        for (const auto& p : m_peers)
            op.rivals.push_back({Rival::Cost, "the dense forward of " + p->name() + " sdpa cudnn",
                                 [p, text = request("sdpa cudnn", s)] { return p->ask(text); }, 1,
                                 bar});
        if (eager >= 0) peer(op, "eager attention matrix", request("eager", s), eager);
        m_operations.push_back(std::move(op));
    }

    void render(const std::string& id, Index tokens, Index pixels) {
        if (!wanted(id)) return;
        Shape s{1, 1, tokens, tokens, 128, true, DType::BF16};
        Operation op = operation(id,
                                 "render the map of a head to " + std::to_string(pixels) + " x " +
                                     std::to_string(pixels),
                                 s);
        op.flops = 2.0 * pairsOf(s) * double(s.d);
        struct Drawn {
            GpuLayer layer;
            Memory px;
            RenderSpec spec;
            Drawn(Backend& backend, const Shape& shape, Index edge)
                : layer(shape), px(4 * edge * edge) {
                spec.q1 = spec.k1 = shape.nq;
                spec.width = spec.height = edge;
                CaptureOut out;
                out.lse = layer.lse.floats();
                backend.capture(layer.problem, layer.q, layer.k, {}, out);
            }
        };
        auto input = lazy<Drawn>([backend = m_backend, s, pixels] {
            return std::make_shared<Drawn>(*backend, s, pixels);
        });
        op.milliseconds = [backend = m_backend, input]() mutable {
            Drawn& x = input();
            return backend
                ->render(x.layer.problem, x.layer.q, x.layer.k, x.layer.lse.floats(), x.spec,
                         x.px.floats())
                .kernelMs;
        };
        m_operations.push_back(std::move(op));
    }

    void antidiagonal(const std::string& id, Shape s, Index stride, Index block) {
        if (!wanted(id)) return;
        struct Scored {
            GpuLayer layer;
            Memory score;
            Scored(const Shape& shape, Index edge)
                : layer(shape),
                  score(4 * shape.heads * ((shape.nq + edge - 1) / edge) *
                        ((shape.nk + edge - 1) / edge)) {}
        };
        Operation op = operation(id, "antidiagonal scores, stride " + std::to_string(stride), s);
        op.flops = productFlops(s, pairsOf(s)) / (2.0 * double(stride));
        auto input = lazy<Scored>([s, block] { return std::make_shared<Scored>(s, block); });
        op.milliseconds = [backend = m_backend, input, stride, block]() mutable {
            Scored& x = input();
            return backend
                ->antidiagonal(x.layer.problem, x.layer.q, x.layer.k, stride, block, 0,
                               x.score.floats())
                .kernelMs;
        };
        auto dense = planned(s, everyHead(Dense{}), PlanMode::Exact);
        op.rivals.push_back(
            {Rival::Cost, "our dense forward",
             [backend = m_backend, dense]() mutable { return forwardMs(*backend, dense()); }, 1,
             0.25});
        m_operations.push_back(std::move(op));
    }

private:
    bool wanted(const std::string& id) const { return id.find(m_filter) != std::string::npos; }
    static Operation operation(const std::string& id, const std::string& title, const Shape& s) {
        Operation op;
        op.id = id;
        op.title = title;
        op.shape = s;
        return op;
    }
    static auto planned(const Shape& s, std::shared_ptr<const Masked> masked)
        -> std::function<GpuPlanned&()> {
        return lazy<GpuPlanned>([=] { return std::make_shared<GpuPlanned>(s, masked); });
    }
    static auto planned(const Shape& s, const Policies& masks, PlanMode mode)
        -> std::function<GpuPlanned&()> {
        return planned(s, std::make_shared<Masked>(problemOf(s), masks, mode));
    }
    static std::string request(const std::string& what, const Shape& s) {
        return what + " " + std::to_string(s.heads) + " " + std::to_string(s.kvHeads) + " " +
               std::to_string(s.nq) + " " + std::to_string(s.d) + " " + std::to_string(s.causal) +
               " " + nameOf(s.type);
    }
    void peer(Operation& op, const std::string& what, const std::string& text, double bar) {
        for (const auto& p : m_peers)
            op.rivals.push_back(
                {Rival::Peer, p->name() + " " + what, [p, text] { return p->ask(text); }, 1, bar});
    }

    Backend* m_backend;
    std::string m_filter;
    std::vector<std::shared_ptr<Peer>> m_peers;
    std::vector<Operation> m_operations;
};

}  // namespace

std::vector<Operation> gpuOperations(Backend& backend, const std::string& filter,
                                     const std::vector<std::shared_ptr<Peer>>& peers) {
    GpuTable t(backend, filter, peers);
    const auto shape = [](Index n, Index d = 128, DType type = DType::BF16) {
        return Shape{32, 8, n, n, d, true, type};
    };
    const Index n = 32768;
    t.dense("dense-d128", shape(n), 0.75);
    t.dense("dense-d64", shape(n, 64), 0.7);
    t.dense("dense-d256", shape(n, 256), 0.65);
    t.dense("dense-8k", shape(8192), 0);
    t.dense("dense-128k", shape(131072), 0);
    t.dense("dense-f16", shape(n, 128, DType::F16), 0);
    t.dense("dense-f32-8k", shape(8192, 128, DType::F32), 0);
    for (const auto& [percent, flex] : {std::pair(5, 0.0), {10, 1.3}, {25, 1.3}, {50, 0.0}})
        t.sparse("blocks-128-" + std::to_string(percent),
                 "random blocks of 128, " + std::to_string(percent) + " %", shape(n),
                 randomBlocks(128, percent / 100.0, true), percent == 10 ? 1.2 : 0, flex);
    t.sparse("blocks-64-10", "random blocks of 64, 10 %", shape(n), randomBlocks(64, 0.1, true),
             1.5, 0);
    t.sparse("vertical-slash", "vertical-slash 1000 + 200", shape(n),
             randomVerticalSlash(1000, 200, true), 0);
    t.sparse("vertical-slash-planned", "vertical-slash 1000 + 200, plan included", shape(n),
             randomVerticalSlash(1000, 200, true), 1.5, -1, true);
    t.sparse("streaming", "streaming 128 + 1024", shape(n), everyHead(Streaming{128, 1024}), 1.4);
    t.sparse(
        "mixed", "8 dense + 24 streaming heads", shape(n),
        [](const Problem& p) {
            std::vector<Policy> all;
            for (Index h = 0; h < p.Hq; ++h)
                all.push_back(h % 4 == 0 ? Policy(Dense{}) : Policy(Streaming{128, 1024}));
            return all;
        },
        1.15);
    t.recall("recall-dense", "LSE only, dense", shape(n), everyHead(Dense{}), PlanMode::Exact, 0.8);
    t.recall("recall-blocks", "LSE only, random blocks of 128, 10 %", shape(n),
             randomBlocks(128, 0.1, true), PlanMode::Tile, 0.8);
    const std::string everything = "capture: LSE, entropy, blocks, columns, diagonals";
    t.capture("capture", everything, shape(n), true, false, 2.5);
    t.capture("capture-16k", everything, shape(16384), true, false, 2.5, 4);
    t.capture("capture-128k", everything, shape(131072), true, false, 0);
    t.capture("capture-rows", "capture: row statistics only", shape(n), false, false, 0);
    t.capture("capture-top", "capture + top 64 keys per query", shape(16384), true, true, 0);
    t.render("render", n, 1024);
    t.antidiagonal("antidiagonal-8", shape(n), 8, 128);
    return t.take();
}

}  // namespace sparsight::bench
