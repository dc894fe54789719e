#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <set>
#include <string>
#include <thread>
#include <utility>

#include "kernels/backend.h"
#include "kernels/cpu/backend.h"

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

constexpr Kernel kKernels[] = {
    {"cpu-simd", "CPU, SIMD (Highway)", always, makeCpuSimd},
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

/// Two small layers, one by strips and one decode step, against the reference.
bool agreesWithReference(Backend& backend) {
    const auto reference = makeReference();
    for (const Index rows : {Index(40), Index(1)}) {
        Problem p;
        p.Hq = 2;
        p.Hkv = 1;
        p.Nq = rows;
        p.Nk = 150;
        p.d = p.dv = 20;
        p.scale = 0.25f;
        std::uint32_t state = 12345;
        const auto random = [&](Index n) {
            std::vector<float> x(static_cast<std::size_t>(n));
            for (float& value : x) {
                state = state * 1664525u + 1013904223u;
                value = float(state >> 8) / float(1 << 23) - 1.0f;
            }
            return x;
        };
        const std::vector<float> q = random(p.Hq * p.Nq * p.d), k = random(p.Nk * p.d),
                                 v = random(p.Nk * p.dv);
        const TensorView qView{q.data(), DType::F32, 0, p.Nq * p.d, p.d};
        const TensorView kView{k.data(), DType::F32, 0, p.Nk * p.d, p.d};
        const TensorView vView{v.data(), DType::F32, 0, p.Nk * p.dv, p.dv};
        const std::array<Policy, 1> policy{Dense{}};
        const Plan plan = buildPlan(p, policy, PlanMode::Exact);
        std::vector<float> o[2], lse[2];
        Backend* sides[] = {&backend, reference.get()};
        for (int i = 0; i < 2; ++i) {
            o[i].assign(std::size_t(p.Hq * p.Nq * p.dv), 0.0f);
            lse[i].assign(std::size_t(p.Hq * p.Nq), 0.0f);
            sides[i]->forward(p, qView, kView, vView, plan,
                              {o[i].data(), DType::F32, 0, p.Nq * p.dv, p.dv}, lse[i].data());
        }
        const auto close = [](const std::vector<float>& a, const std::vector<float>& b) {
            for (std::size_t i = 0; i < a.size(); ++i)
                if (!(std::abs(a[i] - b[i]) < 1e-4f)) return false;
            return true;
        };
        if (!close(o[0], o[1]) || !close(lse[0], lse[1])) return false;
    }
    return true;
}

}  // namespace

std::span<const Kernel> kernels() {
    return kKernels;
}

std::unique_ptr<Backend> makeBackend(std::string_view device, int threads) {
    if (device != "cpu")
        throw Error(Errc::Device, "There is no device \"" + std::string(device) +
                                      "\" in this build; choose \"cpu\".");
    if (threads <= 0) threads = physicalCores();
    if (const char* wanted = std::getenv("SPARSIGHT_KERNEL"); wanted && *wanted) {
        std::string known;
        for (const Kernel& kernel : kKernels) {
            if (kernel.id == wanted && kernel.supported()) return kernel.make(threads);
            known += (known.empty() ? "" : ", ") + std::string(kernel.id);
        }
        throw Error(Errc::Usage, "SPARSIGHT_KERNEL names the unknown kernel \"" +
                                     std::string(wanted) + "\"; known are " + known + ".");
    }
    for (const Kernel& kernel : kKernels) {
        if (kernel.make == makeOracle || !kernel.supported()) continue;
        auto backend = kernel.make(threads);
        static const bool sound = agreesWithReference(*backend);
        if (sound) return backend;
        return std::make_unique<Noted>(
            makeReference(), "The kernel " + std::string(kernel.id) +
                                 " gave wrong results in its self-test on this machine; the slow "
                                 "reference is used instead.");
    }
    return makeReference();
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
