// kernel_digest DEVICE [--small]: every operation of a device on fixed random layers, one line each
// with a hash of the bits that came out. Two runs must print the same; `--small` keeps the shapes
// small for tools that watch every memory access.
#include <cstdio>
#include <cstring>

#include "layer_case.h"

using namespace sparsight;
using namespace sparsight::kernels;

namespace {

/// FNV-1a of what is put in.
class Hash {
public:
    void add(const void* p, std::size_t bytes) {
        const auto* b = static_cast<const unsigned char*>(p);
        for (std::size_t i = 0; i < bytes; ++i) m_state = (m_state ^ b[i]) * 1099511628211ull;
    }
    template <class T>
    void add(const std::vector<T>& x) {
        add(x.data(), x.size() * sizeof(T));
    }
    unsigned long long value() const { return m_state; }

private:
    unsigned long long m_state = 14695981039346656037ull;
};

void print(const char* operation, const LayerCase& c, const Hash& hash) {
    std::printf("%016llx  %-12s %s %lld/%lld heads, %lld x %lld tokens, width %lld%s%s%s%s%s\n",
                hash.value(), operation, nameOf(c.type), static_cast<long long>(c.Hq),
                static_cast<long long>(c.Hkv), static_cast<long long>(c.Nq),
                static_cast<long long>(c.Nk), static_cast<long long>(c.d),
                c.causal ? ", causal" : "", c.window ? ", window" : "", c.softcap ? ", cap" : "",
                c.sinks ? ", sinks" : "", c.bias ? ", bias" : "");
    std::fflush(stdout);
}

void run(Backend& backend, const LayerCase& c, unsigned seed) {
    const Layer layer(c, seed);
    const Problem& p = layer.problem;
    const auto rows = std::size_t(p.Hq * p.Nq);
    std::vector<float> lse(rows);
    RandomPolicy random(seed);
    for (const bool masked : {false, true}) {
        std::vector<Policy> policies;
        for (Index h = 0; h < p.Hq; ++h)
            policies.push_back(masked ? random.make(1 + int(h % 3), p) : Policy(Dense{}));
        if (masked && !p.causal)
            for (Policy& policy : policies)
                if (std::holds_alternative<VerticalSlash>(policy)) policy = random.make(2, p);
        const Plan plan = buildPlan(p, policies, PlanMode::Exact);
        std::vector<float> o(rows * std::size_t(p.dv));
        Hash forward, recall;
        backend.forward(p, layer.q.view(), layer.k.view(), layer.v.view(), plan,
                        {o.data(), DType::F32, Index(o.size()), p.Nq * p.dv, p.dv}, lse.data());
        forward.add(o);
        forward.add(lse);
        print(masked ? "forward, mix" : "forward", c, forward);
        backend.lseOnly(p, layer.q.view(), layer.k.view(), plan, lse.data());
        recall.add(lse);
        print(masked ? "lse, mix" : "lse", c, recall);
    }

    const CaptureSpec spec;
    const Index blocks =
        ((p.Nq + spec.block - 1) / spec.block) * ((p.Nk + spec.block - 1) / spec.block);
    std::vector<float> rowMax(rows), entropy(rows), distance(rows), sink(rows), local(rows),
        sum(std::size_t(p.Hq * blocks)), max(sum.size()), columns(std::size_t(p.Hq * p.Nk)),
        diagonals(std::size_t(p.Hq * (p.causal ? p.Nk : p.Nq + p.Nk - 1))),
        topP(rows * std::size_t(spec.topK));
    std::vector<std::int32_t> topKey(topP.size());
    CaptureOut out;
    out.lse = lse.data();
    out.rowMax = rowMax.data();
    out.entropy = entropy.data();
    out.meanDistance = distance.data();
    out.sinkMass = sink.data();
    out.localMass = local.data();
    out.blockSum = sum.data();
    out.blockMax = max.data();
    out.colMass = columns.data();
    out.diagMass = diagonals.data();
    out.topKey = topKey.data();
    out.topP = topP.data();
    backend.capture(p, layer.q.view(), layer.k.view(), spec, out);
    Hash capture;
    for (const auto* x : {&lse, &rowMax, &entropy, &distance, &sink, &local, &sum, &max, &columns,
                          &diagonals, &topP})
        capture.add(*x);
    capture.add(topKey);
    print("capture", c, capture);

    RenderSpec image;
    image.q1 = p.Nq;
    image.k1 = p.Nk;
    image.width = 37;
    image.height = 29;
    std::vector<float> px(std::size_t(image.width * image.height));
    backend.render(p.oneHead(0), layer.q.view(), layer.k.view(), lse.data(), image, px.data());
    Hash render;
    render.add(px);
    print("render", c, render);

    std::vector<float> scores(std::size_t(p.Hq * blocks));
    backend.antidiagonal(p, layer.q.view(), layer.k.view(), 8, spec.block, 0, scores.data());
    Hash antidiagonal;
    antidiagonal.add(scores);
    print("antidiagonal", c, antidiagonal);
}

/// The backend of a device, or a kernel of the registry by its id.
std::unique_ptr<Backend> backendOf(std::string_view name) {
    for (const Kernel& kernel : sparsight::kernels::kernels())
        if (kernel.id == name && kernel.supported()) return kernel.make(1);
    return makeBackend(name);
}

}  // namespace

int main(int argc, char** argv) {
    const bool small = argc == 3 && std::strcmp(argv[2], "--small") == 0;
    if (argc != 2 && !small) {
        std::fprintf(stderr, "usage: kernel_digest DEVICE|KERNEL [--small]\n");
        return 2;
    }
    try {
        const auto backend = backendOf(argv[1]);
        std::fprintf(stderr, "%s on %s\n", std::string(backend->id()).c_str(),
                     backend->device().c_str());
        unsigned seed = 1;
        for (const DType type : {DType::BF16, DType::F16, DType::F32})
            for (const Index d : {Index(64), Index(128), Index(256), Index(80)}) {
                LayerCase c;
                c.type = type;
                c.d = c.dv = d;
                c.Hq = 4;
                c.Hkv = 2;
                c.Nq = c.Nk = small ? 200 : 1500;
                run(*backend, c, ++seed);
                if (small && d != 128) continue;
                c.Nq = small ? 70 : 333;
                run(*backend, c, ++seed);  // rows at the end of the keys
                c.causal = false;
                run(*backend, c, ++seed);
                c.causal = true;
                c.window = 100;
                c.softcap = 5;
                c.sinks = c.bias = true;
                run(*backend, c, ++seed);
            }
    } catch (const Error& e) {
        std::fprintf(stderr, "kernel_digest: %s\n", e.what());
        return 6;
    }
    return 0;
}
