#include "core/torch/gpu_or_cpu.h"

#include "core/torch/gpu.h"

namespace sparsight {
namespace {

/// A decoder on a GPU that goes on on the CPU when the GPU's memory does not do.
class GpuOrCpu final : public ModelRunner {
public:
    GpuOrCpu(const MakeGpuDecoder& gpu, MakeCpuDecoder cpu, const Job& job)
        : m_makeCpu(std::move(cpu)) {
        try {
            m_runner = m_gpu = gpu();
        } catch (const Error& e) {
            if (e.code() != Errc::Resources) throw;
            useCpu(e.what(), job);
        }
        m_config = m_runner->config();
    }

    const ModelConfig& config() const override { return m_config; }
    int threads() const override { return m_runner->threads(); }
    std::string device() const override { return m_runner->device(); }
    std::vector<std::string> notes() const override {
        std::vector<std::string> all = m_notes;
        for (std::string& note : m_runner->notes()) all.push_back(std::move(note));
        return all;
    }

    void forward(std::span<const std::int32_t> ids, KvCache& cache, const AttentionFn& attention,
                 const Job& job, Index lastLayer) override {
        if (m_gpu) {
            try {
                m_gpu->forward(ids, cache, attention, job, lastLayer);
                return;
            } catch (const Error& e) {
                if (e.code() != Errc::Resources) throw;
                if (cache.own()) *static_cast<gpu::Cache*>(cache.own().get()) = {};
                useCpu(e.what(), job);
            }
        }
        if (cache.own()) {  // its keys were the GPU's
            m_runner->forwardAgain(ids, cache, attention, job, lastLayer);
            cache.own().reset();
        } else {
            m_runner->forward(ids, cache, attention, job, lastLayer);
        }
    }

    void logits(Index row0, Index row1, float* out) override {
        onEither([&] { m_runner->logits(row0, row1, out); });
    }
    std::vector<float> hiddenStates(Index row0, Index row1) override {
        return m_runner->hiddenStates(row0, row1);
    }
    void logitsOf(std::span<const float> hidden, float* out) override {
        onEither([&] { m_runner->logitsOf(hidden, out); });
    }

private:
    /// The CPU takes the rows of the last forward over when the GPU cannot do the work.
    template <class Work>
    void onEither(Work work) {
        try {
            work();
        } catch (const Error& e) {
            if (!m_gpu || e.code() != Errc::Resources) throw;
            const std::vector<float> rows = m_gpu->hiddenStates(0, m_gpu->rows());
            useCpu(e.what(), {});
            m_runner->setHiddenStates(rows);
            work();
        }
    }

    void useCpu(std::string why, const Job& job) {
        m_gpu.reset();
        m_runner.reset();  // the GPU's memory is the kernels' now
        if (!why.ends_with('.')) why += '.';
        m_notes.push_back(why + " The model runs on the CPU.");
        m_runner = m_makeCpu(withoutReport(job));
    }

    MakeCpuDecoder m_makeCpu;
    ModelConfig m_config;                      ///< callers hold on to it while the runner changes
    std::shared_ptr<Decoder> m_gpu, m_runner;  ///< the same one while the GPU does
    std::vector<std::string> m_notes;
};

}  // namespace

std::unique_ptr<ModelRunner> makeGpuOrCpu(const MakeGpuDecoder& gpu, MakeCpuDecoder cpu,
                                          const Job& job) {
    return std::make_unique<GpuOrCpu>(gpu, std::move(cpu), job);
}

}  // namespace sparsight
