#include "core/torch/decoder.h"

#include <c10/util/Exception.h>

#include "core/torch/ops.h"

namespace sparsight {

Decoder::Decoder(ModelConfig config, WeightFile file, int threads)
    : m_config(std::move(config)),
      m_row(architecture(m_config.arch)),
      m_file(std::move(file)),
      m_threads(threads) {
    for (std::string& note : checkWeights(m_file, m_config))
        m_config.notes.push_back(std::move(note));
    const std::string embedding = m_file.prefix() + m_row.embedding;
    m_embedding = m_file.contains(embedding) ? embedding : outputMatrix(m_file, m_config);
    m_width = m_config.embeddingWidth > 0 ? m_config.embeddingWidth : m_config.hidden;
}

void Decoder::forward(std::span<const std::int32_t> ids, KvCache& cache,
                      const AttentionFn& attention, const Job& job, Index lastLayer) {
    forward(ids, cache, attention, job, lastLayer, false);
}

void Decoder::forwardAgain(std::span<const std::int32_t> ids, KvCache& cache,
                           const AttentionFn& attention, const Job& job, Index lastLayer) {
    forward(ids, cache, attention, job, lastLayer, true);
}

void Decoder::forward(std::span<const std::int32_t> ids, KvCache& cache,
                      const AttentionFn& attention, const Job& job, Index lastLayer, bool again) {
    check(ids, cache);
    const Index n = Index(ids.size()), past = cache.length(), total = past + n;
    auto& tokens = cache.tokens();
    tokens.resize(std::size_t(past));
    const double border = m_config.rope.originalMaxPositions;
    if (m_config.recomputesAtSwitch && double(past) <= border && double(total) > border)
        again = true;
    try {
        if (again && past > 0) {
            std::vector<std::int32_t> all = tokens;
            all.insert(all.end(), ids.begin(), ids.end());
            cache.setLength(0);
            run(all, cache, attention, job, lastLayer);
            if (m_rows > 0) keepLastRows(n);  // only the new tokens' rows are this call's
        } else {
            run(ids, cache, attention, job, lastLayer);
        }
    } catch (const c10::Error& e) {
        cache.setLength(past);
        rethrowTorch(e);
    } catch (...) {
        cache.setLength(past);
        throw;
    }
    tokens.insert(tokens.end(), ids.begin(), ids.end());
}

void Decoder::check(std::span<const std::int32_t> ids, const KvCache& cache) const {
    checkIds(m_config, ids);
    const Index total = cache.length() + Index(ids.size());
    if (total > cache.capacity())
        throw Error(Errc::Usage, "the key/value cache holds " + std::to_string(cache.capacity()) +
                                     " tokens, " + std::to_string(total) + " are needed");
    if (!cache.canContinue())
        throw Error(Errc::Usage, "this key/value cache keeps one layer only and cannot go on");
    if (m_config.positionRows > 0 && total > m_config.maxPositions)
        throw Error(Errc::Usage, "model '" + m_config.name + "' has learned positions for " +
                                     std::to_string(m_config.maxPositions) + " tokens, " +
                                     std::to_string(total) + " are needed");
}

void Decoder::checkRows(Index row0, Index row1) const {
    if (row0 < 0 || row1 < row0 || row1 > m_rows)
        throw Error(Errc::Usage, "logits of rows " + std::to_string(row0) + " to " +
                                     std::to_string(row1) + " asked, the last forward has " +
                                     std::to_string(m_rows));
}

void Decoder::notFinite(Index layer, const std::string& what) const {
    throw Error(Errc::Format, "model '" + m_config.name + "': the " + what + " of layer " +
                                  std::to_string(layer) +
                                  " became NaN or infinite; the weights may be damaged or the "
                                  "prompt far beyond the model's positions");
}

kernels::Problem Decoder::problemOf(Index l, Index queries, Index keys) const {
    const ModelConfig& c = m_config;
    kernels::Problem p;
    p.Hq = c.heads;
    p.Hkv = c.kvHeads;
    p.Nq = queries;
    p.Nk = keys;
    p.d = c.headDim;
    p.dv = c.valueWidth();
    p.scale = float(c.scale(l));
    p.softcap = float(c.softcap);
    p.window = c.layer(l).window;
    return p;
}

}  // namespace sparsight
