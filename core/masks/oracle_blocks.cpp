#include "core/masks/oracle_blocks.h"

#include <algorithm>
#include <numeric>

namespace sparsight {
namespace {

constexpr Index kQuarter = 64;  ///< edge of the blocks that density counts, and of blockMass

/// Visible pairs of rows [r0, r1) with keys [k0, k1).
Index pairsIn(const kernels::Problem& p, Index r0, Index r1, Index k0, Index k1) {
    Index pairs = 0;
    for (Index r = r0; r < std::min(r1, p.Nq); ++r)
        pairs +=
            std::max<Index>(0, std::min(k1, p.visibleEnd(r)) - std::max(k0, p.visibleBegin(r)));
    return pairs;
}

}  // namespace

OracleBlocks::OracleBlocks(const ParamValues& p)
    : m_density(p.numbers.at("density")), m_block(Index(p.numbers.at("block"))) {}

OracleOrder oracleOrder(const HeadInput& head, Index block, const Job& job) {
    const kernels::Problem& p = head.problem;
    const Index fineRows = (p.Nq + kQuarter - 1) / kQuarter;
    const Index fineCols = (p.Nk + kQuarter - 1) / kQuarter;
    std::vector<float> captured;
    const float* mass = head.blockMass;
    if (!mass) {
        captured.resize(std::size_t(fineRows * fineCols));
        kernels::CaptureSpec spec;
        spec.block = kQuarter;
        kernels::CaptureOut out;
        out.blockSum = captured.data();
        head.backend->capture(p, head.q, head.k, spec, out, job);
        mass = captured.data();
    }
    OracleOrder order;
    order.block = block;
    order.rows = (p.Nq + block - 1) / block;
    const Index cols = (p.Nk + block - 1) / block, scale = block / kQuarter;
    std::vector<OracleOrder::Block> diagonal;
    for (Index r = 0; r < order.rows; ++r) {
        job.check();
        const Index r1 = std::min((r + 1) * block, p.Nq);
        const Index first = p.position(r * block), last = p.position(r1 - 1);
        for (Index c = 0; c < cols; ++c) {
            OracleOrder::Block b{std::int32_t(r), std::int32_t(c), 0, 0, 0};
            for (Index fr = r * scale; fr < std::min((r + 1) * scale, fineRows); ++fr)
                for (Index fc = c * scale; fc < std::min((c + 1) * scale, fineCols); ++fc) {
                    // Only tiles that the diagonal or the layer's window cuts need counting.
                    const Index q0 = fr * kQuarter, q1 = std::min(q0 + kQuarter, p.Nq);
                    const Index k0 = fc * kQuarter, k1 = std::min(k0 + kQuarter, p.Nk);
                    if (p.visibleEnd(q1 - 1) <= k0) continue;
                    if (p.visibleBegin(q0) >= k1) continue;
                    const bool whole = p.visibleEnd(q0) >= k1 && p.visibleBegin(q1 - 1) <= k0;
                    const Index pairs = whole ? (q1 - q0) * (k1 - k0) : pairsIn(p, q0, q1, k0, k1);
                    if (pairs == 0) continue;
                    b.pairs += pairs;
                    ++b.quarters;
                    b.mass += double(mass[fr * fineCols + fc]);
                }
            if (b.pairs == 0) continue;
            order.pairs += b.pairs;
            order.quarters += b.quarters;
            const bool onDiagonal = c >= std::max<Index>(first, 0) / block && c <= last / block;
            (onDiagonal ? diagonal : order.blocks).push_back(b);
        }
    }
    std::stable_sort(order.blocks.begin(), order.blocks.end(),
                     [](const auto& a, const auto& b) { return a.mass > b.mass; });
    order.forced = Index(diagonal.size());
    order.blocks.insert(order.blocks.begin(), diagonal.begin(), diagonal.end());
    return order;
}

Index oracleCount(const OracleOrder& order, double density) {
    Index count = 0, quarters = 0;
    const double wanted = density * double(order.quarters);
    while (count < Index(order.blocks.size()) &&
           (count < order.forced || double(quarters) < wanted - 1e-9))
        quarters += order.blocks[std::size_t(count++)].quarters;
    return count;
}

kernels::BlockList oracleList(const OracleOrder& order, Index count) {
    std::vector<std::vector<std::int32_t>> rows(std::size_t(order.rows));
    for (Index i = 0; i < count; ++i) {
        const auto& b = order.blocks[std::size_t(i)];
        rows[std::size_t(b.row)].push_back(b.col);
    }
    kernels::BlockList list;
    list.block = order.block;
    list.rowPtr.push_back(0);
    for (auto& row : rows) {
        std::sort(row.begin(), row.end());
        list.col.insert(list.col.end(), row.begin(), row.end());
        list.rowPtr.push_back(std::int32_t(list.col.size()));
    }
    return list;
}

kernels::Policy OracleBlocks::select(const HeadInput& head, const Job& job) const {
    const OracleOrder order = oracleOrder(head, m_block, job);
    return oracleList(order, oracleCount(order, m_density));
}

}  // namespace sparsight
