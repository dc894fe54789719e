#include <algorithm>
#include <chrono>
#include <map>
#include <mutex>

#include "core/capture/capture.h"
#include "core/capture/cost.h"

namespace sparsight {
namespace {

double secondsSince(std::chrono::steady_clock::time_point start) {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// Speeds of this machine, flop/s in the units of LayerCost.
struct Rates {
    double matrices = 0, attention = 0, capture = 0;
};

/// Runs `work` until 40 ms have passed, once at least.
template <class Work>
double secondsPerRun(Work work) {
    const auto start = std::chrono::steady_clock::now();
    int runs = 0;
    double seconds = 0;
    do {
        work();
        ++runs;
        seconds = secondsSince(start);
    } while (seconds < 0.04);
    return seconds / runs;
}

Rates measureRates(const ModelConfig& config, kernels::Backend& backend) {
    // Small enough for the float64 reference to end in a moment, large enough to keep threads busy.
    ModelConfig sample = config;
    sample.heads = sample.kvHeads = std::max(2, backend.threads());
    sample.valueDim = 0;
    sample.layerConfigs.clear();
    sample.stacks.clear();
    const Index n = backend.id() == "reference" ? 128 : 1024;
    kernels::Problem p;
    p.Hq = p.Hkv = sample.heads;
    p.Nq = p.Nk = n;
    p.d = p.dv = config.headDim;
    p.scale = float(config.scale());
    std::vector<float> x(std::size_t(p.Hq * n * p.d)), out(x.size());
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = float(i % 17) * 0.1f - 0.8f;
    const kernels::TensorView view{x.data(), kernels::DType::F32, Index(x.size()), n * p.d, p.d};
    const AttentionFn dense = denseAttention(backend);
    LayerCall call;
    call.problem = p;
    call.q = call.k = call.v = view;
    call.o = {out.data(), kernels::DType::F32, Index(x.size()), n * p.d, p.d};
    const LayerCost cost = layerCost(sample, 0, {n, 0, 0});
    dense(call);  // builds the plan and wakes the threads

    const kernels::CaptureSpec spec;
    const Index blocks = (n + spec.block - 1) / spec.block;
    const auto rows = std::size_t(p.Hq * n);
    std::vector<float> lse(rows), entropy(rows), distance(rows), sink(rows), local(rows), col(rows),
        diag(rows), sum(std::size_t(p.Hq * blocks * blocks)), max(sum.size());
    kernels::CaptureOut to;
    to.lse = lse.data();
    to.entropy = entropy.data();
    to.meanDistance = distance.data();
    to.sinkMass = sink.data();
    to.localMass = local.data();
    to.blockSum = sum.data();
    to.blockMax = max.data();
    to.colMass = col.data();
    to.diagMass = diag.data();

    Rates r;
    r.attention = cost.attention / secondsPerRun([&] { dense(call); });
    r.capture = cost.capture / secondsPerRun([&] { backend.capture(p, view, view, spec, to); });
    const double gemm = measureGemm(backend.threads());
    // Without LibTorch nothing can be captured here; attention is made of matrix products too.
    r.matrices = gemm > 0 ? gemm : r.attention;
    return r;
}

/// Measured once per backend and head width: dialogs ask at every change of the prompt.
Rates ratesOf(const ModelConfig& config, kernels::Backend& backend) {
    static std::mutex mutex;
    static std::map<std::string, Rates> known;
    const std::string key = std::string(backend.id()) + " " + std::to_string(backend.threads()) +
                            " " + std::to_string(config.headDim);
    const std::lock_guard lock(mutex);
    const auto found = known.find(key);
    if (found != known.end()) return found->second;
    return known[key] = measureRates(config, backend);
}

}  // namespace

CaptureEstimate estimateCapture(const ModelConfig& c, Index tokens, const CaptureOptions& options,
                                kernels::Backend& backend) {
    return estimateCapture(c, InputSize{std::max<Index>(tokens, 1), 0, 0}, options, backend);
}

CaptureEstimate estimateCapture(const ModelConfig& c, const InputSize& size,
                                const CaptureOptions& options, kernels::Backend& backend) {
    CaptureEstimate e;
    std::vector<Index> chosen = options.layers.empty() ? layersFor(c, size) : options.layers;
    if (chosen.empty()) return e;
    std::sort(chosen.begin(), chosen.end());
    const std::vector<Index> order = layerOrder(c, chosen);
    const Rates rate = ratesOf(c, backend);
    constexpr Index kFloat = 4;
    const kernels::CaptureSpec spec;
    for (const Index l : order) {
        const LayerCost cost = layerCost(c, l, size);
        const LayerShape s = layerShape(c, l, size);
        e.seconds += cost.matrices / rate.matrices;
        if (l != order.back()) e.seconds += cost.attention / rate.attention;

        const Index rows = (s.Nq + spec.block - 1) / spec.block;
        const Index cols = (s.Nk + spec.block - 1) / spec.block;
        const Index pyramid = 2 * s.heads * rows * cols * 4 / 3;  // the levels add up to 4/3
        const Index diagonals = s.causal ? s.Nk : s.Nq + s.Nk;
        // LSE and 4 row vectors, 2 key vectors.
        const Index statistics = (pyramid + s.heads * (5 * s.Nq + s.Nk + diagonals)) * kFloat;
        const Index width = s.heads * s.headDim, kvWidth = s.kvHeads * s.headDim;
        const Index qkv = (s.Nq * width + s.Nk * 2 * kvWidth) * kernels::bytesOf(options.store);
        if (std::binary_search(chosen.begin(), chosen.end(), l)) {
            e.seconds += cost.capture / rate.capture;
            e.diskBytes += qkv + statistics;
        }
        const Index chunk =
            std::min<Index>(s.Nq, 1024) * (2 * c.intermediate + c.hidden + 2 * kvWidth);
        const Index tiles =
            s.causal ? (cols / 2 + 1) * (cols / 2 + 2) / 2 : (rows / 2 + 1) * (cols / 2 + 1);
        const Index plan =
            std::min<Index>(s.heads, 1 + (Index(1) << 20) / std::max<Index>(1, cols)) * tiles *
            Index(sizeof(kernels::KvTile));
        const Index layer = s.Nq * (c.hidden + 2 * width + s.headDim) * kFloat +
                            s.Nk * 2 * kvWidth * kFloat + qkv + statistics + chunk * kFloat + plan;
        e.memoryBytes = std::max(e.memoryBytes, layer);
    }
    e.modelBytes = residentWeightBytes(c);
    return e;
}

}  // namespace sparsight
