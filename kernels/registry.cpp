#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <utility>

#include "kernels/backend.h"
#include "kernels/cpu/backend.h"
#include "kernels/cpu/simd.h"
#ifdef SPARSIGHT_CUDA
#include "kernels/cuda/backend.h"
#endif

#ifdef __linux__
#include <sched.h>
#endif

namespace sparsight::kernels {
namespace {

bool always() {
    return true;
}
std::unique_ptr<Backend> makeOracle(int) {
    return makeReference();
}
template <cpu::Isa I>
bool has() {
    return cpu::simd(I) != nullptr;
}
std::unique_ptr<Backend> makeAvx512(int threads) {
    return makeCpuSimd("cpu-avx512", *cpu::simd(cpu::Isa::Avx512), threads);
}
std::unique_ptr<Backend> makeAvx2(int threads) {
    return makeCpuSimd("cpu-avx2", *cpu::simd(cpu::Isa::Avx2), threads);
}
std::unique_ptr<Backend> makeBaseline(int threads) {
    return makeCpuSimd("cpu-baseline", *cpu::simd(cpu::Isa::Baseline), threads);
}

#ifdef SPARSIGHT_CUDA
constexpr std::string_view kHopper = "cuda-sm90", kPortable = "cuda-sm80";
bool hasGpu() {
    return cuda::deviceCount() > 0;
}
bool hasHopper() {
    return hasGpu() && cuda::isHopper(0);
}
std::unique_ptr<Backend> makeHopper(int) {
    return makeCuda(kHopper, 0, true);
}
std::unique_ptr<Backend> makePortable(int) {
    return makeCuda(kPortable, 0, false);
}
#endif

constexpr Kernel kKernels[] = {
#ifdef SPARSIGHT_CUDA
    {kHopper, "CUDA, Hopper's own instructions", hasHopper, makeHopper, "cuda"},
    {kPortable, "CUDA, compute capability 8.0 and up", hasGpu, makePortable, "cuda"},
#endif
    {"cpu-avx512", "CPU, AVX-512", has<cpu::Isa::Avx512>, makeAvx512},
    {"cpu-avx2", "CPU, AVX2", has<cpu::Isa::Avx2>, makeAvx2},
    {"cpu-baseline", "CPU, what every CPU of this architecture has", always, makeBaseline},
    {"reference", "Reference (float64 loops)", always, makeOracle},
};

/// A backend that says in every report why it was chosen.
class Noted final : public Backend {
public:
    Noted(std::unique_ptr<Backend> inner, std::string note)
        : m_inner(std::move(inner)), m_note(std::move(note)) {}
    std::string_view id() const override { return m_inner->id(); }
    std::string device() const override { return m_inner->device(); }
    int threads() const override { return m_inner->threads(); }
    Report forward(const Problem& p, TensorView q, TensorView k, TensorView v, const Plan& plan,
                   MutTensorView o, float* lse, const Job& job) override {
        return noted(m_inner->forward(p, q, k, v, plan, o, lse, job));
    }
    Report forwardMasks(const Problem& p, TensorView q, TensorView k, TensorView v,
                        std::span<const Policy> perHead, PlanMode mode, MutTensorView o, float* lse,
                        const Job& job) override {
        return noted(m_inner->forwardMasks(p, q, k, v, perHead, mode, o, lse, job));
    }
    Report lseOnly(const Problem& p, TensorView q, TensorView k, const Plan& plan, float* lse,
                   const Job& job) override {
        return noted(m_inner->lseOnly(p, q, k, plan, lse, job));
    }
    Report capture(const Problem& p, TensorView q, TensorView k, const CaptureSpec& spec,
                   const CaptureOut& out, const Job& job) override {
        return noted(m_inner->capture(p, q, k, spec, out, job));
    }
    Report render(const Problem& p, TensorView q, TensorView k, const float* lse,
                  const RenderSpec& spec, float* px, const Job& job) override {
        return noted(m_inner->render(p, q, k, lse, spec, px, job));
    }
    Report antidiagonal(const Problem& p, TensorView q, TensorView k, Index stride, Index block,
                        Index padTo, float* score, const Job& job) override {
        return noted(m_inner->antidiagonal(p, q, k, stride, block, padTo, score, job));
    }

private:
    Report noted(Report report) const {
        report.notes.push_back(m_note);
        return report;
    }
    std::unique_ptr<Backend> m_inner;
    std::string m_note;
};

/// The GPU that a device name means, -1 for the CPU.
/// @throws Error(Device) for anything that is not there
int gpuNumber(std::string_view device) {
    if (device == "cpu") return -1;
    int number = -1, count = 0;
    if (device == "cuda") {
        number = 0;
    } else if (device.starts_with("cuda:") && device.size() > 5) {
        const auto [end, error] =
            std::from_chars(device.data() + 5, device.data() + device.size(), number);
        if (error != std::errc() || end != device.data() + device.size()) number = -1;
    }
    if (number < 0)
        throw Error(Errc::Device, "There is no device \"" + std::string(device) +
                                      "\"; choose \"cpu\", \"cuda\" or \"cuda:N\".");
#ifdef SPARSIGHT_CUDA
    count = cuda::deviceCount();
    if (count == 0)
        throw Error(Errc::Device,
                    "No GPU of compute capability 8.0 or more answers on this machine; choose "
                    "\"cpu\".");
#else
    throw Error(Errc::Device,
                "This build has no CUDA kernels; build it where nvcc is installed, or choose "
                "\"cpu\".");
#endif
    if (number >= count)
        throw Error(Errc::Device, "There is no device \"" + std::string(device) +
                                      "\": this machine has " + std::to_string(count) +
                                      " usable GPU" + (count > 1 ? "s" : "") + ".");
    return number;
}

/// Small layers against the reference: every operation once, forward by strips and as a decode
/// step.
bool agreesWithReference(Backend& backend) {
    const auto reference = makeReference();
    Backend* const sides[] = {&backend, reference.get()};
    for (const auto& [rows, type] :
         {std::pair(Index(40), DType::F32), {1, DType::F32}, {40, DType::BF16}}) {
        Problem p;
        p.Hq = 2;
        p.Hkv = 1;
        p.Nq = rows;
        p.Nk = 150;
        p.d = p.dv = 20;
        p.scale = 0.25f;
        std::uint32_t state = 12345;
        const auto random = [&, t = type](Index n) {
            std::vector<float> x(static_cast<std::size_t>(n));  // room for either type
            for (Index i = 0; i < n; ++i) {
                state = state * 1664525u + 1013904223u;
                storeFloat(x.data(), t, i, float(state >> 8) / float(1 << 23) - 1.0f);
            }
            return x;
        };
        const std::vector<float> q = random(p.Hq * p.Nq * p.d), k = random(p.Nk * p.d),
                                 v = random(p.Nk * p.dv);
        const TensorView qView{q.data(), type, 0, p.Nq * p.d, p.d};
        const TensorView kView{k.data(), type, 0, p.Nk * p.d, p.d};
        const TensorView vView{v.data(), type, 0, p.Nk * p.dv, p.dv};
        const float tolerance = type == DType::F32 ? 2e-4f : 1e-2f;  // P itself is rounded
        const std::array<Policy, 2> policies{Dense{}, Streaming{4, 30}};
        const std::array<Policy, 2> masks{Streaming{4, 30},
                                          VerticalSlash{{0, 5, 77}, {0, 1, 2, 40}}};
        const Plan plan = buildPlan(p, policies, PlanMode::Exact);
        std::vector<float> results[2];
        for (int i = 0; i < 2; ++i) {
            std::vector<float>& all = results[i];
            const auto take = [&](const std::vector<float>& x) {
                all.insert(all.end(), x.begin(), x.end());
            };
            std::vector<float> o(q.size()), lse(std::size_t(p.Hq * p.Nq));
            sides[i]->forward(p, qView, kView, vView, plan,
                              {o.data(), DType::F32, 0, p.Nq * p.dv, p.dv}, lse.data());
            take(o);
            take(lse);
            sides[i]->forwardMasks(p, qView, kView, vView, masks, PlanMode::Tile,
                                   {o.data(), DType::F32, 0, p.Nq * p.dv, p.dv}, lse.data());
            take(o);
            take(lse);
            sides[i]->lseOnly(p, qView, kView, plan, lse.data());
            take(lse);
            std::vector<float> entropy(lse.size()), blocks(std::size_t(p.Hq * 3)),
                columns(std::size_t(p.Hq * p.Nk)), diagonals(columns.size());
            CaptureOut out;
            out.lse = lse.data();
            out.entropy = entropy.data();
            out.blockSum = blocks.data();
            out.colMass = columns.data();
            out.diagMass = diagonals.data();
            sides[i]->capture(p, qView, kView, {}, out);
            for (const auto* x : {&lse, &entropy, &blocks, &columns, &diagonals}) take(*x);
            RenderSpec spec;
            spec.q1 = p.Nq;
            spec.k1 = p.Nk;
            spec.width = 9;
            spec.height = 5;
            std::vector<float> px(45);
            sides[i]->render(p.oneHead(0), qView, kView, lse.data(), spec, px.data());
            take(px);
            std::vector<float> scores(std::size_t(p.Hq * 3));
            sides[i]->antidiagonal(p, qView, kView, 4, 64, 0, scores.data());
            take(scores);
        }
        for (std::size_t i = 0; i < results[0].size(); ++i)
            if (!(std::abs(results[0][i] - results[1][i]) < tolerance)) return false;
    }
    return true;
}

/// Self-tests are run once per process.
bool sound(const Kernel& kernel) {
    static std::mutex mutex;
    static std::map<std::string_view, bool> known;
    const std::lock_guard lock(mutex);
    const auto [at, isNew] = known.try_emplace(kernel.id, false);
    if (isNew) {
        try {
            at->second = agreesWithReference(*kernel.make(1));
        } catch (const Error&) {
            at->second = false;  // a device that fails is as useless as one that is wrong
        }
    }
    return at->second;
}

}  // namespace

std::span<const Kernel> kernels() {
    return kKernels;
}

Report Backend::forwardMasks(const Problem& p, TensorView q, TensorView k, TensorView v,
                             std::span<const Policy> perHead, PlanMode mode, MutTensorView o,
                             float* lse, const Job& job) {
    const auto start = std::chrono::steady_clock::now();
    const Plan plan = buildPlan(p, perHead, mode);
    const std::chrono::duration<double, std::milli> spent =
        std::chrono::steady_clock::now() - start;
    Report report = forward(p, q, k, v, plan, o, lse, job);
    report.planMs = spent.count();
    return report;
}

std::unique_ptr<Backend> makeBackend(std::string_view device, int threads) {
    const int number = gpuNumber(device);
    const std::string_view kind = number < 0 ? "cpu" : "cuda";
    if (threads <= 0) threads = physicalCores();
    const auto make = [&](const Kernel& kernel) -> std::unique_ptr<Backend> {
#ifdef SPARSIGHT_CUDA
        if (number >= 0) return makeCuda(kernel.id, number, kernel.id == kHopper);
#endif
        return kernel.make(threads);
    };
    const auto fits = [&](const Kernel& kernel) {
        if (kernel.device != kind || !kernel.supported()) return false;
#ifdef SPARSIGHT_CUDA
        if (kernel.id == kHopper) return cuda::isHopper(number);
#endif
        return true;
    };
    if (const char* wanted = std::getenv("SPARSIGHT_KERNEL"); wanted && *wanted) {
        std::string known;
        for (const Kernel& kernel : kKernels) {
            if (!fits(kernel)) continue;
            if (kernel.id == wanted) return make(kernel);
            known += (known.empty() ? "" : ", ") + std::string(kernel.id);
        }
        throw Error(Errc::Usage, "SPARSIGHT_KERNEL names the unknown kernel \"" +
                                     std::string(wanted) + "\"; known are " + known + ".");
    }
    std::string failed;
    for (const Kernel& kernel : kKernels) {
        if (!fits(kernel)) continue;
        if (kernel.make != makeOracle && !sound(kernel)) {
            failed += (failed.empty() ? "" : ", ") + std::string(kernel.id);
            continue;
        }
        auto backend = make(kernel);
        if (failed.empty()) return backend;
        return std::make_unique<Noted>(
            std::move(backend), "On this machine wrong results came out of the self-test of " +
                                    failed + "; " + std::string(kernel.id) + " is used instead.");
    }
    if (number >= 0)
        throw Error(Errc::Device, "The kernels for GPUs gave wrong results in their self-test (" +
                                      failed + "); choose \"cpu\".");
    return makeReference();
}

std::vector<DeviceInfo> devices() {
    DeviceInfo cpu;
    cpu.id = "cpu";
    for (const Kernel& kernel : kKernels)
        if (cpu.title.empty() && kernel.device == cpu.id && kernel.supported())
            cpu.title = kernel.title;
    std::ifstream in("/proc/meminfo");
    std::string key;
    for (Index kB = 0; in >> key >> kB; in.ignore(64, '\n')) {
        if (key == "MemTotal:") cpu.memoryBytes = kB * 1024;
        if (key == "MemAvailable:") cpu.freeBytes = kB * 1024;
    }
    std::vector<DeviceInfo> all{cpu};
#ifdef SPARSIGHT_CUDA
    for (int i = 0; i < cuda::deviceCount(); ++i) all.push_back(cuda::describe(i));
#endif
    return all;
}

int physicalCores() {
#ifdef __linux__
    // Hardware threads of one core share its vector units: count the cores that we may run on.
    cpu_set_t allowed;
    CPU_ZERO(&allowed);
    if (sched_getaffinity(0, sizeof allowed, &allowed) == 0) {
        std::set<std::pair<int, int>> cores;
        for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
            if (!CPU_ISSET(cpu, &allowed)) continue;
            const std::string topology =
                "/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/";
            int package = 0, core = cpu;
            std::ifstream(topology + "physical_package_id") >> package;
            if (!(std::ifstream(topology + "core_id") >> core)) core = cpu;
            cores.emplace(package, core);
        }
        if (!cores.empty()) return int(cores.size());
    }
#endif
    return int(std::max(1u, std::thread::hardware_concurrency()));
}

}  // namespace sparsight::kernels
