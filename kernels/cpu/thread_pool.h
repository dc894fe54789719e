#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "kernels/base/job.h"
#include "kernels/base/view.h"

namespace sparsight::kernels {

/// What a task of a ThreadPool sees of the run that it belongs to.
class TaskContext {
public:
    TaskContext(int worker, const Job* job, std::atomic<bool>& stop,
                std::chrono::steady_clock::time_point lastPoll)
        : m_worker(worker), m_job(job), m_stop(stop), m_lastPoll(lastPoll) {}

    /// 0 .. threads - 1; 0 is the thread that called run(). Index of per-thread scratch memory.
    int worker() const { return m_worker; }

    /// Call it every few milliseconds of work. Only the calling thread asks the job, because a Job
    /// may be called from one thread at a time; it does so every 20 ms at most.
    /// @throws Cancelled when a stop was asked or another task failed
    void check();

private:
    friend class ThreadPool;
    int m_worker;
    const Job* m_job;
    std::atomic<bool>& m_stop;
    std::chrono::steady_clock::time_point m_lastPoll;
};

/// A fixed set of threads that work through the numbered tasks of one run at a time, in ascending
/// order (put the costly ones first). The caller is one of the threads, so a short run ends without
/// waiting for anybody to wake up. Tasks must not start runs of the same pool.
class ThreadPool {
public:
    using Task = std::function<void(Index task, TaskContext& context)>;

    /// @param threads  at least 1, the calling thread included
    explicit ThreadPool(int threads);
    ~ThreadPool();
    ThreadPool(const ThreadPool&) = delete;
    ThreadPool& operator=(const ThreadPool&) = delete;

    int threads() const { return int(m_threads.size()) + 1; }

    /// Runs task(0) .. task(count - 1), each once, on whichever thread is free; returns when all
    /// are done. Progress goes to `job` as done / count mapped to [from, to]. Runs asked for by
    /// several threads queue up.
    /// @throws Cancelled when the job asks to stop; else the first exception that a task threw
    void run(Index count, const Task& task, const Job& job = {}, double from = 0, double to = 1);

private:
    struct Run {
        const Task* task = nullptr;
        const Job* job = nullptr;
        Index count = 0;
        double from = 0, to = 1;
        std::atomic<Index> next{0}, done{0};
        std::atomic<bool> stop{false};
        std::exception_ptr error;  ///< guarded by m_mutex
    };
    void loop(int worker);
    void work(Run& run, int worker);

    std::timed_mutex m_runMutex;  ///< held during a run
    std::mutex m_mutex;
    std::condition_variable m_wake, m_idle;
    Run* m_run = nullptr;    ///< guarded by m_mutex; null when nothing may be joined
    Index m_generation = 0;  ///< guarded by m_mutex; number of the run
    int m_active = 0;        ///< guarded by m_mutex; helpers inside the run
    bool m_quit = false;     ///< guarded by m_mutex
    std::vector<std::thread> m_threads;
};

}  // namespace sparsight::kernels
