#include <algorithm>
#include <chrono>
#include <map>
#include <mutex>

#include "core/capture/capture.h"
#include "core/capture/cost.h"
#include "core/model/device.h"

namespace sparsight {
namespace {

/// Time of Backend::capture with top keys / without: 1.2 to 1.5, more for narrow heads.
constexpr double kTopKeysCost = 1.4;

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

Rates measureRates(const ModelConfig& config, kernels::Backend& backend,
                   const std::string& device) {
    const bool gpu = parseDevice(device).gpu;
    // Small enough for the float64 reference to end in a moment, large enough to keep threads busy.
    ModelConfig sample = config;
    sample.heads = sample.kvHeads = gpu ? 32 : std::max(2, backend.threads());
    sample.valueDim = 0;
    sample.layerConfigs.clear();
    sample.stacks.clear();
    const Index n = backend.id() == "reference" ? 128 : gpu ? 4096 : 1024;
    kernels::Problem p;
    p.Hq = p.Hkv = sample.heads;
    p.Nq = p.Nk = n;
    p.d = p.dv = config.headDim;
    p.scale = float(config.scale());
    std::vector<float> x(std::size_t(p.Hq * n * p.d)), out(x.size());
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = float(i % 17) * 0.1f - 0.8f;
    kernels::TensorView view{x.data(), kernels::DType::F32, Index(x.size()), n * p.d, p.d};
    // As a model on a GPU gives them, if there is one.
    const std::shared_ptr<const void> there = onGpu(x, device), outThere = onGpu(out, device);
    if (there) {
        view.p = there.get();
        view.t = kernels::DType::BF16;
    }
    const AttentionFn dense = denseAttention(backend);
    LayerCall call;
    call.problem = p;
    call.q = call.k = call.v = view;
    call.o = {outThere ? const_cast<void*>(outThere.get()) : out.data(), view.t, Index(x.size()),
              n * p.d, p.d};
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
    const double gemm = measureGemm(gpu ? 0 : backend.threads(), there ? device : "cpu");
    // Without LibTorch nothing can be captured here; attention is made of matrix products too.
    r.matrices = gemm > 0 ? gemm : r.attention;
    return r;
}

/// Measured once per backend and head width: dialogs ask at every change of the prompt.
Rates ratesOf(const ModelConfig& config, kernels::Backend& backend, const std::string& device) {
    static std::mutex mutex;
    static std::map<std::string, Rates> known;
    const std::string key = std::string(backend.id()) + " " + std::to_string(backend.threads()) +
                            " " + std::to_string(config.headDim) + " " + device;
    const std::lock_guard lock(mutex);
    const auto found = known.find(key);
    if (found != known.end()) return found->second;
    return known[key] = measureRates(config, backend, device);
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
    // Before the rates are measured, which takes some of it.
    const bool gpu = parseDevice(options.device).gpu;
    const Index free = gpu ? freeMemory(options.device) : 0;
    const Rates rate = ratesOf(c, backend, options.device);
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
        const Index top = 2 * options.topK() * s.heads * s.Nq;  // keys and probabilities
        const Index statistics = (pyramid + s.heads * (5 * s.Nq + s.Nk + diagonals) + top) * kFloat;
        const Index width = s.heads * s.headDim, kvWidth = s.kvHeads * s.headDim;
        const Index qkv = (s.Nq * width + s.Nk * 2 * kvWidth) * kernels::bytesOf(options.store);
        if (std::binary_search(chosen.begin(), chosen.end(), l)) {
            e.seconds += cost.capture / rate.capture * (options.topKeys ? kTopKeysCost : 1);
            e.diskBytes += qkv + statistics;
            e.topKeyBytes += top * kFloat;
        }
        const Index chunk =
            std::min<Index>(s.Nq, 1024) * (2 * c.intermediate + c.hidden + 2 * kvWidth);
        const Index tiles =
            s.causal ? (cols / 2 + 1) * (cols / 2 + 2) / 2 : (rows / 2 + 1) * (cols / 2 + 1);
        const Index plan =
            std::min<Index>(s.heads, 1 + (Index(1) << 20) / std::max<Index>(1, cols)) * tiles *
            Index(sizeof(kernels::KvTile));
        const Index layer = s.Nq * (c.hidden + 2 * width + s.headDim) * kFloat +
                            s.Nk * 2 * kvWidth * kFloat + qkv + statistics + chunk * kFloat + plan +
                            2 * top * kFloat;  // HDF5 builds the segment in memory
        e.memoryBytes = std::max(e.memoryBytes, layer);
    }
    e.modelBytes = residentWeightBytes(c);
    if (gpu) {
        if (const TorchDevices torch = torchDevices(); torch.gpu)
            addGpu(c, size, free, e);
        else
            e.note = torch.reason + " The model runs on the CPU, the kernels on the GPU.";
    }
    return e;
}

void addGpu(const ModelConfig& c, const InputSize& size, Index free, CaptureEstimate& e) {
    const Index rows = std::max({size.text, size.decoder, size.image});
    const GpuNeed need = gpuNeed(c, rows, rows, 1, gpuBytesEach(c));
    const Index chunk = gpuRows(need, rows, free);
    e.gpuFree = free;
    e.gpuBytes = need.bytes(chunk > 0 ? chunk : std::min(rows, kFewestGpuRows));
    if (chunk == 0) {
        e.note = "It needs " + bytesText(e.gpuBytes) + " on the GPU, where " + bytesText(free) +
                 " are free: it will run on the CPU.";
        return;
    }
    if (chunk < std::min(rows, kMostGpuRows))
        e.note =
            "The GPU's memory is short: rows are computed " + std::to_string(chunk) + " at a time.";
    // Weights go from the file to the GPU; one layer of q, k, v and statistics waits to be written.
    e.modelBytes = 0;
}

std::string memoryText(const CaptureEstimate& e) {
    std::string text = bytesText(e.memoryBytes + e.modelBytes) + " of memory";
    if (e.gpuBytes > 0)
        text += ", " + bytesText(e.gpuBytes) + " of the " + bytesText(e.gpuFree) +
                " that are free on the GPU";
    return text;
}

}  // namespace sparsight
