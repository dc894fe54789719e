#pragma once

#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <thread>

#include "core/capture/capture.h"

namespace sparsight {

/// Hands layers to a sink in a thread of its own, in order, so that the next layer is computed
/// while the one before is written. At most two layers wait; add() waits for room.
class LayerWriter {
public:
    explicit LayerWriter(const LayerSink& sink) : m_sink(sink) {}
    /// Waits for the layer that is being written; those behind it are dropped unless finish() came
    /// before.
    ~LayerWriter();

    /// @throws what the sink threw for an earlier layer; no layer reaches the sink after that
    void add(LayerCapture layer, LayerStats stats);
    /// The same in this thread, after all that add() took.
    void write(const LayerCapture& layer, const LayerStats& stats);
    /// Returns when everything is written. @throws as add
    void finish();

private:
    struct Item {
        LayerCapture layer;
        LayerStats stats;
    };
    void run();
    void rethrow() const;

    static constexpr std::size_t kMostWaiting = 2;
    const LayerSink& m_sink;
    std::mutex m_mutex;
    std::condition_variable m_changed;
    std::deque<Item> m_items;  ///< the first one is being written
    bool m_end = false;
    std::exception_ptr m_error;
    std::thread m_thread;  ///< starts with the first add()
};

}  // namespace sparsight
