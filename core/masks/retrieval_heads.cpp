#include "core/masks/retrieval_heads.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <filesystem>
#include <fstream>

namespace sparsight {
namespace {

[[noreturn]] void badHeads(std::string_view text) {
    throw Error(Errc::Usage,
                fmt::format("retrieval-heads: heads={} should be layer.head pairs joined by '+', "
                            "as in heads=6.5+7.6",
                            text));
}

/// A DuoAttention pattern cut into retrieval (1) and streaming (0): by quantile over all layers, or
/// at 0.5 when no sparsity is asked.
std::vector<std::vector<std::uint8_t>> readTable(const std::string& path, double sparsity) {
    const auto gates = readDuoGates(path);
    std::vector<std::vector<std::uint8_t>> table;
    if (sparsity < 0) {
        for (const auto& row : gates) {
            auto& out = table.emplace_back();
            for (const double g : row) out.push_back(g >= 0.5);
        }
        return table;
    }
    std::vector<double> flat;
    for (const auto& row : gates) flat.insert(flat.end(), row.begin(), row.end());
    const auto cut = duoRetrieval(flat, sparsity);
    auto next = cut.begin();
    for (const auto& row : gates) {
        table.emplace_back(next, next + std::ptrdiff_t(row.size()));
        next += std::ptrdiff_t(row.size());
    }
    return table;
}

}  // namespace

std::set<std::pair<Index, Index>> parseHeads(std::string_view text) {
    std::set<std::pair<Index, Index>> heads;
    const char* at = text.data();
    const char* const end = at + text.size();
    const auto readIndex = [&] {
        Index value = 0;
        const auto [next, error] = std::from_chars(at, end, value);
        if (error != std::errc{} || value < 0 || *at == '-') badHeads(text);
        at = next;
        return value;
    };
    while (at != end) {
        const Index layer = readIndex();
        if (at == end || *at++ != '.') badHeads(text);
        heads.emplace(layer, readIndex());
        if (at == end) break;
        if (*at++ != '+' || at == end) badHeads(text);
    }
    return heads;
}

std::vector<std::vector<double>> readDuoGates(const std::string& path) {
    namespace fs = std::filesystem;
    std::error_code ignored;
    const fs::path file = fs::is_directory(path, ignored)
                              ? fs::path(path) / "full_attention_heads.tsv"
                              : fs::path(path);
    if (!fs::exists(file, ignored))
        throw Error(Errc::NotFound, fmt::format("there is no DuoAttention table at {}; give the "
                                                "pattern's folder or its full_attention_heads.tsv",
                                                file.string()));
    std::ifstream in(file);
    if (!in) throw Error(Errc::Io, fmt::format("{} could not be read", file.string()));
    std::vector<std::vector<double>> rows;
    std::string line;
    for (Index number = 1; std::getline(in, line); ++number) {
        const auto bad = [&](const std::string& what) {
            return Error(Errc::Format, fmt::format("{}, line {}: {}; expected one number per KV "
                                                   "head, separated by tabs, one line per layer",
                                                   file.string(), number, what));
        };
        std::vector<double> row;
        const char* at = line.data();
        const char* const end = at + line.size();
        const auto blank = [](char c) { return c == '\t' || c == ' ' || c == '\r'; };
        while (true) {
            while (at != end && blank(*at)) ++at;
            if (at == end) break;
            const char* const word = at;
            while (at != end && !blank(*at)) ++at;
            double gate = 0;
            const auto [stop, error] = std::from_chars(word, at, gate);
            if (error != std::errc{} || stop != at || !std::isfinite(gate))
                throw bad(fmt::format("'{}' is not a finite number", std::string(word, at)));
            row.push_back(gate);
        }
        if (row.empty()) continue;
        if (!rows.empty() && row.size() != rows.front().size())
            throw bad(fmt::format("{} values after lines of {}", row.size(), rows.front().size()));
        rows.push_back(std::move(row));
    }
    if (rows.empty()) throw Error(Errc::Format, fmt::format("{} holds no gates", file.string()));
    return rows;
}

std::vector<std::uint8_t> duoRetrieval(std::span<const double> gates, double sparsity,
                                       std::span<const double> noise) {
    if (!noise.empty() && noise.size() != gates.size())
        throw Error(Errc::Shape, fmt::format("retrieval-heads: {} noise values for {} gates",
                                             noise.size(), gates.size()));
    std::vector<double> values(gates.begin(), gates.end());
    for (std::size_t i = 0; i < values.size(); ++i)
        values[i] = std::clamp(values[i], 0.0, 1.0) + (noise.empty() ? 0.0 : noise[i]);
    double cut = sparsity >= 1 ? 2.0 : -1.0;
    if (sparsity > 0 && sparsity < 1 && !values.empty()) {
        std::vector<double> sorted = values;
        std::sort(sorted.begin(), sorted.end());
        // Interpolated from the nearer end: the last bit decides about gates that equal the cut.
        const double at = sparsity * double(sorted.size() - 1);
        const auto low = std::size_t(at);
        const double t = at - double(low);
        const double a = sorted[low], b = sorted[std::min(low + 1, sorted.size() - 1)];
        cut = t < 0.5 ? a + (b - a) * t : b - (b - a) * (1 - t);
    }
    std::vector<std::uint8_t> retrieval;
    for (const double v : values) retrieval.push_back(v >= cut);
    return retrieval;
}

std::vector<kernels::Range> duoCache(Index tokens, Index sink, Index recent) {
    std::vector<kernels::Range> kept;
    const auto add = [&](Index begin, Index end) {
        if (begin < end) kept.push_back({std::int32_t(begin), std::int32_t(end)});
    };
    if (tokens <= sink + recent) {
        add(0, tokens);
    } else {
        add(0, sink);
        add(tokens - recent, tokens);
    }
    return kept;
}

kernels::RowRanges duoChunkPolicy(Index n, Index chunk, Index sink, Index recent) {
    if (chunk < 1)
        throw Error(Errc::Usage, "retrieval-heads: a prefill chunk holds at least one token");
    kernels::RowRanges out;
    out.rangePtr.push_back(0);
    for (Index start = 0; start < n; start += chunk) {
        const Index end = std::min(start + chunk, n);
        auto kept = duoCache(start, sink, recent);
        if (!kept.empty() && kept.back().end == start)
            kept.back().end = std::int32_t(end);
        else
            kept.push_back({std::int32_t(start), std::int32_t(end)});
        out.ranges.insert(out.ranges.end(), kept.begin(), kept.end());
        out.rowEnd.push_back(std::int32_t(end));
        out.rangePtr.push_back(std::int32_t(out.ranges.size()));
    }
    return out;
}

RetrievalHeads::RetrievalHeads(const ParamValues& p)
    : m_sink(Index(p.numbers.at("sink"))),
      m_window(Index(p.numbers.at("window"))),
      m_threshold(p.numbers.at("threshold")),
      m_tablePath(p.texts.at("table")),
      m_heads(parseHeads(p.texts.at("heads"))) {
    if (m_tablePath.empty()) return;
    if (!m_heads.empty())
        throw Error(Errc::Usage,
                    "retrieval-heads: give heads= or table=, not both; each names all of them");
    m_table = readTable(m_tablePath, p.numbers.at("sparsity"));
}

bool RetrievalHeads::isRetrieval(const HeadInput& head) const {
    if (!m_heads.empty()) return m_heads.contains({head.layer, head.head});
    if (!m_tablePath.empty()) {
        if (head.layer >= Index(m_table.size()) || head.kvHead >= Index(m_table.front().size()))
            throw Error(Errc::Shape,
                        fmt::format("{} has {} layers of {} KV heads, but layer {}, KV head {} was "
                                    "asked; is it the table of another model?",
                                    m_tablePath, m_table.size(), m_table.front().size(), head.layer,
                                    head.kvHead));
        return m_table[std::size_t(head.layer)][std::size_t(head.kvHead)] != 0;
    }
    if (!head.retrievalScore)
        throw Error(
            Errc::Usage,
            fmt::format("retrieval-heads: no retrieval score is known for layer {}, head "
                        "{}; capture a needle prompt (--probe niah), or name the heads with "
                        "heads=6.5+7.6 or table=FOLDER",
                        head.layer, head.head));
    return *head.retrievalScore >= m_threshold;
}

kernels::Policy RetrievalHeads::select(const HeadInput& head, const Job&) const {
    if (isRetrieval(head)) return kernels::Dense{};
    requireOneSequence(head.problem, "retrieval-heads");
    return kernels::Streaming{m_sink, m_window};
}

}  // namespace sparsight
