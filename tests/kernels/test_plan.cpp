#include <catch2/catch.hpp>
#include <numeric>

#include "kernels/base/error.h"
#include "kernels/plan.h"
#include "random_policy.h"

using namespace sparsight;
using namespace sparsight::kernels;

namespace {

Problem problem(Index Nq, Index Nk, bool causal = true, Index window = 0, Index heads = 1) {
    Problem p;
    p.Hq = p.Hkv = heads;
    p.Nq = Nq;
    p.Nk = Nk;
    p.causal = causal;
    p.window = window;
    return p;
}

Plan planOf(const Problem& p, const Policy& policy, PlanMode mode = PlanMode::Exact) {
    return buildPlan(p, std::span(&policy, 1), mode);
}

/// How often a plan executes each key of a row, pair by pair from the words of plan.h.
std::vector<int> hits(const Plan& plan, const Problem& p, Index head, Index row) {
    std::vector<int> count(std::size_t(p.Nk), 0);
    for (const WorkItem& item : plan.work) {
        if (item.head != head || item.qtile != row / kTile) continue;
        for (Index t = item.first; t < item.first + item.count; ++t) {
            const KvTile& tile = plan.tiles[std::size_t(t)];
            REQUIRE(tile.valid >= 1);
            REQUIRE(tile.valid <= kTile);
            REQUIRE(bool(tile.mask & MaskTail) == (tile.valid < kTile));
            for (Index c = 0; c < tile.valid; ++c) {
                Index key = tile.a + c;
                if (tile.kind == Gather) key = plan.gather[std::size_t(tile.a + c)];
                if (tile.kind == Pair64 && c >= 64) key = tile.b + c - 64;
                const Index rowInTile = row % kTile;
                bool in = tile.own & (1 << ((rowInTile >= 64 ? 1 : 0) + (c >= 64 ? 2 : 0)));
                if (tile.mask & MaskCausal) in = in && key <= p.position(row);
                if (tile.mask & MaskWindow) in = in && key >= p.visibleBegin(row);
                if (tile.mask & MaskExact) {
                    const auto at = std::size_t(plan.bitsOffset[std::size_t(t)] + 2 * rowInTile +
                                                (c >= 64 ? 1 : 0));
                    in = in && (plan.bits[at] >> (c % 64) & 1);
                }
                REQUIRE(key >= 0);
                REQUIRE(key < p.Nk);
                count[std::size_t(key)] += in;
            }
        }
    }
    return count;
}

std::vector<int> covered(const std::vector<Range>& ranges, Index keys) {
    std::vector<int> count(std::size_t(keys), 0);
    for (const Range& r : ranges)
        for (Index k = r.begin; k < r.end; ++k) ++count[std::size_t(k)];
    return count;
}

std::vector<KvTile> tilesOf(const Plan& plan, Index qtile) {
    for (const WorkItem& w : plan.work)
        if (w.qtile == qtile && w.head == 0)
            return {plan.tiles.begin() + w.first, plan.tiles.begin() + w.first + w.count};
    return {};
}

KvTile tile(Index a, unsigned mask = 0, unsigned own = 0xf, Index valid = 128,
            TileKind kind = Run128, Index b = 0) {
    KvTile t;
    t.a = std::int32_t(a);
    t.b = std::int32_t(b);
    t.mask = mask;
    t.own = std::uint8_t(own);
    t.valid = std::uint16_t(valid);
    t.kind = kind;
    return t;
}

/// 100 for a full tile, 115 for a gather, 10 for a mask, 150 for the item.
Index cost(const Plan& plan, const WorkItem& item) {
    Index sum = 150;
    for (Index t = item.first; t < item.first + item.count; ++t) {
        const KvTile& k = plan.tiles[std::size_t(t)];
        sum += (k.kind == Gather ? 115 : 100) + (k.mask ? 10 : 0);
    }
    return sum;
}

}  // namespace

TEST_CASE("plan: dense causal tiles end at the diagonal") {
    const Problem p = problem(300, 300);
    const Plan plan = planOf(p, Dense{});
    // The quarter above the diagonal is not owned.
    CHECK(tilesOf(plan, 0) == std::vector{tile(0, MaskCausal, 0b1011)});
    CHECK(tilesOf(plan, 1) == std::vector{tile(0), tile(128, MaskCausal, 0b1011)});
    CHECK(tilesOf(plan, 2) == std::vector{tile(0, 0, 0b0101), tile(128, 0, 0b0101),
                                          tile(256, MaskCausal | MaskTail, 0b0001, 44)});
    CHECK(plan.stats.validPairs == 300 * 301 / 2);
    CHECK(plan.stats.nominalPairs[0] == plan.stats.validPairs);
    CHECK(plan.stats.validQuarters == 3 + 7 + 5);
    CHECK(plan.stats.density(0) == 1.0);
    CHECK(plan.stats.coverage(0) == 1.0);
    CHECK(plan.work.front().qtile == 2);  // the longest list first
}

TEST_CASE("plan: full block lists are the dense plan, byte for byte") {
    for (const Index block : {64, 128}) {
        for (const Index n : {1, 63, 64, 65, 128, 200, 1000}) {
            const Problem p = problem(n, n);
            BlockList list;
            list.block = block;
            list.rowPtr.push_back(0);
            for (Index r = 0; r < (n + block - 1) / block; ++r) {
                for (Index c = 0; c <= r; ++c) list.col.push_back(std::int32_t(c));
                list.rowPtr.push_back(std::int32_t(list.col.size()));
            }
            const Plan a = planOf(p, list), b = planOf(p, Dense{});
            CHECK(a.tiles == b.tiles);
            CHECK(a.stats.executedQuarters == b.stats.executedQuarters);
        }
    }
}

TEST_CASE("plan: 64-blocks are glued, equal owners first") {
    const Problem p = problem(128, 640, false);
    BlockList list;
    list.rowPtr = {0, 3, 6};
    list.col = {0, 4, 7, 0, 2, 7};
    CHECK(tilesOf(planOf(p, list), 0) == std::vector{tile(0, 0, 0b1111, 128, Pair64, 7 * 64),
                                                     tile(2 * 64, 0, 0b0110, 128, Pair64, 4 * 64)});
}

TEST_CASE("plan: streaming is a sink tile and runs from the right end") {
    const Problem p = problem(1024, 1024);
    const Plan exact = planOf(p, Streaming{4, 130});
    const auto tiles = tilesOf(exact, 7);
    REQUIRE(tiles.size() == 4);
    CHECK(tiles[0] == tile(0, MaskTail, 0b0011, 4));
    CHECK(tiles[1].valid == 1);  // keys 767 only: the first row's window begins there
    CHECK(tiles[1].a == 767);
    CHECK(tiles[2].mask == MaskExact);
    CHECK(tiles[3] == tile(896, MaskCausal, 0b1011));
    // The partial tiles of all later q tiles share their bits.
    CHECK(exact.bits.size() <= 6 * 256);

    const Plan rounded = planOf(p, Streaming{4, 130}, PlanMode::Tile);
    CHECK(rounded.bits.empty());
    CHECK(tilesOf(rounded, 7)[2] == tile(768));
}

TEST_CASE("plan: a layer's own window needs no token bits") {
    const Plan plan = planOf(problem(500, 900, true, 100), Streaming{0, 100});
    CHECK(plan.bits.empty());
    CHECK(plan.stats.coverage(0) == 1.0);
}

TEST_CASE("plan: verticals inside slashes are not gathered") {
    const Problem p = problem(1024, 1024);
    const Plan plan = planOf(p, VerticalSlash{{3, 5, 800, 1000}, {0, 200}});
    const auto tiles = tilesOf(plan, 7);  // rows 896..1023: runs 696..823 and 896..1023
    REQUIRE(tiles.size() == 3);
    CHECK(tiles[0].kind == Gather);
    CHECK(tiles[0].valid == 2);
    CHECK(tiles[1].a == 696);
    CHECK(tiles[2].a == 896);
    CHECK(tiles[2].mask == MaskExact);
}

TEST_CASE("plan: equal policies share their tiles") {
    const Problem p = problem(512, 512, true, 0, 3);
    const Policy policies[] = {Dense{}, Streaming{4, 64}, Dense{}};
    const Plan plan = buildPlan(p, policies, PlanMode::Exact);
    CHECK(plan.work.size() == 3 * 4);
    CHECK(plan.stats.tiles[0] == plan.stats.tiles[2]);
    CHECK(Index(plan.tiles.size()) == plan.stats.tiles[0] + plan.stats.tiles[1]);
    CHECK(plan.bitsOffset.size() == plan.tiles.size());
}

TEST_CASE("plan: what does not fit is refused") {
    const Problem p = problem(256, 256, true, 0, 2);
    const Policy three[] = {Dense{}, Dense{}, Dense{}};
    CHECK_THROWS_AS(buildPlan(p, three, PlanMode::Exact), Error);
    CHECK_THROWS_AS(planOf(p, VerticalSlash{{5, 3}, {}}), Error);
    CHECK_THROWS_AS(planOf(p, BlockList{64, {0, 1}, {0}}), Error);
}

TEST_CASE("plan: no tokens, no keys, heads that keep nothing") {
    CHECK(planOf(problem(0, 0), Dense{}).work.empty());
    const Plan none = planOf(problem(100, 0), Dense{});
    REQUIRE(none.work.size() == 1);
    CHECK(none.work[0].count == 0);
    CHECK(none.stats.density(0) == 0);
    const Plan empty = planOf(problem(300, 300), Streaming{0, 0});
    CHECK(empty.tiles.empty());
    CHECK(empty.work.size() == 3);
}

TEST_CASE("plan: the executed set is the promised one for random masks") {
    const unsigned seed = GENERATE(range(1u, 41u));
    RandomPolicy make(seed);
    const Index sizes[] = {1, 7, 63, 64, 65, 127, 128, 129, 200, 320, 511};
    for (int kind = 0; kind < 5; ++kind) {
        const Index windows[] = {0, 0, 1, 50, 128, 200};
        const Problem p = problem(sizes[make.below(11)], sizes[make.below(11)], make.chance(0.7),
                                  windows[make.below(6)]);
        const Policy policy = make.make(kind, p);
        CAPTURE(seed, kind, p.Nq, p.Nk, p.causal, p.window);
        const Plan exact = planOf(p, policy), rounded = planOf(p, policy, PlanMode::Tile);
        std::vector<Range> kept, executed;
        bool same = true, once = true, agree = true, superset = true, visible = true;
        for (Index row = 0; row < p.Nq; ++row) {
            keptRanges(policy, p, row, kept);
            executedRanges(exact, p, 0, row, executed);
            same = same && executed == kept;
            const auto want = covered(kept, p.Nk);
            agree = agree && hits(exact, p, 0, row) == want;
            executedRanges(rounded, p, 0, row, executed);
            const auto wide = hits(rounded, p, 0, row);
            agree = agree && wide == covered(executed, p.Nk);
            for (Index k = 0; k < p.Nk; ++k) {
                const int w = wide[std::size_t(k)];
                once = once && w <= 1;
                superset = superset && w >= want[std::size_t(k)];
                visible =
                    visible && (w == 0 || (k >= p.visibleBegin(row) && k < p.visibleEnd(row)));
            }
        }
        CHECK(same);
        CHECK(once);
        CHECK(agree);
        CHECK(superset);
        CHECK(visible);
        CHECK(rounded.bits.empty());
        for (const Plan* plan : {&exact, &rounded}) {
            CHECK(plan->stats.nominalPairs[0] == keptPairs(policy, p));
            CHECK(plan->stats.validPairs == validPairs(p));
            CHECK(plan->stats.density(0) >= 0);
            CHECK(plan->stats.density(0) <= 1);
            if (kind == 0 && validPairs(p) > 0) CHECK(plan->stats.density(0) == 1);
            CHECK(Index(plan->work.size()) == (p.Nq + kTile - 1) / kTile);
            for (std::size_t w = 1; w < plan->work.size(); ++w)
                CHECK(cost(*plan, plan->work[w - 1]) >= cost(*plan, plan->work[w]));
            for (const WorkItem& item : plan->work) {
                int partGathers = 0;
                Index last = -1;
                for (Index t = item.first; t < item.first + item.count; ++t) {
                    const KvTile& k = plan->tiles[std::size_t(t)];
                    partGathers += k.kind == Gather && k.valid < kTile;
                    const Index at = tileKey(*plan, k, 0);
                    CHECK(at > last);
                    last = at;
                }
                CHECK(partGathers <= 1);
            }
        }
    }
}
