#pragma once

#include <set>
#include <string>
#include <utility>
#include <vector>

#include "core/masks/method.h"

namespace sparsight {

/// Retrieval heads dense, all others a-shape (sink + window) on every row, decode rows too. Which
/// heads are retrieval heads comes from exactly one source: `heads` (by hand), `table` (a
/// DuoAttention pattern), else the head's retrieval score against `threshold`.
/// Sources: Retrieval Head (Wu et al., 2024) for the score, DuoAttention (Xiao et al., 2024) for
/// the split. DuoAttention's own prefill differs (first chunk dense): duoChunkPolicy.
class RetrievalHeads final : public MaskPolicy {
public:
    static constexpr Param kParams[] = {
        {"sink", Param::Int, 64, 0, 1048576, "tokens", "Leading keys that streaming heads keep."},
        {"window", Param::Int, 256, 1, 1048576, "tokens",
         "Latest keys that streaming heads keep, the query's own included."},
        {"threshold", Param::Real, 0.1, 0, 1, "1",
         "Retrieval score from which a head is a retrieval head."},
        {"heads", Param::Text, 0, 0, 0, "",
         "Retrieval heads by hand: layer.head pairs of query heads, as 6.5+7.6."},
        {"table", Param::Text, 0, 0, 0, "",
         "DuoAttention pattern: its folder or its full_attention_heads.tsv."},
        {"sparsity", Param::Real, -1, -1, 1, "1",
         "Share of the table's KV heads that stream; negative: cut the gates at 0.5."},
    };
    /// @throws Error(Usage) heads= is not a list of pairs, or heads= and table= are both given;
    ///         Error(NotFound/Format) for the table's file
    explicit RetrievalHeads(const ParamValues& p);
    /// Looks only at layer, head, kvHead and retrievalScore.
    /// @throws Error(Usage) when no source knows this head; Error(Shape) when the table has no row
    ///         for it
    kernels::Policy select(const HeadInput& head, const Job& job = {}) const override;

private:
    bool isRetrieval(const HeadInput& head) const;
    Index m_sink, m_window;
    double m_threshold;
    std::string m_tablePath;
    std::set<std::pair<Index, Index>> m_heads;
    std::vector<std::vector<std::uint8_t>> m_table;  ///< [layer][KV head], 1 = retrieval
};

/// "6.5+7.6" -> {(6,5), (7,6)}: layer and query head. @throws Error(Usage)
std::set<std::pair<Index, Index>> parseHeads(std::string_view text);

/// Gates of a DuoAttention pattern: one row per layer, one tab-separated number per KV head, as
/// written (not clipped). @param path  the folder or the .tsv
/// @throws Error(NotFound/Io), Error(Format) for ragged rows or words that are not finite numbers
std::vector<std::vector<double>> readDuoGates(const std::string& path);

/// DuoAttention's cut: gates clipped to [0, 1], plus noise, against their `sparsity` quantile
/// (linear interpolation between order statistics). sparsity >= 1: none is retrieval; <= 0: all.
/// The released code adds unseeded noise below 1e-6; without it we are deterministic and ties at
/// the cut are retrieval.
/// @param noise  added to the clipped gates, same order; empty = none
/// @return       1 = retrieval
std::vector<std::uint8_t> duoRetrieval(std::span<const double> gates, double sparsity,
                                       std::span<const double> noise = {});

/// Keys in a streaming head's cache when `tokens` tokens have passed: all of them while they fit in
/// sink + recent, else the first `sink` and the last `recent`.
std::vector<kernels::Range> duoCache(Index tokens, Index sink, Index recent);

/// What a streaming head sees in DuoAttention's chunked prefill of n tokens: its chunk up to the
/// query, and the cache as it stood before the chunk. The first chunk is dense. `recent` does not
/// count the query: it is a cache length.
kernels::RowRanges duoChunkPolicy(Index n, Index chunk, Index sink, Index recent);

}  // namespace sparsight
