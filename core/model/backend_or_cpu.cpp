#include "core/model/device.h"

namespace sparsight {
namespace {

using namespace kernels;

thread_local int gpuPasses = 0;

class GpuOrCpuBackend final : public Backend {
public:
    GpuOrCpuBackend(std::unique_ptr<Backend> gpu, std::function<void(const std::string&)> say)
        : m_gpu(std::move(gpu)), m_say(std::move(say)) {}
    std::string_view id() const override { return m_gpu->id(); }
    std::string device() const override { return m_gpu->device(); }
    int threads() const override { return m_gpu->threads(); }
    Report forward(const Problem& p, TensorView q, TensorView k, TensorView v, const Plan& plan,
                   MutTensorView o, float* lse, const Job& job) override {
        return either([&](Backend& b) { return b.forward(p, q, k, v, plan, o, lse, job); });
    }
    Report forwardMasks(const Problem& p, TensorView q, TensorView k, TensorView v,
                        std::span<const Policy> perHead, PlanMode mode, MutTensorView o, float* lse,
                        const Job& job) override {
        return either(
            [&](Backend& b) { return b.forwardMasks(p, q, k, v, perHead, mode, o, lse, job); });
    }
    Report lseOnly(const Problem& p, TensorView q, TensorView k, const Plan& plan, float* lse,
                   const Job& job) override {
        return either([&](Backend& b) { return b.lseOnly(p, q, k, plan, lse, job); });
    }
    Report capture(const Problem& p, TensorView q, TensorView k, const CaptureSpec& spec,
                   const CaptureOut& out, const Job& job) override {
        return either([&](Backend& b) { return b.capture(p, q, k, spec, out, job); });
    }
    Report render(const Problem& p, TensorView q, TensorView k, const float* lse,
                  const RenderSpec& spec, float* px, const Job& job) override {
        return either([&](Backend& b) { return b.render(p, q, k, lse, spec, px, job); });
    }
    Report antidiagonal(const Problem& p, TensorView q, TensorView k, Index stride, Index block,
                        Index padTo, float* score, const Job& job) override {
        return either(
            [&](Backend& b) { return b.antidiagonal(p, q, k, stride, block, padTo, score, job); });
    }

private:
    template <class Call>
    Report either(Call call) {
        std::string why;
        try {
            return call(*m_gpu);
        } catch (const Error& e) {
            if (e.code() != Errc::Resources || GpuPass::runs()) throw;
            why = e.what();
        }
        if (!m_cpu) m_cpu = makeBackend("cpu");
        why += " The CPU does it instead.";
        if (m_say) m_say(why);
        m_say = nullptr;
        Report report = call(*m_cpu);
        report.notes.push_back(why);
        return report;
    }

    std::unique_ptr<Backend> m_gpu, m_cpu;
    std::function<void(const std::string&)> m_say;
};

}  // namespace

GpuPass::GpuPass() {
    ++gpuPasses;
}
GpuPass::~GpuPass() {
    --gpuPasses;
}
bool GpuPass::runs() {
    return gpuPasses > 0;
}

std::unique_ptr<kernels::Backend> backendOrCpu(std::string_view device, int threads,
                                               std::function<void(const std::string&)> say) {
    const DeviceChoice choice = parseDevice(device);
    auto backend = makeBackend(choice.id(), threads);
    if (!choice.gpu) return backend;
    return orCpu(std::move(backend), std::move(say));
}

std::unique_ptr<kernels::Backend> orCpu(std::unique_ptr<kernels::Backend> gpu,
                                        std::function<void(const std::string&)> say) {
    return std::make_unique<GpuOrCpuBackend>(std::move(gpu), std::move(say));
}

}  // namespace sparsight
