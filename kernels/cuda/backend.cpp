#include "kernels/cuda/backend.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstring>
#include <thread>
#include <utility>

#include "kernels/base/error.h"
#include "kernels/cuda/hopper_forward.h"
#include "kernels/cuda/hopper_mass.h"
#include "kernels/cuda/layer.h"
#include "kernels/cuda/planner.h"
#include "kernels/cuda/portable.h"
#include "kernels/cuda/staging.h"

namespace sparsight::kernels {
namespace cuda {

void check(cudaError_t status, const char* what) {
    if (status == cudaSuccess) return;
    cudaGetLastError();  // an error that is no fault of the device is forgotten
    throw Error(status == cudaErrorMemoryAllocation ? Errc::Resources : Errc::Device,
                "CUDA: " + std::string(what) + " failed: " + cudaGetErrorString(status) +
                    (status == cudaErrorMemoryAllocation
                         ? "; choose fewer tokens or heads, or --device cpu."
                         : "."));
}

int multiprocessors() {
    int device = 0, count = 0;
    check(cudaGetDevice(&device), "asking for the device");
    check(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device),
          "asking for the multiprocessors");
    return count;
}

Scratch::Scratch(Index bytes, cudaStream_t stream) : m_stream(stream) {
    if (bytes > 0) check(cudaMallocAsync(&m_p, std::size_t(bytes), stream), "taking memory");
}
Scratch::~Scratch() {
    if (m_p) cudaFreeAsync(m_p, m_stream);
}
Scratch::Scratch(Scratch&& o) noexcept : m_p(std::exchange(o.m_p, nullptr)), m_stream(o.m_stream) {}
Scratch& Scratch::operator=(Scratch&& o) noexcept {
    std::swap(m_p, o.m_p);
    std::swap(m_stream, o.m_stream);
    return *this;
}

namespace {

int attribute(cudaDeviceAttr what, int device) {
    int value = 0;
    return cudaDeviceGetAttribute(&value, what, device) == cudaSuccess ? value : 0;
}

bool onDevice(const void* p) {
    cudaPointerAttributes attributes{};
    if (p == nullptr || cudaPointerGetAttributes(&attributes, p) != cudaSuccess) {
        cudaGetLastError();
        return false;
    }
    return attributes.type == cudaMemoryTypeDevice || attributes.type == cudaMemoryTypeManaged;
}

/// Stored width of rows: the kernels' own widths.
int storedWidth(const Problem& p) {
    const Index width = std::max(p.d, p.dv);
    if (width > 256)
        throw Error(Errc::Unsupported, "CUDA kernels take head widths up to 256; this layer has " +
                                           std::to_string(width) + ". Use --device cpu.");
    return width <= 64 ? 64 : width <= 128 ? 128 : 256;
}

/// An input of a call in the form that the kernels read.
struct Staged {
    Scratch raw, packed, bad;  ///< a copy from the host; the stored form; marks of bad rows
    TensorView source;         ///< on the device
    Rows rows;
    int heads = 0, tokens = 0, width = 0;
};

/// A host or device array of floats that a kernel writes.
template <class T>
class Written {
public:
    Written(T* to, Index count, cudaStream_t stream)
        : m_to(to), m_count(count), m_stream(stream), m_device(to == nullptr || onDevice(to)) {
        if (!m_device) m_scratch = Scratch(count * Index(sizeof(T)), stream);
    }
    T* device() const { return m_device ? m_to : m_scratch.template as<T>(); }
    /// Enqueues the copy to the caller.
    void bring() const {
        if (!m_device && m_count > 0)
            check(cudaMemcpyAsync(m_to, device(), std::size_t(m_count) * sizeof(T),
                                  cudaMemcpyDeviceToHost, m_stream),
                  "copying a result");
    }

private:
    T* m_to;
    Index m_count;
    cudaStream_t m_stream;
    bool m_device;
    Scratch m_scratch;
};

/// An array of the host on the device.
template <class T>
class Sent {
public:
    Sent() = default;
    Sent(const T* from, Index count, cudaStream_t stream) {
        if (from == nullptr || count == 0) return;
        if (onDevice(from)) {
            m_p = from;
            return;
        }
        m_scratch = Scratch(count * Index(sizeof(T)), stream);
        m_p = m_scratch.template as<T>();
        check(cudaMemcpyAsync(m_scratch.template as<T>(), from, std::size_t(count) * sizeof(T),
                              cudaMemcpyHostToDevice, stream),
              "copying an input");
    }
    const T* get() const { return m_p; }

private:
    Scratch m_scratch;
    const T* m_p = nullptr;
};

/// A plan's arrays sent to the device.
struct SentPlan {
    Sent<KvTile> tiles;
    Sent<std::int32_t> gather, bitsOffset;
    Sent<WorkItem> work;
    Sent<std::uint64_t> bits;
    DevicePlan plan;

    SentPlan(const Plan& from, cudaStream_t stream) {
        const auto send = [&](auto& to, const auto& x) {
            to = {x.data(), Index(x.size()), stream};
        };
        send(tiles, from.tiles);
        send(gather, from.gather);
        send(bitsOffset, from.bitsOffset);
        send(work, from.work);
        send(bits, from.bits);
        plan.tiles = tiles.get();
        plan.gather = gather.get();
        plan.work = work.get();
        plan.workCount = int(from.work.size());
        plan.bitsOffset = bitsOffset.get();
        plan.bits = bits.get();
        plan.gathers = !from.gather.empty();
        const auto alone = std::count_if(
            from.tiles.begin(), from.tiles.end(),
            [](const KvTile& tile) { return (tile.own & 5) == 0 || (tile.own & 10) == 0; });
        plan.shared = std::size_t(8 * alone) <= from.tiles.size();
    }
};

class Cuda final : public Backend {
public:
    Cuda(std::string_view id, int device, bool hopper)
        : m_id(id), m_device(device), m_hopper(hopper) {
        use();
        cudaDeviceProp properties{};
        check(cudaGetDeviceProperties(&properties, device), "asking for the GPU");
        m_title = std::string(properties.name) + ", GPU " + std::to_string(device);
        // Memory given back stays with us until the next call.
        cudaMemPool_t pool{};
        check(cudaDeviceGetDefaultMemPool(&pool, device), "asking for the memory pool");
        std::uint64_t keep = std::uint64_t(2) << 30;
        check(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &keep),
              "setting up the memory pool");
        check(cudaEventCreate(&m_start), "making an event");
        check(cudaEventCreate(&m_stop), "making an event");
        check(cudaMallocHost(&m_flags, 4 * sizeof(int)), "taking memory of the host");
    }
    ~Cuda() override {
        cudaEventDestroy(m_start);
        cudaEventDestroy(m_stop);
        cudaFreeHost(m_flags);
    }
    Cuda(const Cuda&) = delete;
    Cuda& operator=(const Cuda&) = delete;

    std::string_view id() const override { return m_id; }
    std::string device() const override { return m_title; }
    int threads() const override { return 1; }

    Report forward(const Problem& p, TensorView q, TensorView k, TensorView v, const Plan& plan,
                   MutTensorView o, float* lse, const Job& job) override {
        use();
        const SentPlan sent(plan, m_stream);
        Report report = attend(p, q, k, &v, sent.plan, &o, lse, job);
        report.tiles = tilesOf(p, plan);
        return report;
    }
    Report lseOnly(const Problem& p, TensorView q, TensorView k, const Plan& plan, float* lse,
                   const Job& job) override {
        use();
        const SentPlan sent(plan, m_stream);
        Report report = attend(p, q, k, nullptr, sent.plan, nullptr, lse, job);
        report.tiles = tilesOf(p, plan);
        return report;
    }
    Report forwardMasks(const Problem& p, TensorView q, TensorView k, TensorView v,
                        std::span<const Policy> perHead, PlanMode mode, MutTensorView o, float* lse,
                        const Job& job) override {
        if (!plansOnDevice(perHead, mode))
            return Backend::forwardMasks(p, q, k, v, perHead, mode, o, lse, job);
        use();
        begin();
        const PlannedOnDevice planned = cuda::buildPlan(p, perHead, m_stream);
        end();
        check(cudaEventSynchronize(m_stop), "planning");
        const double planMs = elapsed();
        Report report = attend(p, q, k, &v, planned.plan(), &o, lse, job);
        report.planMs = planMs;
        for (const Index tiles : planned.stats().tiles) report.tiles += p.batch * tiles;
        return report;
    }

    Report capture(const Problem& p, TensorView q, TensorView k, const CaptureSpec& spec,
                   const CaptureOut& out, const Job& job) override {
        if ((out.topKey || out.topP) && spec.topK < 1)
            throw Error(Errc::Shape,
                        "attention: a row's largest probabilities must be at least one");
        use();
        job.step(0, "capture");
        Report report = started(p);
        const int width = storedWidth(p);
        const DType type = typeOf(q, k, nullptr);
        const Layers layers(p, m_stream);
        const Layer& layer = layers.layer;
        const Index heads = p.batch * p.Hq, rows = heads * p.Nq;
        const Index blocks =
            heads * ((p.Nq + spec.block - 1) / spec.block) * ((p.Nk + spec.block - 1) / spec.block);
        const Index diagonals = std::max<Index>(0, p.causal ? p.Nk : p.Nq + p.Nk - 1);
        Staged sq = stage(p, q, p.Hq, p.Nq, p.d, type, width, report);
        Staged sk = stage(p, k, p.Hkv, p.Nk, p.d, type, width, report);

        Written<float> lse(out.lse, rows, m_stream), rowMax(out.rowMax, rows, m_stream),
            entropy(out.entropy, rows, m_stream), distance(out.meanDistance, rows, m_stream),
            sink(out.sinkMass, rows, m_stream), local(out.localMass, rows, m_stream),
            blockSum(out.blockSum, blocks, m_stream), blockMax(out.blockMax, blocks, m_stream),
            columns(out.colMass, heads * p.Nk, m_stream),
            diagonal(out.diagMass, heads * diagonals, m_stream),
            topP(out.topP, rows * spec.topK, m_stream);
        Written<std::int32_t> topKey(out.topKey, rows * spec.topK, m_stream);
        const Scratch ownLse(lse.device() ? 0 : rows * 4, m_stream);
        const RowStatistics statistics{lse.device() ? lse.device() : ownLse.as<float>(),
                                       rowMax.device(),
                                       entropy.device(),
                                       distance.device(),
                                       sink.device(),
                                       local.device(),
                                       int(spec.sinkTokens),
                                       int(spec.localTokens)};
        const MassStatistics mass{blockSum.device(), blockMax.device(), columns.device(),
                                  diagonal.device(), int(spec.block)};
        const bool wantsMass = mass.blockSum || mass.blockMax || mass.colMass || mass.diagMass ||
                               topKey.device() || topP.device();
        const Scratch count = zeros(1);
        // Nothing to see: every statistic of mass is zero, and no kernel may have to say so.
        if (mass.blockSum) clear(mass.blockSum, blocks);
        if (mass.blockMax) clear(mass.blockMax, blocks);
        if (mass.colMass) clear(mass.colMass, heads * p.Nk);
        if (mass.diagMass) clear(mass.diagMass, heads * diagonals);

        const auto compute = [&](const BadRows& bad, int* odd) {
            if (hopperFits(p, type)) {
                const SentPlan& dense = densePlan(p);
                hopper::forward(layer, type, width, sq.rows, sk.rows, {}, dense.plan, {},
                                statistics, odd, m_stream);
            } else {
                portable::captureRows(layer, type, width, sq.rows, sk.rows, statistics, m_stream);
            }
            if (bad.q || bad.k) poisonRows(layer, bad, statistics, m_stream);
            if (!wantsMass) return;
            job.check();
            const bool fast = hopperFits(p, type) && hopper::massFits(mass);
            const Index pitch = (p.Nq + kTile - 1) / kTile * kTile;
            const Scratch norm2(heads * pitch * 4, m_stream);
            if (fast) {
                makeNorms(layer, statistics.lse, pitch, INFINITY, norm2.as<float>(), m_stream);
                hopper::captureMass(layer, type, width, sq.rows, sk.rows, norm2.as<float>(), pitch,
                                    mass, m_stream);
            }
            const bool top = topKey.device() || topP.device();
            if (fast && !top) return;
            makeNorms(layer, statistics.lse, p.Nq, -INFINITY, norm2.as<float>(), m_stream);
            if (!fast && (mass.blockSum || mass.blockMax || mass.colMass || mass.diagMass))
                portable::captureMass(layer, type, width, sq.rows, sk.rows, norm2.as<float>(), mass,
                                      m_stream);
            if (top)
                portable::topKeys(layer, type, width, sq.rows, sk.rows, norm2.as<float>(),
                                  int(spec.topK), topKey.device(), topP.device(), m_stream);
        };
        if (guarded(p, type, width, sq, sk, nullptr, compute, job, report))
            countNonFinite(layer, statistics.lse, {}, count.as<int>(), m_stream);
        for (const auto* x : {&lse, &rowMax, &entropy, &distance, &sink, &local, &blockSum,
                              &blockMax, &columns, &diagonal, &topP})
            x->bring();
        topKey.bring();
        report.nonFiniteRows = finish(count, job);
        return report;
    }

    Report render(const Problem& p, TensorView q, TensorView k, const float* lse,
                  const RenderSpec& spec, float* px, const Job& job) override {
        use();
        job.step(0, "render");
        Report report = started(p);
        const int width = storedWidth(p);
        const DType type = typeOf(q, k, nullptr);
        const Layers layers(p, m_stream);
        const Staged sq = stage(p, q, 1, p.Nq, p.d, type, width, report);
        const Staged sk = stage(p, k, 1, p.Nk, p.d, type, width, report);
        const Sent<float> lseThere(lse, p.Nq, m_stream);
        const Scratch norm2(p.Nq * 4, m_stream);
        makeNorms(layers.layer, lseThere.get(), p.Nq, -INFINITY, norm2.as<float>(), m_stream);
        Written<float> pixels(px, spec.width * spec.height, m_stream);
        std::vector<Index> rowPtr;
        std::vector<Range> ranges;
        if (spec.show != Show::All) {
            std::vector<Range> kept;
            rowPtr.push_back(0);
            for (Index row = spec.q0; row < spec.q1; ++row) {
                if (row % 1024 == 0) job.check();
                keptRanges(*spec.mask, p, row, kept);
                for (const Range& r : kept)
                    if (r.end > spec.k0 && r.begin < spec.k1) ranges.push_back(r);
                rowPtr.push_back(Index(ranges.size()));
            }
        }
        const Range none{};
        const Sent<Index> rowPtrThere(rowPtr.data(), Index(rowPtr.size()), m_stream);
        const Sent<Range> rangesThere(ranges.empty() ? &none : ranges.data(),
                                      std::max<Index>(1, Index(ranges.size())), m_stream);
        const portable::RenderMask mask{rowPtrThere.get(), rangesThere.get(),
                                        spec.show == Show::Kept};
        begin();
        portable::render(layers.layer, type, width, sq.rows, sk.rows, norm2.as<float>(), spec, mask,
                         pixels.device(), m_stream);
        end();
        pixels.bring();
        finish(Scratch(), job);
        report.kernelMs = elapsed();
        return report;
    }

    Report antidiagonal(const Problem& p, TensorView q, TensorView k, Index stride, Index block,
                        Index padTo, float* blockScore, const Job& job) override {
        if (stride <= 0 || block <= 0 || block % stride != 0 || padTo < 0 || padTo % stride != 0)
            throw Error(Errc::Shape,
                        "antidiagonal: the stride must divide the block and the padding");
        use();
        job.step(0, "antidiagonal scores");
        Report report = started(p);
        const int width = storedWidth(p);
        const DType type = typeOf(q, k, nullptr);
        const Layers layers(p, m_stream);
        const Staged sq = stage(p, q, p.Hq, p.Nq, p.d, type, width, report);
        const Staged sk = stage(p, k, p.Hkv, p.Nk, p.d, type, width, report);
        Written<float> scores(
            blockScore,
            p.batch * p.Hq * ((p.Nq + block - 1) / block) * ((p.Nk + block - 1) / block), m_stream);
        begin();
        portable::antidiagonal(layers.layer, type, width, sq.rows, sk.rows, int(stride), int(block),
                               int(padTo > 0 ? padTo : block), scores.device(), m_stream);
        end();
        scores.bring();
        finish(Scratch(), job);
        report.kernelMs = elapsed();
        return report;
    }

private:
    /// The problem with its arrays on the device.
    struct Layers {
        Sent<float> sinks, bias;
        Layer layer;

        Layers(const Problem& p, cudaStream_t stream)
            : sinks(p.sinks, p.Hq, stream), bias(p.relBias, p.Hq * (p.Nq + p.Nk - 1), stream) {
            layer.batch = int(p.batch);
            layer.Hq = int(p.Hq);
            layer.Hkv = int(p.Hkv);
            layer.Nq = int(p.Nq);
            layer.Nk = int(p.Nk);
            layer.dv = int(p.dv);
            layer.scale = p.scale;
            layer.softcap = p.softcap;
            layer.causal = p.causal;
            layer.window = int(p.window);
            layer.sinks = sinks.get();
            layer.relBias = bias.get();
        }
    };

    void use() const { check(cudaSetDevice(m_device), "choosing the GPU"); }
    Report started(const Problem& p) const {
        if (p.Nq + p.Nk > INT32_MAX)
            throw Error(Errc::Shape, "CUDA: " + std::to_string(p.Nq) + " queries on " +
                                         std::to_string(p.Nk) + " keys are out of range.");
        Report report;
        report.kernel = m_id;
        return report;
    }
    bool hopperFits(const Problem& p, DType type) const {
        return m_hopper && type != DType::F32 && p.scale > 0;
    }
    /// One type for all inputs: theirs, or float32 where they differ.
    static DType typeOf(TensorView q, TensorView k, const TensorView* v) {
        return q.t == k.t && (v == nullptr || v->t == q.t) ? q.t : DType::F32;
    }
    Scratch zeros(Index ints) const {
        Scratch s(ints * 4, m_stream);
        check(cudaMemsetAsync(s.as<int>(), 0, std::size_t(ints) * 4, m_stream), "clearing memory");
        return s;
    }
    void clear(float* p, Index floats) const {
        check(cudaMemsetAsync(p, 0, std::size_t(floats) * 4, m_stream), "clearing memory");
    }

    void begin() const { check(cudaEventRecord(m_start, m_stream), "recording an event"); }
    void end() const { check(cudaEventRecord(m_stop, m_stream), "recording an event"); }
    double elapsed() const {
        float ms = 0;
        check(cudaEventElapsedTime(&ms, m_start, m_stop), "reading an event");
        return double(ms);
    }

    Staged stage(const Problem& p, TensorView x, Index heads, Index tokens, Index width, DType type,
                 int stored, Report& report) const {
        Staged s;
        s.heads = int(heads);
        s.tokens = int(tokens);
        s.width = int(width);
        s.source = x;
        const Index bytes = bytesOf(x.t), count = p.batch * heads * tokens;
        if (count == 0) return s;
        if (!onDevice(x.p)) {
            const Index span =
                (p.batch - 1) * x.sb + (heads - 1) * x.sh + (tokens - 1) * x.sn + width;
            if (span <= 2 * count * width) {
                s.raw = Scratch(span * bytes, m_stream);
                check(cudaMemcpyAsync(s.raw.as<void>(), x.p, std::size_t(span * bytes),
                                      cudaMemcpyHostToDevice, m_stream),
                      "copying an input");
            } else {
                s.raw = Scratch(count * width * bytes, m_stream);
                for (Index b = 0; b < p.batch; ++b)
                    for (Index h = 0; h < heads; ++h)
                        check(cudaMemcpy2DAsync(
                                  s.raw.as<char>() + (b * heads + h) * tokens * width * bytes,
                                  std::size_t(width * bytes),
                                  static_cast<const char*>(x.p) + (b * x.sb + h * x.sh) * bytes,
                                  std::size_t(x.sn * bytes), std::size_t(width * bytes),
                                  std::size_t(tokens), cudaMemcpyHostToDevice, m_stream),
                              "copying an input");
                s.source.sb = heads * tokens * width;
                s.source.sh = tokens * width;
                s.source.sn = width;
            }
            s.source.p = s.raw.as<void>();
            report.bytesStaged += count * width * bytes;
        }
        const auto onSixteen = [&](Index stride) { return stride * bytes % 16 == 0; };
        if (x.t == type && width == stored && onSixteen(s.source.sb) && onSixteen(s.source.sh) &&
            onSixteen(s.source.sn) && reinterpret_cast<std::uintptr_t>(s.source.p) % 16 == 0) {
            s.rows = {s.source.p, s.source.sb, s.source.sh, s.source.sn};
        } else {
            pack(p, s, type, stored, nullptr);
            report.bytesStaged += count * stored * bytesOf(type);
        }
        return s;
    }
    void pack(const Problem& p, Staged& s, DType type, int stored, const std::uint8_t* bad) const {
        Scratch packed(p.batch * s.heads * Index(s.tokens) * stored * bytesOf(type), m_stream);
        packRows(s.source.p, s.source.t, s.source.sb, s.source.sh, s.source.sn, s.width,
                 packed.as<void>(), type, stored, int(p.batch), s.heads, s.tokens, bad, m_stream);
        s.rows = {packed.as<void>(), s.heads * Index(s.tokens) * stored, Index(s.tokens) * stored,
                  stored};
        s.packed = std::move(packed);
    }

    /// Marks the rows of an input that hold NaN or infinity.
    void look(const Problem& p, DType type, int stored, Staged& s, int* any) const {
        s.bad = Scratch(std::max<Index>(1, p.batch * s.heads * Index(s.tokens)), m_stream);
        findBadRows(s.rows, type, stored, int(p.batch), s.heads, s.tokens, s.bad.as<std::uint8_t>(),
                    any, m_stream);
    }

    /// Runs `compute` on the inputs as they are. NaN and infinity are looked for beside it, in K
    /// alone where the results tell of the others (`compute` gets where to say so); when there are
    /// some, `compute` runs again with those rows zero and told about them.
    /// @return whether some row of the results may not be finite
    template <class Compute>
    bool guarded(const Problem& p, DType type, int stored, Staged& q, Staged& k, Staged* v,
                 const Compute& compute, const Job& job, Report& report) const {
        const Scratch found = zeros(4);
        int* const odd = found.as<int>() + 3;
        Staged* const all[] = {&q, &k, v};
        const bool tells = hopperFits(p, type);
        // A cap makes infinity finite.
        const auto tellsOf = [&](int i) { return tells && i != 1 && (i == 2 || p.softcap == 0); };
        begin();
        for (int i = 0; i < 3; ++i)
            if (all[i] && !tellsOf(i)) look(p, type, stored, *all[i], found.as<int>() + i);
        compute(BadRows{}, odd);
        end();
        bringFlags(found, job);
        report.kernelMs = elapsed();
        const bool seen = !tells || m_flags[3] != 0;
        if (m_flags[3]) {
            for (int i = 0; i < 3; ++i)
                if (all[i] && tellsOf(i)) look(p, type, stored, *all[i], found.as<int>() + i);
            bringFlags(found, job);
        }
        if (!m_flags[0] && !m_flags[1] && !m_flags[2]) return seen;
        BadRows bad;
        const std::uint8_t** const marks[] = {&bad.q, &bad.k, &bad.v};
        for (int i = 0; i < 3; ++i) {
            if (all[i] == nullptr || !m_flags[i]) continue;
            *marks[i] = all[i]->bad.as<std::uint8_t>();
            pack(p, *all[i], type, stored, *marks[i]);
        }
        compute(bad, odd);
        report.notes.push_back("The inputs hold NaN or infinity; the rows that see them are NaN.");
        return true;
    }
    /// The four flags to m_flags.
    void bringFlags(const Scratch& flags, const Job& job) const {
        check(cudaMemcpyAsync(m_flags, flags.as<int>(), 4 * sizeof(int), cudaMemcpyDeviceToHost,
                              m_stream),
              "copying a result");
        settle(job);
    }

    static Index tilesOf(const Problem& p, const Plan& plan) {
        Index tiles = 0;
        for (const WorkItem& item : plan.work) tiles += p.batch * item.count;
        return tiles;
    }

    Report attend(const Problem& p, TensorView q, TensorView k, const TensorView* v,
                  const DevicePlan& plan, const MutTensorView* o, float* lse, const Job& job) {
        job.step(0, "attention");
        Report report = started(p);
        const int width = storedWidth(p);
        const DType type = typeOf(q, k, v);
        const Layers layers(p, m_stream);
        const Layer& layer = layers.layer;
        const Index heads = p.batch * p.Hq, rows = heads * p.Nq;
        Staged sq = stage(p, q, p.Hq, p.Nq, p.d, type, width, report);
        Staged sk = stage(p, k, p.Hkv, p.Nk, p.d, type, width, report);
        Staged sv = v ? stage(p, *v, p.Hkv, p.Nk, p.dv, type, width, report) : Staged{};
        OutRows out;
        Scratch ownOut;
        const bool outOnHost = o && !onDevice(o->p);
        if (outOnHost) {
            ownOut = Scratch(std::max<Index>(1, rows * p.dv) * bytesOf(o->t), m_stream);
            out = {ownOut.as<void>(), o->t, p.Hq * p.Nq * p.dv, p.Nq * p.dv, p.dv};
        } else if (o) {
            out = {o->p, o->t, o->sb, o->sh, o->sn};
        }
        Written<float> lseOut(lse, rows, m_stream);
        const Scratch ownLse(lseOut.device() ? 0 : rows * 4, m_stream);
        float* const lseThere = lseOut.device() ? lseOut.device() : ownLse.as<float>();
        const Scratch count = zeros(1);
        const auto compute = [&](const BadRows& bad, int* odd) {
            if (hopperFits(p, type)) {
                RowStatistics only;
                only.lse = lseThere;
                hopper::forward(layer, type, width, sq.rows, sk.rows, sv.rows, plan, out, only, odd,
                                m_stream);
            } else {
                portable::forward(layer, type, width, sq.rows, sk.rows, sv.rows, plan, out,
                                  lseThere, m_stream);
            }
            if (bad.q || bad.k || bad.v) poisonForward(layer, plan, bad, out, lseThere, m_stream);
        };
        if (guarded(p, type, width, sq, sk, v ? &sv : nullptr, compute, job, report))
            countNonFinite(layer, lseThere, out, count.as<int>(), m_stream);
        lseOut.bring();
        if (outOnHost) bringOutput(p, out, *o);
        report.nonFiniteRows = finish(count, job);
        return report;
    }

    /// From the dense output on the device to the strided one of the host.
    void bringOutput(const Problem& p, const OutRows& from, const MutTensorView& to) const {
        const Index bytes = bytesOf(to.t);
        for (Index b = 0; b < p.batch; ++b)
            for (Index h = 0; h < p.Hq; ++h)
                if (p.Nq > 0 && p.dv > 0)
                    check(
                        cudaMemcpy2DAsync(
                            static_cast<char*>(to.p) + (b * to.sb + h * to.sh) * bytes,
                            std::size_t(to.sn * bytes),
                            static_cast<const char*>(from.p) + (b * from.sb + h * from.sh) * bytes,
                            std::size_t(p.dv * bytes), std::size_t(p.dv * bytes), std::size_t(p.Nq),
                            cudaMemcpyDeviceToHost, m_stream),
                        "copying a result");
    }

    /// Waits for the stream; a stop is seen meanwhile and obeyed when the device is done with the
    /// caller's memory.
    void settle(const Job& job) const {
        while (true) {
            const cudaError_t status = cudaStreamQuery(m_stream);
            if (status == cudaSuccess) break;
            if (status != cudaErrorNotReady) check(status, "a kernel");
            std::this_thread::sleep_for(std::chrono::microseconds(20));
        }
        job.check();
    }
    Index finish(const Scratch& count, const Job& job) const {
        m_flags[3] = 0;
        if (count.as<int>())
            check(cudaMemcpyAsync(m_flags + 3, count.as<int>(), sizeof(int), cudaMemcpyDeviceToHost,
                                  m_stream),
                  "copying a result");
        settle(job);
        return m_flags[3];
    }

    /// The plan of dense attention, kept from call to call.
    const SentPlan& densePlan(const Problem& p) {
        const std::array<Index, 6> key{p.Nq, p.Nk, p.causal, p.window, p.Hq, 0};
        if (!m_dense || m_denseKey != key) {
            const Policy dense = Dense{};
            m_dense.reset();
            m_dense = std::make_unique<SentPlan>(
                buildPlan(p, std::span(&dense, 1), PlanMode::Exact), m_stream);
            m_denseKey = key;
            check(cudaStreamSynchronize(m_stream), "sending a plan");
        }
        return *m_dense;
    }

    std::string m_id, m_title;
    int m_device;
    bool m_hopper;
    cudaStream_t m_stream = nullptr;  ///< the default stream, which orders us after the caller
    cudaEvent_t m_start = nullptr, m_stop = nullptr;
    int* m_flags = nullptr;  ///< pinned
    std::unique_ptr<SentPlan> m_dense;
    std::array<Index, 6> m_denseKey{};
};

}  // namespace

int deviceCount() {
    int all = 0, usable = 0;
    if (cudaGetDeviceCount(&all) != cudaSuccess) {
        cudaGetLastError();
        return 0;
    }
    // Numbers stay those of CUDA: the usable devices stand first on any machine with one kind.
    while (usable < all && attribute(cudaDevAttrComputeCapabilityMajor, usable) >= 8) ++usable;
    return usable;
}
bool isHopper(int device) {
    return attribute(cudaDevAttrComputeCapabilityMajor, device) == 9 &&
           attribute(cudaDevAttrComputeCapabilityMinor, device) == 0;
}
DeviceInfo describe(int device) {
    DeviceInfo info;
    info.id = "cuda:" + std::to_string(device);
    cudaDeviceProp properties{};
    std::size_t available = 0, all = 0;
    int before = 0;
    check(cudaGetDevice(&before), "asking for the device");
    check(cudaSetDevice(device), "choosing the GPU");
    check(cudaGetDeviceProperties(&properties, device), "asking for the GPU");
    check(cudaMemGetInfo(&available, &all), "asking for the memory");
    check(cudaSetDevice(before), "choosing the GPU");
    info.title = properties.name;
    info.memoryBytes = Index(all);
    info.freeBytes = Index(available);
    return info;
}

}  // namespace cuda

std::unique_ptr<Backend> makeCuda(std::string_view id, int device, bool hopper) {
    return std::make_unique<cuda::Cuda>(id, device, hopper);
}

}  // namespace sparsight::kernels
