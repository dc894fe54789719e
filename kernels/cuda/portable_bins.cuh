#pragma once

#include "kernels/cuda/portable_tile.cuh"

/// Probabilities of score tiles, added up (or their maxima) in a grid of bins. A block owns a band
/// of row bins and a stretch of column bins, so that every bin has one owner and a fixed order.
namespace sparsight::kernels::cuda::portable {

/// `count` half-open bins over `tokens` tokens: bin n begins at first + floor(n tokens / count).
struct Bins {
    int first = 0, tokens = 0, count = 0;
    __host__ __device__ int begin(int n) const { return first + int(Index(n) * tokens / count); }
    /// The bin of a token in [first, first + tokens).
    __device__ int of(int token) const {
        return int((Index(token - first + 1) * count - 1) / tokens);
    }
    __host__ __device__ int longest() const { return (tokens + count - 1) / count; }
};

/// Walks along the ends of bins without a division.
class BinEnd {
public:
    __device__ BinEnd(const Bins& bins, int n)
        : m_step(bins.tokens / bins.count),
          m_rest(bins.tokens % bins.count),
          m_count(bins.count),
          m_carry(int(Index(n + 1) * m_rest % bins.count)),
          m_end(bins.begin(n + 1)) {}
    __device__ int operator*() const { return m_end; }
    __device__ void next() {
        m_end += m_step;
        m_carry += m_rest;
        if (m_carry >= m_count) {
            m_carry -= m_count;
            ++m_end;
        }
    }

private:
    int m_step, m_rest, m_count, m_carry, m_end;
};

/// Sorted ranges of keys that a row shows (or hides), walked along in ascending order.
class RangeWalk {
public:
    __device__ RangeWalk() {}
    __device__ RangeWalk(const Range* at, const Range* end, bool inside)
        : m_at(at), m_end(end), m_inside(inside), m_all(false) {}
    /// The columns of token, token + 1, ... that are shown. @param token no smaller than before
    __device__ std::uint64_t columns(int token) {
        if (m_all) return ~std::uint64_t(0);
        std::uint64_t inside = 0;
        for (; m_at < m_end; ++m_at) {
            const Range range = *m_at;
            inside |= columnRange(range.begin - token, range.end - token);
            if (range.end > token + kStep) break;
        }
        return m_inside ? inside : ~inside;
    }

private:
    const Range* m_at = nullptr;
    const Range* m_end = nullptr;
    bool m_inside = true, m_all = true;
};

/// The tile of probabilities in shared memory. Column c of row r stands at 64 r + (c ^ key(r)):
/// both the lanes that hold a fragment and the threads that walk along a row are on 32 banks.
struct BinTile {
    float* p;
    __device__ float& at(int row, int column) const {
        return p[row * kStep + (column ^ ((row & 1) | (row >> 3 & 3) << 1 | (row >> 1 & 3) << 3))];
    }
};

/// The bins of one block over one stretch of rows; thread r walks along row r.
template <int kRows>
class BinBlock {
public:
    /// @param band   row bins [band, band + bands) of which the rows first .. end - 1 are here
    /// @param from   first column that is seen
    /// @param rowBin shared memory, kRows + 1 numbers: where the bins of the band begin
    __device__ BinBlock(const Bins& rows, const Bins& columns, int band, int bands, int first,
                        int end, int from, BinTile tile, int* rowBin, float* out, bool most,
                        bool more)
        : m_tile(tile),
          m_rowBin(rowBin),
          m_out(out + Index(band) * columns.count),
          m_bands(bands),
          m_columns(columns.count),
          m_bin(columns.of(from)),
          m_end(columns, m_bin),
          m_most(most),
          m_more(more) {
        for (int n = int(threadIdx.x); n <= bands; n += kThreads)
            rowBin[n] = min(max(rows.begin(band + n), first), end) - first;
    }

    /// Puts the lane's values of a tile where the rows are walked.
    template <int kM>
    __device__ void put(const Tile<kM>& s) const {
        const Lane lane;
#pragma unroll
        for (int m = 0; m < kM; ++m)
#pragma unroll
            for (int j = 0; j < 8; ++j)
#pragma unroll
                for (int e = 0; e < 4; ++e)
                    m_tile.at(lane.warp * 16 * kM + 16 * m + 8 * (e / 2) + lane.g,
                              8 * j + 2 * lane.t + e % 2) = s[m][j][e];
    }
    /// Adds columns `token` .. token + valid - 1 of the tile.
    /// @param seen which of them count in the thread's row
    __device__ void add(int token, int valid, std::uint64_t seen) {
        std::uint64_t ends = 0;
        for (; *m_end <= token + valid; m_end.next())
            ends |= std::uint64_t(1) << (*m_end - token - 1);
        __syncthreads();
        const int row = int(threadIdx.x);
        int done = 0;
        if (row < kRows) {
#pragma unroll 2
            for (int from = 0; from < kStep; from += 8) {
                const auto shown = std::uint32_t(seen >> from) & 0xff,
                           closed = std::uint32_t(ends >> from) & 0xff;
                float x[8];
#pragma unroll
                for (int n = 0; n < 8; ++n) x[n] = m_tile.at(row, from + n);
#pragma unroll
                for (int n = 0; n < 8; ++n) x[n] = shown & 1u << n ? x[n] : 0;
                if (closed == 0) {
                    m_sum = join(m_sum, join(join(join(x[0], x[1]), join(x[2], x[3])),
                                             join(join(x[4], x[5]), join(x[6], x[7]))));
                    continue;
                }
#pragma unroll
                for (int n = 0; n < 8; ++n) {
                    m_sum = join(m_sum, x[n]);
                    if (closed & 1u << n) {
                        m_tile.at(row, done++) = m_sum;  // a column that is done with
                        m_sum = 0;
                    }
                }
            }
        }
        m_open = !(ends >> (valid - 1) & 1);
        write(__popcll(ends));
    }
    /// The bin that the last column left open.
    __device__ void finish() {
        if (!m_open) return;
        if (int(threadIdx.x) < kRows) m_tile.at(int(threadIdx.x), 0) = m_sum;
        write(1);
    }

private:
    __device__ float join(float a, float b) const {
        return m_most ? maxOrNaN(a, b) : a + b;
    }
    /// The first `done` columns of the tile hold the row sums of complete column bins.
    __device__ void write(int done) {
        __syncthreads();
        for (int n = int(threadIdx.x); n < done * m_bands; n += kThreads) {
            const int column = n % done, bin = n / done;
            float sum = 0;
            const int end = m_rowBin[bin + 1];
#pragma unroll 8
            for (int row = m_rowBin[bin]; row < end; ++row) sum = join(sum, m_tile.at(row, column));
            float& to = m_out[Index(bin) * m_columns + m_bin + column];
            to = m_more ? join(to, sum) : sum;
        }
        m_bin += done;
        __syncthreads();
    }

    BinTile m_tile;
    int* m_rowBin;
    float* m_out;
    int m_bands, m_columns, m_bin;
    BinEnd m_end;
    float m_sum = 0;
    bool m_most, m_more, m_open = false;
};

/// How many row bins a block takes, and how many column bins.
struct BinGrid {
    int band, stretch, bands, stretches;
    BinGrid(const Bins& rows, const Bins& columns, int kRows, int keys)
        : band(std::max(1, kRows / rows.longest())),
          stretch(std::max(1, keys / columns.longest())),
          bands(ceilDiv(rows.count, band)),
          stretches(ceilDiv(columns.count, stretch)) {}
};

}  // namespace sparsight::kernels::cuda::portable
