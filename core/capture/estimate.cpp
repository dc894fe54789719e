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
    const LayerCost cost = layerCost(sample, n);
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
    const Index n = std::max<Index>(tokens, 1);
    const Index chosen = options.layers.empty() ? c.layers : Index(options.layers.size());
    const Index layers = options.layers.empty()
                             ? c.layers
                             : *std::max_element(options.layers.begin(), options.layers.end()) + 1;
    const Rates rate = ratesOf(c, backend);
    const LayerCost cost = layerCost(c, n);
    CaptureEstimate e;
    e.seconds = double(layers) * cost.matrices / rate.matrices +
                double(layers - 1) * cost.attention / rate.attention +
                double(chosen) * cost.capture / rate.capture;

    constexpr Index kFloat = 4;
    const kernels::CaptureSpec spec;
    const Index blocks = (n + spec.block - 1) / spec.block;
    const Index pyramid = 2 * c.heads * blocks * blocks * 4 / 3;    // the levels add up to 4/3
    const Index statistics = (pyramid + c.heads * n * 7) * kFloat;  // LSE, 4 row and 2 key vectors
    const Index bytes = kernels::bytesOf(options.store);
    const Index width = c.heads * c.headDim, kvWidth = c.kvHeads * c.headDim;
    const Index qkv = n * (width + 2 * kvWidth) * bytes;
    e.diskBytes = chosen * (qkv + statistics);

    const Index chunk = std::min<Index>(n, 1024) * (2 * c.intermediate + c.hidden + 2 * kvWidth);
    const Index plan = std::min<Index>(c.heads, 1 + (Index(1) << 20) / std::max<Index>(1, blocks)) *
                       (blocks / 2 + 1) * (blocks / 2 + 2) / 2 * Index(sizeof(kernels::KvTile));
    e.memoryBytes = n * (c.hidden + 2 * width + 2 * kvWidth + c.headDim) * kFloat + qkv +
                    statistics + chunk * kFloat + plan;
    e.modelBytes = (layers == 0 ? 0
                                : c.layers * layerParameters(c) + c.hidden +
                                      c.vocab * c.hidden * (c.tiedEmbeddings ? 1 : 2)) *
                   kFloat;
    return e;
}

}  // namespace sparsight
