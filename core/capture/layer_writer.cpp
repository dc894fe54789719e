#include "core/capture/layer_writer.h"

namespace sparsight {

LayerWriter::~LayerWriter() {
    if (!m_thread.joinable()) return;
    {
        const std::lock_guard lock(m_mutex);
        m_end = true;
        while (m_items.size() > 1) m_items.pop_back();
    }
    m_changed.notify_all();
    m_thread.join();
}

void LayerWriter::rethrow() const {
    if (m_error) std::rethrow_exception(m_error);
}

void LayerWriter::add(LayerCapture layer, LayerStats stats) {
    std::unique_lock lock(m_mutex);
    if (!m_thread.joinable()) m_thread = std::thread([this] { run(); });
    m_changed.wait(lock, [this] { return m_items.size() < kMostWaiting || m_error; });
    rethrow();
    m_items.push_back({std::move(layer), std::move(stats)});
    m_changed.notify_all();
}

void LayerWriter::write(const LayerCapture& layer, const LayerStats& stats) {
    finish();
    m_sink(layer, stats);
}

void LayerWriter::finish() {
    std::unique_lock lock(m_mutex);
    m_changed.wait(lock, [this] { return m_items.empty() || m_error; });
    rethrow();
}

void LayerWriter::run() {
    std::unique_lock lock(m_mutex);
    for (;;) {
        m_changed.wait(lock, [this] { return !m_items.empty() || m_end; });
        if (m_items.empty()) return;
        const Item& item = m_items.front();  // the others come behind it
        lock.unlock();
        std::exception_ptr error;
        try {
            m_sink(item.layer, item.stats);
        } catch (...) {
            error = std::current_exception();
        }
        lock.lock();
        if (error) {
            m_error = error;
            m_items.clear();
        } else {
            m_items.pop_front();
        }
        m_changed.notify_all();
        if (error) return;
    }
}

}  // namespace sparsight
