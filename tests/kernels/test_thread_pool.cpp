#include <algorithm>
#include <atomic>
#include <catch2/catch.hpp>
#include <chrono>
#include <stdexcept>
#include <thread>
#include <vector>

#include "kernels/cpu/thread_pool.h"

using namespace sparsight;
using kernels::TaskContext;
using kernels::ThreadPool;

TEST_CASE("every task of a run is done exactly once") {
    for (const int threads : {1, 2, 5}) {
        ThreadPool pool(threads);
        CHECK(pool.threads() == threads);
        for (const Index count : {Index(0), Index(1), Index(3), Index(1000)}) {
            std::vector<std::atomic<int>> done(static_cast<std::size_t>(count));
            std::atomic<bool> stranger{false};
            pool.run(count, [&](Index task, TaskContext& context) {
                if (context.worker() >= threads) stranger = true;
                ++done[std::size_t(task)];
            });
            CHECK(std::all_of(done.begin(), done.end(), [](const auto& n) { return n == 1; }));
            CHECK_FALSE(stranger);
        }
    }
}

TEST_CASE("a task's exception reaches the caller and the pool stays usable") {
    ThreadPool pool(3);
    const auto failing = [](Index task, TaskContext&) {
        if (task == 17) throw std::runtime_error("seventeen");
    };
    CHECK_THROWS_WITH(pool.run(100, failing), "seventeen");
    std::atomic<int> done{0};
    pool.run(10, [&](Index, TaskContext&) { ++done; });
    CHECK(done == 10);
}

TEST_CASE("a stop ends long tasks soon, and only the caller asks for it") {
    ThreadPool pool(2);
    using Clock = std::chrono::steady_clock;
    const auto start = Clock::now();
    const auto caller = std::this_thread::get_id();
    std::atomic<bool> foreign{false};
    const Job job({}, [&] {
        if (std::this_thread::get_id() != caller) foreign = true;
        return Clock::now() - start > std::chrono::milliseconds(60);
    });
    // One task only: the other thread may hold it while the caller waits.
    for (const Index count : {Index(1), Index(2), Index(50)}) {
        const auto endless = [](Index, TaskContext& context) {
            for (;;) {
                context.check();
                std::this_thread::sleep_for(std::chrono::milliseconds(1));
            }
        };
        CHECK_THROWS_AS(pool.run(count, endless, job), Cancelled);
    }
    CHECK(Clock::now() - start < std::chrono::milliseconds(500));
    CHECK_FALSE(foreign);
}
