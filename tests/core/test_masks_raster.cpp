#include <catch2/catch.hpp>
#include <chrono>
#include <cmath>
#include <random>

#include "core/masks/method.h"

using namespace sparsight;
using kernels::Policy;
using kernels::Problem;

namespace {

Problem causal(Index Nq, Index Nk) {
    Problem p;
    p.Nq = Nq;
    p.Nk = Nk;
    return p;
}

/// Kept share of each pixel straight from the token mask and the visibility rule.
std::vector<float> slowRaster(const Policy& policy, const Problem& p, Index q0, Index q1, Index k0,
                              Index k1, Index width, Index height) {
    const auto mask = tokenMask(policy, p);
    std::vector<float> px;
    for (Index y = 0; y < height; ++y)
        for (Index x = 0; x < width; ++x) {
            const Index R = q1 - q0, C = k1 - k0;
            Index a = y * R / height, b = (y + 1) * R / height;
            Index c = x * C / width, d = (x + 1) * C / width;
            if (a == b) b = a + 1;
            if (c == d) d = c + 1;
            Index kept = 0, valid = 0;
            for (Index r = q0 + a; r < q0 + b; ++r)
                for (Index k = k0 + c; k < k0 + d; ++k) {
                    valid += k >= p.visibleBegin(r) && k < p.visibleEnd(r);
                    kept += mask[std::size_t(r * p.Nk + k)];
                }
            px.push_back(valid ? float(double(kept) / double(valid)) : -1.0f);
        }
    return px;
}

std::vector<Policy> samples(Index Nq, Index Nk) {
    std::vector<Policy> all{kernels::Dense{}, kernels::Streaming{3, 9}, kernels::Streaming{0, 1}};
    std::mt19937 random(7);
    const auto some = [&](Index n, int oneIn) {
        std::vector<std::int32_t> list;
        for (Index i = 0; i < n; ++i)
            if (random() % unsigned(oneIn) == 0) list.push_back(std::int32_t(i));
        return list;
    };
    all.push_back(kernels::VerticalSlash{some(Nk, 6), some(Nk, 7)});
    all.push_back(kernels::VerticalSlash{{}, {0}});
    kernels::BlockList blocks;
    blocks.rowPtr.push_back(0);
    for (Index r = 0; r < (Nq + 63) / 64; ++r) {
        for (const auto c : some((Nk + 63) / 64, 2)) blocks.col.push_back(c);
        blocks.rowPtr.push_back(std::int32_t(blocks.col.size()));
    }
    all.push_back(blocks);
    return all;
}

}  // namespace

TEST_CASE("rasterize gives the kept share of the valid pairs of each pixel", "[masks]") {
    const auto [Nq, Nk] = GENERATE(std::pair<Index, Index>{150, 150}, std::pair<Index, Index>{40, 170},
                                   std::pair<Index, Index>{60, 20});
    const Index window = GENERATE(0, 33);
    const bool isCausal = GENERATE(true, false);
    Problem p = causal(Nq, Nk);
    p.window = window;
    p.causal = isCausal;
    for (const Policy& policy : samples(Nq, Nk)) {
        struct Rect {
            Index q0, q1, k0, k1, width, height;
        };
        for (const Rect& r : {Rect{0, Nq, 0, Nk, 10, 10}, Rect{3, Nq - 2, 5, Nk, 7, 13},
                              Rect{10, 20, 0, 12, 30, 40}, Rect{0, Nq, 0, Nk, Nk, Nq}}) {
            std::vector<float> px(std::size_t(r.width * r.height), NAN);
            rasterize(policy, p, r.q0, r.q1, r.k0, r.k1, r.width, r.height, px.data());
            const auto expected =
                slowRaster(policy, p, r.q0, r.q1, r.k0, r.k1, r.width, r.height);
            CAPTURE(Nq, Nk, window, isCausal, policy.index(), r.width, r.height);
            CHECK(px == expected);
        }
    }
}

TEST_CASE("rasterize refuses a rectangle outside the map", "[masks]") {
    float px[4];
    CHECK_THROWS_AS(rasterize(kernels::Dense{}, causal(8, 8), 0, 9, 0, 8, 2, 2, px), Error);
    CHECK_THROWS_AS(rasterize(kernels::Dense{}, causal(8, 8), 4, 4, 0, 8, 2, 2, px), Error);
    CHECK_THROWS_AS(rasterize(kernels::Dense{}, causal(8, 8), 0, 8, 0, 8, 0, 2, px), Error);
}

TEST_CASE("rasterize of 16k x 16k tokens is quick for every kind of mask", "[masks][speed]") {
    const Index n = 16384;
    std::vector<Policy> all{kernels::Dense{}, kernels::Streaming{64, 1024}};
    kernels::VerticalSlash vs;
    for (Index i = 0; i < 1000; ++i) vs.cols.push_back(std::int32_t(i * 16));
    for (Index i = 0; i < 6096; ++i) vs.diags.push_back(std::int32_t(i * 2));
    all.push_back(vs);
    kernels::BlockList blocks;
    blocks.rowPtr.push_back(0);
    for (Index r = 0; r < n / 64; ++r) {
        for (Index c = r % 3; c <= r; c += 3) blocks.col.push_back(std::int32_t(c));
        blocks.rowPtr.push_back(std::int32_t(blocks.col.size()));
    }
    all.push_back(blocks);
    std::vector<float> px(1000 * 1000);
    for (const Policy& policy : all) {
        const auto start = std::chrono::steady_clock::now();
        rasterize(policy, causal(n, n), 0, n, 0, n, 1000, 1000, px.data());
        const double ms = std::chrono::duration<double, std::milli>(
                              std::chrono::steady_clock::now() - start)
                              .count();
        CAPTURE(policy.index());
        WARN("rasterize policy " << policy.index() << ": " << ms << " ms");
        CHECK(ms < 2000);  // ~100 ms on a quiet machine; generous for loaded ones and Debug builds
    }
}

TEST_CASE("block masks hold every block with a kept pair", "[masks]") {
    const Problem p = causal(200, 200);
    for (const Policy& policy : samples(200, 200)) {
        const auto tokens = tokenMask(policy, p);
        const auto blocks = blockMask(policy, p, 64);
        REQUIRE(blocks.size() == 16);
        for (Index I = 0; I < 4; ++I)
            for (Index J = 0; J < 4; ++J) {
                std::uint8_t any = 0;
                for (Index r = I * 64; r < std::min<Index>(200, I * 64 + 64); ++r)
                    for (Index k = J * 64; k < std::min<Index>(200, J * 64 + 64); ++k)
                        any |= tokens[std::size_t(r * 200 + k)];
                CAPTURE(policy.index(), I, J);
                CHECK(blocks[std::size_t(I * 4 + J)] == any);
            }
    }
}
