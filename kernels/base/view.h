#pragma once

#include <array>
#include <cassert>
#include <cstdint>
#include <span>
#include <type_traits>

namespace sparsight {

/// Counts and indexes everything. 64 bits: at 128k tokens N * N overflows 32.
using Index = std::int64_t;

/// Pointer + shape, row-major, not owning; the last dimension is contiguous.
template <class T, int Rank>
class View {
public:
    View() = default;
    View(T* data, const std::array<Index, Rank>& shape) : m_data(data), m_shape(shape) {}
    template <class U>
        requires std::is_same_v<const U, T>
    View(const View<U, Rank>& other) : m_data(other.data()), m_shape(other.shape()) {}

    template <class... I>
        requires(sizeof...(I) == Rank)
    T& operator()(I... at) const {
        const Index index[] = {Index(at)...};
        Index flat = 0;
        for (int r = 0; r < Rank; ++r) {
            assert(index[r] >= 0 && index[r] < m_shape[std::size_t(r)]);
            flat = flat * m_shape[std::size_t(r)] + index[r];
        }
        return m_data[flat];
    }
    /// One row of a matrix, or one matrix row of a higher rank by its flat row number.
    std::span<T> row(Index flatRow) const {
        const Index width = m_shape[Rank - 1];
        return {m_data + flatRow * width, std::size_t(width)};
    }
    /// The sub-array at `i` of the first dimension.
    View<T, Rank - 1> at(Index i) const
        requires(Rank > 1)
    {
        assert(i >= 0 && i < m_shape[0]);
        std::array<Index, Rank - 1> rest{};
        Index stride = 1;
        for (int r = 1; r < Rank; ++r) {
            rest[std::size_t(r - 1)] = m_shape[std::size_t(r)];
            stride *= m_shape[std::size_t(r)];
        }
        return {m_data + i * stride, rest};
    }
    T* data() const { return m_data; }
    Index extent(int dimension) const { return m_shape[std::size_t(dimension)]; }
    const std::array<Index, Rank>& shape() const { return m_shape; }
    Index size() const {
        Index product = 1;
        for (const Index e : m_shape) product *= e;
        return product;
    }
    bool empty() const { return m_data == nullptr || size() == 0; }

private:
    T* m_data = nullptr;
    std::array<Index, Rank> m_shape{};
};

}  // namespace sparsight
