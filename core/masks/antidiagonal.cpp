#include "core/masks/antidiagonal.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

namespace sparsight {

Antidiagonal::Antidiagonal(const ParamValues& p)
    : Antidiagonal(Index(p.numbers.at("stride")), p.numbers.at("threshold"),
                   Index(p.numbers.at("block")), p.numbers.at("released") != 0, 0) {}

Antidiagonal::Antidiagonal(Index stride, double threshold, Index block, bool released, Index chunk)
    : m_stride(stride),
      m_threshold(threshold),
      m_block(block),
      m_released(released),
      m_chunk(chunk) {
    if (block % stride != 0)
        throw Error(Errc::Usage, fmt::format("antidiagonal: stride={} must divide block={}; give "
                                             "a power of two up to 64",
                                             stride, block));
    if (chunk % block != 0)
        throw Error(Errc::Usage, fmt::format("antidiagonal: a chunk of {} tokens is no multiple "
                                             "of block={}",
                                             chunk, block));
}

Index releasedChunk(Index n) {
    Index power = 1;
    while (power < n) power *= 2;
    return std::max<Index>(2048, std::min(std::max<Index>(2048, power), (Index(1) << 28) / power));
}

std::vector<std::int32_t> selectBlocks(std::span<const float> scores, Index diagonal,
                                       double threshold, bool firstChunkRule) {
    const Index end = Index(scores.size());
    const double need =
        threshold * std::accumulate(scores.begin(), scores.end(), 0.0,
                                    [](double sum, float s) { return sum + double(s); });
    std::vector<std::int32_t> kept;
    double mass = 0;
    const auto keep = [&](Index block) {
        kept.push_back(std::int32_t(block));
        mass += double(scores[std::size_t(block)]);
    };
    for (Index b = diagonal; b < end; ++b) keep(b);
    const bool columnForced = !firstChunkRule && diagonal > 0;
    if (columnForced) keep(0);

    std::vector<std::int32_t> others;
    for (Index b = columnForced ? 1 : 0; b < diagonal; ++b) others.push_back(std::int32_t(b));
    std::stable_sort(others.begin(), others.end(), [&](std::int32_t a, std::int32_t b) {
        return scores[std::size_t(a)] > scores[std::size_t(b)];
    });
    if (firstChunkRule) {
        // The released sum lags one block behind: block j is judged by the mass up to j - 2.
        double lagging = mass;
        for (std::size_t j = 0; j < others.size(); ++j) {
            if (j >= 2) lagging += double(scores[std::size_t(others[j - 2])]);
            if (j >= 1 && !(lagging < need)) break;
            kept.push_back(others[j]);
        }
        kept.push_back(0);  // unselected sort slots are redirected to column 0
    } else {
        for (const std::int32_t b : others) {
            if (!(mass < need)) break;
            keep(b);
        }
    }
    std::sort(kept.begin(), kept.end());
    kept.erase(std::unique(kept.begin(), kept.end()), kept.end());
    return kept;
}

kernels::Policy Antidiagonal::select(const HeadInput& head, const Job& job) const {
    const kernels::Problem& p = head.problem;
    if (!p.causal)
        throw Error(Errc::Unsupported,
                    "antidiagonal: the rule offered here forces the causal diagonal; choose "
                    "oracle-blocks for attention that sees both sides");
    const Index rows = (p.Nq + m_block - 1) / m_block, cols = (p.Nk + m_block - 1) / m_block;
    const Index chunk = m_chunk > 0 ? m_chunk : releasedChunk(p.Nk);
    std::vector<float> scores(std::size_t(rows * cols), 0.0f);
    head.backend->antidiagonal(p, head.q, head.k, m_stride, m_block, m_released ? chunk : 0,
                               scores.data(), job);
    kernels::BlockList list;
    list.block = m_block;
    list.rowPtr.push_back(0);
    for (Index r = 0; r < rows; ++r) {
        const Index first = p.position(r * m_block);
        const Index last = p.position(std::min((r + 1) * m_block, p.Nq) - 1);
        if (last >= 0) {  // with more queries than keys the first rows see nothing
            const Index diagonal = std::max<Index>(first, 0) / m_block;
            const Index end = std::min(last / m_block + 1, cols);
            const std::span<const float> row(scores.data() + r * cols, std::size_t(end));
            const auto kept =
                selectBlocks(row, diagonal, m_threshold, m_released && r * m_block < chunk);
            list.col.insert(list.col.end(), kept.begin(), kept.end());
        }
        list.rowPtr.push_back(std::int32_t(list.col.size()));
    }
    return list;
}

}  // namespace sparsight
