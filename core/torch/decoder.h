#pragma once

#include "core/model/runner.h"
#include "core/model/weights.h"

namespace sparsight {

constexpr double kLatentEps = 1e-6;  ///< of DeepSeek's latent norms, whatever rms_norm_eps says

/// What the forward passes of a decoder have in common, wherever they compute.
class Decoder : public ModelRunner {
public:
    /// Checks the weights' names and shapes. @throws Error as checkWeights
    Decoder(ModelConfig config, WeightFile file, int threads);

    const ModelConfig& config() const override { return m_config; }
    int threads() const override { return m_threads; }
    void forward(std::span<const std::int32_t> ids, KvCache& cache, const AttentionFn& attention,
                 const Job& job, Index lastLayer) override;
    /// The same, all tokens of the cache run again: what it holds is another runner's.
    void forwardAgain(std::span<const std::int32_t> ids, KvCache& cache,
                      const AttentionFn& attention, const Job& job, Index lastLayer);
    /// The rows that logits() and hiddenStates() read, given by another runner of the same model.
    virtual void setHiddenStates(std::span<const float> hidden) = 0;
    Index rows() const { return m_rows; }

protected:
    /// The pass itself: appends `ids` to the cache's keys and values.
    virtual void run(std::span<const std::int32_t> ids, KvCache& cache,
                     const AttentionFn& attention, const Job& job, Index lastLayer) = 0;
    /// The last `count` rows of that pass are the ones that the caller asked for.
    virtual void keepLastRows(Index count) = 0;

    void checkRows(Index row0, Index row1) const;
    [[noreturn]] void notFinite(Index layer, const std::string& what) const;
    /// The problem of layer `l`, all but the sinks.
    kernels::Problem problemOf(Index l, Index queries, Index keys) const;

    ModelConfig m_config;
    const Architecture& m_row;
    WeightFile m_file;
    int m_threads;
    std::string m_embedding;  ///< the tensor that token embeddings are rows of
    Index m_width = 0;        ///< of such a row
    Index m_rows = 0;         ///< of the last complete forward; 0 = there was none

private:
    void check(std::span<const std::int32_t> ids, const KvCache& cache) const;
    void forward(std::span<const std::int32_t> ids, KvCache& cache, const AttentionFn& attention,
                 const Job& job, Index lastLayer, bool again);
};

}  // namespace sparsight
