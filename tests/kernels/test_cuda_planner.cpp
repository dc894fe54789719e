#include <algorithm>
#include <catch2/catch.hpp>
#include <cstring>
#include <numeric>

#include "kernels/base/error.h"
#include "kernels/cuda/backend.h"
#include "kernels/cuda/planner.h"
#include "random_policy.h"

using namespace sparsight;
using namespace sparsight::kernels;

namespace {

bool noGpu() {
    if (cuda::deviceCount() > 0) return false;
    WARN("No GPU was found: the planner on the device was not run.");
    return true;
}

Problem problem(Index Nq, Index Nk, Index Hq = 1, Index Hkv = 1) {
    Problem p;
    p.Hq = Hq;
    p.Hkv = Hkv;
    p.Nq = Nq;
    p.Nk = Nk;
    return p;
}

template <class T>
void checkBytes(const char* what, const std::vector<T>& got, const std::vector<T>& want) {
    CAPTURE(what);
    REQUIRE(got.size() == want.size());
    if (want.empty() || std::memcmp(got.data(), want.data(), want.size() * sizeof(T)) == 0) {
        SUCCEED();
        return;
    }
    std::size_t i = 0;
    while (std::memcmp(&got[i], &want[i], sizeof(T)) == 0) ++i;
    const auto words = [&](const T& x) {
        std::vector<unsigned> w(sizeof(T) / 4);
        std::memcpy(w.data(), &x, sizeof(T));
        return w;
    };
    CAPTURE(i);
    CHECK(words(got[i]) == words(want[i]));
}

void checkSame(const Problem& p, std::span<const Policy> policies) {
    const Plan want = buildPlan(p, policies, PlanMode::Tile);
    const cuda::PlannedOnDevice planned = cuda::buildPlan(p, policies, nullptr);
    const Plan got = planned.toHost();
    CHECK(got.mode == PlanMode::Tile);
    CHECK(got.stats.nominalPairs == want.stats.nominalPairs);
    CHECK(got.stats.executedQuarters == want.stats.executedQuarters);
    CHECK(got.stats.tiles == want.stats.tiles);
    CHECK(got.stats.validPairs == want.stats.validPairs);
    CHECK(got.stats.validQuarters == want.stats.validQuarters);
    checkBytes("tiles", got.tiles, want.tiles);
    checkBytes("gather", got.gather, want.gather);
    checkBytes("work", got.work, want.work);
    checkBytes("bitsOffset", got.bitsOffset, want.bitsOffset);
    CHECK(got.bits.empty());
    CHECK(planned.plan().workCount == int(want.work.size()));
    if (!want.gather.empty()) CHECK(planned.plan().gathers);
    CHECK(planned.plan().bits == nullptr);
}
void checkSame(const Problem& p, const Policy& policy) {
    checkSame(p, std::span(&policy, 1));
}

/// 1000 random columns, the first 100 diagonals and 100 random ones.
Policy longSlash(RandomPolicy& make, Index keys) {
    std::vector<std::int32_t> all(static_cast<std::size_t>(keys));
    std::iota(all.begin(), all.end(), 0);
    VerticalSlash vs;
    std::sample(all.begin(), all.end(), std::back_inserter(vs.cols), 1000, make.random);
    vs.diags.assign(all.begin(), all.begin() + 100);
    std::sample(all.begin() + 100, all.end(), std::back_inserter(vs.diags), 100, make.random);
    return vs;
}

/// A tenth of the causal blocks, the first and the diagonal one always.
Policy tenthOfBlocks(RandomPolicy& make, Index tokens, Index block) {
    BlockList list;
    list.block = block;
    list.rowPtr.push_back(0);
    for (Index r = 0; r < tokens / block; ++r) {
        for (Index c = 0; c <= r; ++c)
            if (c == 0 || c == r || make.chance(0.1)) list.col.push_back(std::int32_t(c));
        list.rowPtr.push_back(std::int32_t(list.col.size()));
    }
    return list;
}

/// Milliseconds from the call to the finished plan: the median and the least of 15.
std::pair<float, float> buildTime(const Problem& p, std::span<const Policy> policies) {
    cudaEvent_t start{}, stop{};
    REQUIRE(cudaEventCreate(&start) == cudaSuccess);
    REQUIRE(cudaEventCreate(&stop) == cudaSuccess);
    std::vector<float> all;
    for (int i = 0; i < 18; ++i) {
        REQUIRE(cudaStreamSynchronize(nullptr) == cudaSuccess);
        cudaEventRecord(start);
        const cuda::PlannedOnDevice planned = cuda::buildPlan(p, policies, nullptr);
        cudaEventRecord(stop);
        REQUIRE(cudaEventSynchronize(stop) == cudaSuccess);
        float ms = 0;
        cudaEventElapsedTime(&ms, start, stop);
        if (i >= 3) all.push_back(ms);
    }
    cudaEventDestroy(start);
    cudaEventDestroy(stop);
    std::sort(all.begin(), all.end());
    return {all[all.size() / 2], all.front()};
}

}  // namespace

TEST_CASE("cuda planner: what it takes") {
    const Policy dense = Dense{}, ranges = RowRanges{};
    CHECK(cuda::plansOnDevice(std::span(&dense, 1), PlanMode::Tile));
    CHECK_FALSE(cuda::plansOnDevice(std::span(&dense, 1), PlanMode::Exact));
    CHECK_FALSE(cuda::plansOnDevice(std::span(&ranges, 1), PlanMode::Tile));
    CHECK_THROWS_AS(cuda::buildPlan(problem(0, 0), std::span(&ranges, 1), nullptr), Error);
    const Policy three[] = {Dense{}, Dense{}, Dense{}};
    CHECK_THROWS_AS(cuda::buildPlan(problem(256, 256, 2, 2), three, nullptr), Error);
    const Policy unsorted = VerticalSlash{{5, 3}, {}};
    CHECK_THROWS_AS(cuda::buildPlan(problem(256, 256), std::span(&unsorted, 1), nullptr), Error);
}

TEST_CASE("cuda planner: the bytes of the CPU planner for random masks") {
    if (noGpu()) return;
    const unsigned seed = GENERATE(range(1u, 121u));
    RandomPolicy make(seed);
    const Index sizes[] = {0, 1, 7, 63, 64, 65, 127, 128, 129, 200, 320, 511, 1000, 1537};
    const Index windows[] = {0, 0, 1, 50, 128, 200};
    const Index kvHeads[] = {1, 2, 3};
    const Index Hkv = kvHeads[make.below(3)];
    Problem p =
        problem(sizes[make.below(14)], sizes[make.below(14)], Hkv * (1 + make.below(4)), Hkv);
    p.causal = make.chance(0.7);
    p.window = windows[make.below(6)];
    CAPTURE(seed, p.Nq, p.Nk, p.Hq, p.Hkv, p.causal, p.window);
    std::vector<Policy> policies;
    for (Index h = 0; h < p.Hq; ++h) {
        if (h > 0 && make.chance(0.2))
            policies.push_back(policies[std::size_t(make.below(h))]);
        else
            policies.push_back(make.make(int(make.below(4)), p));
    }
    checkSame(p, policies);
    checkSame(p, policies[0]);
}

TEST_CASE("cuda planner: lists longer than a block's threads") {
    if (noGpu()) return;
    RandomPolicy make(7);
    const bool causal = GENERATE(true, false);
    const Index rows = GENERATE(1, 70, 300);
    Problem p = problem(rows, 40001);
    p.causal = causal;
    CAPTURE(p.Nq, p.Nk, p.causal);
    checkSame(p, Dense{});
    checkSame(p, Streaming{700, 9000});
    for (const Index block : {64, 128})
        for (const double density : {0.1, 0.5, 1.0}) {
            BlockList list;
            list.block = block;
            list.rowPtr.push_back(0);
            for (Index r = 0; r < (p.Nq + block - 1) / block; ++r) {
                const auto cols = make.subset((p.Nk + block - 1) / block, density);
                list.col.insert(list.col.end(), cols.begin(), cols.end());
                list.rowPtr.push_back(std::int32_t(list.col.size()));
            }
            checkSame(p, list);
        }
    for (const double density : {0.0004, 0.004, 0.02, 0.4})
        checkSame(p, VerticalSlash{make.subset(p.Nk, density), make.subset(p.Nk, density)});
    VerticalSlash apart;  // more runs than threads
    for (std::int32_t s = 5; s < p.Nk; s += 150) apart.diags.push_back(s);
    apart.cols = make.subset(p.Nk, 0.1);
    checkSame(p, apart);
}

TEST_CASE("cuda planner: whether both halves of the rows walk the tiles") {
    if (noGpu()) return;
    const Policy dense = Dense{};
    CHECK(cuda::buildPlan(problem(1024, 1024), std::span(&dense, 1), nullptr).plan().shared);
    CHECK_FALSE(cuda::buildPlan(problem(1, 1024), std::span(&dense, 1), nullptr).plan().shared);
    BlockList list;  // neighbouring 64-blocks of rows share no block
    list.rowPtr.push_back(0);
    for (std::int32_t r = 0; r < 16; ++r) {
        for (std::int32_t c = r % 2; c < 16; c += 2) list.col.push_back(c);
        list.rowPtr.push_back(std::int32_t(list.col.size()));
    }
    const Policy disjoint = list;
    CHECK_FALSE(
        cuda::buildPlan(problem(1024, 1024), std::span(&disjoint, 1), nullptr).plan().shared);
}

TEST_CASE("cuda planner: 32 heads of 32k tokens") {
    if (noGpu()) return;
    cudaMemPool_t pool{};  // as the backend has it: memory given back stays
    REQUIRE(cudaDeviceGetDefaultMemPool(&pool, 0) == cudaSuccess);
    std::uint64_t keep = std::uint64_t(2) << 30;
    REQUIRE(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &keep) == cudaSuccess);
    const Problem p = problem(32768, 32768, 32, 8);
    RandomPolicy make(11);
    std::vector<Policy> slashes, blocks128, blocks64, streaming;
    for (Index h = 0; h < p.Hq; ++h) {
        slashes.push_back(longSlash(make, p.Nk));
        blocks128.push_back(tenthOfBlocks(make, p.Nk, 128));
        blocks64.push_back(tenthOfBlocks(make, p.Nk, 64));
        streaming.push_back(Streaming{64 + h, 1024 + 32 * h});
    }
    checkSame(p, slashes);
    checkSame(p, blocks128);
    checkSame(p, blocks64);
    checkSame(p, streaming);
    for (const auto& [name, policies] :
         {std::pair{"vertical-slash", &slashes}, std::pair{"blocks of 128", &blocks128},
          std::pair{"blocks of 64", &blocks64}, std::pair{"streaming", &streaming}}) {
        const auto [median, least] = buildTime(p, *policies);
        WARN("plan of 32 heads, 32768 tokens, " << name << ": " << median << " ms (least " << least
                                                << ")");
    }
}
