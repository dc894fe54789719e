#pragma once

#include <cstddef>
#include <cstdlib>
#include <memory>
#include <new>

namespace sparsight::kernels {

/// Uninitialised floats on a cache line boundary that grow on demand and are kept for reuse.
class Scratch {
public:
    /// @return room for `count` floats; what stood there before may be lost
    float* get(std::size_t count) {
        if (count > m_size) {
            m_data.reset();
            m_size = 0;
            const std::size_t bytes = (count * sizeof(float) + 63) / 64 * 64;
            m_data.reset(static_cast<float*>(std::aligned_alloc(64, bytes)));
            if (!m_data) throw std::bad_alloc();
            m_size = count;
        }
        return m_data.get();
    }

private:
    struct Free {
        void operator()(float* p) const { std::free(p); }
    };
    std::unique_ptr<float, Free> m_data;
    std::size_t m_size = 0;
};

}  // namespace sparsight::kernels
