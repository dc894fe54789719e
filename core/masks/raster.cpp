#include <algorithm>

#include "core/masks/method.h"

namespace sparsight {
namespace {

using kernels::Problem;
using kernels::Range;

/// Counts per key of a rectangle: ranges of keys are added as two marks, prefix() sums them up.
class KeyCounts {
public:
    KeyCounts(Index k0, Index k1) : m_k0(k0), m_k1(k1), m_marks(std::size_t(k1 - k0 + 1), 0) {}
    void clear() { std::fill(m_marks.begin(), m_marks.end(), Index(0)); }
    void add(Index begin, Index end, Index weight = 1) {
        begin = std::max(begin, m_k0);
        end = std::min(end, m_k1);
        if (begin >= end) return;
        m_marks[std::size_t(begin - m_k0)] += weight;
        m_marks[std::size_t(end - m_k0)] -= weight;
    }
    /// out[i] = pairs at the keys k0 .. k0 + i - 1.
    void prefix(std::vector<Index>& out) const {
        out.resize(m_marks.size());
        out[0] = 0;
        Index here = 0;
        for (std::size_t i = 0; i + 1 < m_marks.size(); ++i) {
            here += m_marks[i];
            out[i + 1] = out[i] + here;
        }
    }

private:
    Index m_k0, m_k1;
    std::vector<Index> m_marks;
};

/// Adds the kept pairs of rows [r0, r1) of a vertical-slash set without walking every row's
/// thousands of single keys: a distance covers one run of keys over the rows of a band, a column
/// the rows that see it, and pairs that both keep are taken off again.
class VerticalSlashBands {
public:
    VerticalSlashBands(const kernels::VerticalSlash& set, const Problem& problem)
        : m_set(set), m_problem(problem), m_isSlash(std::size_t(problem.Nk), 0) {
        for (const auto s : set.diags)
            if (s >= 0 && s < problem.Nk) m_isSlash[std::size_t(s)] = 1;
    }
    void add(Index r0, Index r1, Index k0, Index k1, KeyCounts& counts) const {
        const Problem& p = m_problem;
        for (const auto s : m_set.diags) {
            // Rows whose key pos - s is seen: pos - s in [visibleBegin, visibleEnd), s >= 0.
            if (p.window > 0 && s >= p.window) break;
            const Index begin = std::max<Index>(p.position(r0) - s, 0);
            const Index end = std::min<Index>(p.position(r1 - 1) - s + 1, p.Nk);
            counts.add(begin, end);
        }
        auto column = std::lower_bound(m_set.cols.begin(), m_set.cols.end(), k0);
        for (; column != m_set.cols.end() && *column < k1; ++column) {
            const Index c = *column;
            Index own = 0;  // rows that keep c by the column alone
            for (Index r = r0; r < r1; ++r) {
                if (c < p.visibleBegin(r) || c >= p.visibleEnd(r)) continue;
                const Index s = p.position(r) - c;
                own += s < 0 || !m_isSlash[std::size_t(s)];
            }
            counts.add(c, c + 1, own);
        }
    }

private:
    const kernels::VerticalSlash& m_set;
    const Problem& m_problem;
    std::vector<std::uint8_t> m_isSlash;
};

struct Bin {
    Index begin, end;
};
/// Pixel i of `pixels` over `tokens` tokens: half-open integer bins; where one would be empty, the
/// token that the pixel lies in.
Bin bin(Index i, Index tokens, Index pixels) {
    const Index begin = i * tokens / pixels;
    return {begin, std::max((i + 1) * tokens / pixels, begin + 1)};
}

}  // namespace

void rasterize(const kernels::Policy& policy, const Problem& problem, Index q0, Index q1, Index k0,
               Index k1, Index width, Index height, float* px, const Job& job) {
    if (q0 < 0 || q1 > problem.Nq || q0 >= q1 || k0 < 0 || k1 > problem.Nk || k0 >= k1 ||
        width < 1 || height < 1)
        throw Error(Errc::Shape,
                    "mask picture: the rectangle must lie inside the map and hold at "
                    "least one token and one pixel");
    KeyCounts kept(k0, k1), valid(k0, k1);
    std::vector<Index> keptUpTo, validUpTo;
    std::vector<Range> ranges;
    const auto* vs = std::get_if<kernels::VerticalSlash>(&policy);
    // Without causality a distance may point to later keys that a row sees on its own terms; the
    // band shortcut counts causal problems only.
    std::optional<VerticalSlashBands> bands;
    if (vs && problem.causal) bands.emplace(*vs, problem);
    Bin last{-1, -1};
    for (Index y = 0; y < height; ++y) {
        const Bin rows = bin(y, q1 - q0, height);
        float* const out = px + y * width;
        if (rows.begin == last.begin && rows.end == last.end) {  // magnified: the same tokens again
            std::copy(out - width, out, out);
            continue;
        }
        last = rows;
        job.check();
        kept.clear();
        valid.clear();
        const Index r0 = q0 + rows.begin, r1 = q0 + rows.end;
        for (Index r = r0; r < r1; ++r) {
            valid.add(problem.visibleBegin(r), problem.visibleEnd(r));
            if (bands) continue;
            kernels::keptRanges(policy, problem, r, ranges);
            for (const Range& range : ranges) kept.add(range.begin, range.end);
        }
        if (bands) bands->add(r0, r1, k0, k1, kept);
        kept.prefix(keptUpTo);
        valid.prefix(validUpTo);
        for (Index x = 0; x < width; ++x) {
            const Bin keys = bin(x, k1 - k0, width);
            const auto begin = std::size_t(keys.begin), end = std::size_t(keys.end);
            const Index pairs = validUpTo[end] - validUpTo[begin];
            out[x] = pairs ? float(double(keptUpTo[end] - keptUpTo[begin]) / double(pairs)) : -1.0f;
        }
    }
}

std::vector<std::uint8_t> tokenMask(const kernels::Policy& policy, const Problem& problem) {
    std::vector<std::uint8_t> mask(std::size_t(problem.Nq * problem.Nk), 0);
    std::vector<Range> ranges;
    for (Index r = 0; r < problem.Nq; ++r) {
        kernels::keptRanges(policy, problem, r, ranges);
        for (const Range& range : ranges)
            std::fill(mask.begin() + r * problem.Nk + range.begin,
                      mask.begin() + r * problem.Nk + range.end, std::uint8_t(1));
    }
    return mask;
}

std::vector<std::uint8_t> blockMask(const kernels::Policy& policy, const Problem& problem,
                                    Index block) {
    if (block < 1) throw Error(Errc::Usage, "block mask: a block has at least one token");
    const Index rows = (problem.Nq + block - 1) / block, cols = (problem.Nk + block - 1) / block;
    std::vector<std::uint8_t> mask(std::size_t(rows * cols), 0);
    std::vector<Range> ranges;
    for (Index r = 0; r < problem.Nq; ++r) {
        kernels::keptRanges(policy, problem, r, ranges);
        std::uint8_t* const row = mask.data() + r / block * cols;
        for (const Range& range : ranges)
            std::fill(row + range.begin / block, row + (range.end - 1) / block + 1,
                      std::uint8_t(1));
    }
    return mask;
}

}  // namespace sparsight
