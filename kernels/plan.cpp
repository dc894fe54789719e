#include "kernels/plan.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <unordered_map>

#include "kernels/base/error.h"
#include "kernels/plan/heads.h"
#include "kernels/plan/layouts.h"

namespace sparsight::kernels {
namespace {

using namespace planner;

/// Tiles by position; gathers stand at their first key.
void sortTiles(Draft& draft) {
    const auto position = [&](std::size_t t) {
        const KvTile& tile = draft.tiles[t];
        return tile.kind == Gather ? draft.gather[std::size_t(tile.a)] : tile.a;
    };
    std::vector<std::size_t> order(draft.tiles.size());
    for (std::size_t t = 0; t < order.size(); ++t) order[t] = t;
    const auto less = [&](std::size_t x, std::size_t y) { return position(x) < position(y); };
    if (std::is_sorted(order.begin(), order.end(), less)) return;
    std::stable_sort(order.begin(), order.end(), less);
    std::vector<KvTile> tiles;
    std::vector<std::int32_t> block;
    for (const std::size_t t : order) {
        tiles.push_back(draft.tiles[t]);
        block.push_back(draft.block[t]);
    }
    draft.tiles.swap(tiles);
    draft.block.swap(block);
}

/// Hundredths of a full tile (kernels.md 5).
Index costOf(std::span<const KvTile> tiles) {
    Index cost = 150;
    for (const KvTile& tile : tiles)
        cost += (tile.kind == Gather ? 115 : 100) + (tile.mask ? 10 : 0);
    return cost;
}

/// Writes the tiles of whole heads into a plan.
class Builder {
public:
    struct Head {
        std::vector<WorkItem> items;  ///< one per q tile
        std::vector<Index> cost;
        Index nominal = 0, quarters = 0, tiles = 0;
    };

    Builder(const Problem& problem, Plan& plan)
        : m_p(problem), m_plan(plan), m_drafter(problem, plan.mode) {
        const Index qtiles = (problem.Nq + kTile - 1) / kTile;
        for (Index q = 0; q < qtiles; ++q) {
            start(q);
            layDense(m_drafter);
            m_denseQuarters.push_back(m_drafter.draft().quarters);
            plan.stats.validPairs += m_drafter.draft().nominal;
            plan.stats.validQuarters += m_denseQuarters.back();
        }
    }

    Head operator()(const Dense&) {
        return head([&] { layDense(m_drafter); });
    }
    Head operator()(const BlockList& list) {
        return head([&] {
            list.block == kHalf ? layBlocks64(m_drafter, list) : layBlocks128(m_drafter, list);
        });
    }
    Head operator()(const Streaming& s) { return sourced(StreamingSource(m_p, s)); }
    Head operator()(const VerticalSlash& vs) { return sourced(SlashSource(m_p, vs)); }
    Head operator()(const RowRanges& ranges) { return sourced(RangeSource(m_p, ranges)); }

private:
    void start(Index q) { m_drafter.start({q * kTile, std::min((q + 1) * kTile, m_p.Nq)}); }

    template <class Source>
    Head sourced(Source source) {
        return head([&] {
            source.lay(m_drafter);
            const auto q = std::size_t(m_drafter.rows().begin / kTile);
            if (m_drafter.draft().quarters <= m_denseQuarters[q]) return;
            // Runs at free places may touch more quarters than the grid of the dense plan has.
            m_drafter.draft().clear();
            m_drafter.cutFromLeft(m_drafter.denseBegin(), m_drafter.hi(), source);
        });
    }

    template <class Lay>
    Head head(const Lay& lay) {
        Head out;
        for (Index q = 0; q < Index(m_denseQuarters.size()); ++q) {
            start(q);
            lay();
            Draft& draft = m_drafter.draft();
            sortTiles(draft);
            const auto first = m_plan.tiles.size();
            commit(draft);
            out.items.push_back({0, std::int32_t(q), std::int32_t(first),
                                 std::int32_t(m_plan.tiles.size() - first)});
            out.cost.push_back(costOf(draft.tiles));
            out.nominal += draft.nominal;
            out.quarters += draft.quarters;
            out.tiles += Index(draft.tiles.size());
        }
        return out;
    }

    void commit(const Draft& draft) {
        const auto base = std::int32_t(m_plan.gather.size());
        m_plan.gather.insert(m_plan.gather.end(), draft.gather.begin(), draft.gather.end());
        for (std::size_t t = 0; t < draft.tiles.size(); ++t) {
            KvTile tile = draft.tiles[t];
            if (tile.kind == Gather) tile.a += base;
            m_plan.tiles.push_back(tile);
            m_plan.bitsOffset.push_back(
                draft.block[t] < 0 ? -1 : store(draft.blocks[std::size_t(draft.block[t])]));
        }
    }

    /// Equal blocks are stored once: those of a streaming head repeat for every q tile.
    std::int32_t store(const Block& block) {
        std::uint64_t hash = 0x9e3779b97f4a7c15u;
        for (const std::uint64_t word : block)
            hash = (std::rotl(hash, 7) ^ word) * 0xff51afd7ed558ccdu;
        const auto [at, isNew] = m_known.try_emplace(hash, std::int32_t(m_plan.bits.size()));
        if (!isNew &&
            std::memcmp(&m_plan.bits[std::size_t(at->second)], block.data(), sizeof(Block)) == 0)
            return at->second;
        if (m_plan.bits.size() + block.size() > std::size_t(INT32_MAX))
            throw Error(Errc::Resources,
                        "plan: the token masks inside tiles need more than 16 GB; plan fewer heads "
                        "at a time or use tile mode");
        const auto offset = std::int32_t(m_plan.bits.size());
        m_plan.bits.insert(m_plan.bits.end(), block.begin(), block.end());
        return offset;
    }

    const Problem& m_p;
    Plan& m_plan;
    Drafter m_drafter;
    std::vector<Index> m_denseQuarters;  ///< of each q tile
    std::unordered_map<std::uint64_t, std::int32_t> m_known;
};

}  // namespace

Plan buildPlan(const Problem& problem, std::span<const Policy> perHead, PlanMode mode) {
    const DistinctPolicies distinct(problem, perHead);
    Plan plan;
    plan.mode = mode;
    Builder builder(problem, plan);
    std::vector<Builder::Head> heads;
    for (const Policy* policy : distinct.policies) heads.push_back(std::visit(builder, *policy));

    struct Costed {
        Index cost;
        WorkItem item;
    };
    std::vector<Costed> work;
    for (Index h = 0; h < problem.Hq; ++h) {
        const Builder::Head& head = heads[distinct.source[std::size_t(h)]];
        for (std::size_t i = 0; i < head.items.size(); ++i) {
            work.push_back({head.cost[i], head.items[i]});
            work.back().item.head = std::int32_t(h);
        }
        plan.stats.nominalPairs.push_back(head.nominal);
        plan.stats.executedQuarters.push_back(head.quarters);
        plan.stats.tiles.push_back(head.tiles);
    }
    // The query heads of one key/value head stand together, so that few of those are in use at a
    // time and stay in the caches; those with the longest item first, since what comes last should
    // be short.
    std::vector<Index> longest(std::size_t(problem.Hkv), 0);
    const auto kvHead = [&](const Costed& w) { return problem.kvHead(w.item.head); };
    for (const Costed& w : work) {
        Index& most = longest[std::size_t(kvHead(w))];
        most = std::max(most, w.cost);
    }
    std::stable_sort(work.begin(), work.end(), [&](const Costed& x, const Costed& y) {
        const Index a = kvHead(x), b = kvHead(y);
        if (a == b) return x.cost > y.cost;
        const Index costA = longest[std::size_t(a)], costB = longest[std::size_t(b)];
        return costA != costB ? costA > costB : a < b;
    });
    for (const Costed& w : work) plan.work.push_back(w.item);
    return plan;
}

void executedRanges(const Plan& plan, const Problem& problem, Index head, Index row,
                    std::vector<Range>& out) {
    out.clear();
    const Index local = row % kTile;
    const int half = local < kHalf ? 0 : 1;
    const Index position = problem.position(row), from = problem.visibleBegin(row);
    std::vector<Range> found;
    for (const WorkItem& item : plan.work) {
        if (item.head != head || item.qtile != row / kTile) continue;
        for (Index t = item.first; t < Index(item.first) + item.count; ++t) {
            const KvTile& tile = plan.tiles[std::size_t(t)];
            const std::uint64_t* bits =
                tile.mask & MaskExact
                    ? &plan.bits[std::size_t(plan.bitsOffset[std::size_t(t)] + 2 * local)]
                    : nullptr;
            for (Index c = 0; c < tile.valid; ++c) {
                if (!(tile.own >> (2 * (c / kHalf) + half) & 1)) continue;
                const Index key = tileKey(plan, tile, c);
                if (tile.mask & MaskCausal && key > position) continue;
                if (tile.mask & MaskWindow && key < from) continue;
                if (bits && !(bits[c / kHalf] >> (c % kHalf) & 1)) continue;
                if (!found.empty() && found.back().end == key) {
                    ++found.back().end;
                } else {
                    found.push_back({std::int32_t(key), std::int32_t(key + 1)});
                }
            }
        }
    }
    std::sort(found.begin(), found.end(),
              [](const Range& x, const Range& y) { return x.begin < y.begin; });
    for (const Range& r : found) {
        if (!out.empty() && r.begin <= out.back().end) {
            out.back().end = std::max(out.back().end, r.end);
        } else {
            out.push_back(r);
        }
    }
}

}  // namespace sparsight::kernels
