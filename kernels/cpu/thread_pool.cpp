#include "kernels/cpu/thread_pool.h"

namespace sparsight::kernels {
namespace {
using Clock = std::chrono::steady_clock;
constexpr auto kPollEvery = std::chrono::milliseconds(20);
constexpr auto kReportEvery = std::chrono::milliseconds(50);
}  // namespace

void TaskContext::check() {
    if (m_worker == 0 && m_job) {
        const auto now = Clock::now();
        if (now - m_lastPoll >= kPollEvery) {
            m_lastPoll = now;
            m_job->check();
        }
    }
    if (m_stop.load(std::memory_order_relaxed)) throw Cancelled{};
}

ThreadPool::ThreadPool(int threads) {
    for (int i = 1; i < threads; ++i) m_threads.emplace_back([this, i] { loop(i); });
}

ThreadPool::~ThreadPool() {
    {
        std::lock_guard lock(m_mutex);
        m_quit = true;
    }
    m_wake.notify_all();
    for (std::thread& t : m_threads) t.join();
}

void ThreadPool::loop(int worker) {
    Index seen = 0;
    std::unique_lock lock(m_mutex);
    for (;;) {
        m_wake.wait(lock, [&] { return m_quit || (m_run && m_generation != seen); });
        if (m_quit) return;
        seen = m_generation;
        Run& run = *m_run;
        ++m_active;
        lock.unlock();
        work(run, worker);
        lock.lock();
        if (--m_active == 0) m_idle.notify_all();
    }
}

void ThreadPool::work(Run& run, int worker) {
    const auto start = Clock::now();
    TaskContext context(worker, worker == 0 ? run.job : nullptr, run.stop, start);
    auto reported = start;
    try {
        while (!run.stop.load(std::memory_order_relaxed)) {
            const Index task = run.next.fetch_add(1, std::memory_order_relaxed);
            if (task >= run.count) break;
            (*run.task)(task, context);
            const Index done = run.done.fetch_add(1, std::memory_order_relaxed) + 1;
            if (worker != 0) continue;
            context.check();
            const auto now = Clock::now();
            if (now - reported >= kReportEvery) {
                reported = now;
                run.job->step(run.from + (run.to - run.from) * double(done) / double(run.count));
            }
        }
    } catch (...) {
        std::lock_guard lock(m_mutex);
        // Threads that only followed the stop flag must not hide the first cause.
        if (!run.error) run.error = std::current_exception();
        run.stop.store(true, std::memory_order_relaxed);
    }
}

void ThreadPool::run(Index count, const Task& task, const Job& job, double from, double to) {
    if (count <= 0) return;
    std::unique_lock turn(m_runMutex, std::defer_lock);
    // By the system's clock: thread sanitizers do not know waits by the steady one.
    while (!turn.try_lock_until(std::chrono::system_clock::now() + kPollEvery)) job.check();
    Run run;
    run.task = &task;
    run.job = &job;
    run.count = count;
    run.from = from;
    run.to = to;
    const bool helped = count > 1 && !m_threads.empty();
    if (helped) {
        {
            std::lock_guard lock(m_mutex);
            m_run = &run;
            ++m_generation;
        }
        m_wake.notify_all();
    }
    work(run, 0);
    if (helped) {
        std::unique_lock lock(m_mutex);
        m_run = nullptr;
        // The helpers may be busy for long, and only this thread can notice a stop.
        while (m_active > 0) {
            m_idle.wait_for(lock, kPollEvery, [&] { return m_active == 0; });
            if (m_active == 0 || run.error) continue;
            lock.unlock();
            bool stopAsked = false;
            std::exception_ptr thrown;
            try {
                stopAsked = job.stopAsked();
            } catch (...) {
                thrown = std::current_exception();
            }
            lock.lock();
            if (stopAsked && !thrown) thrown = std::make_exception_ptr(Cancelled{});
            if (thrown && !run.error) {
                run.error = thrown;
                run.stop.store(true, std::memory_order_relaxed);
            }
        }
    }
    if (run.error) std::rethrow_exception(run.error);
}

}  // namespace sparsight::kernels
