#pragma once

#include <cstdint>

#include "kernels/cuda/layer.h"
#include "kernels/plan.h"

/// How a block of kThreads drafts the q tile of one mask. The CPU planner (kernels/plan/*.h) is the
/// definition of every byte; names are those of that code.
namespace sparsight::kernels::cuda::drafting {

using Word = unsigned long long;

constexpr int kThreads = 128, kWarps = kThreads / 32;
constexpr int kRows = int(kTile), kHalf = kRows / 2;
constexpr int kScanThreads = 1024;
constexpr unsigned kAll = ~0u;

enum class Kind : int { Dense, Streaming, Blocks64, Blocks128, Slash };

/// One distinct mask. Numbers that name lists are indices into the sent numbers.
struct Mask {
    Kind kind = Kind::Dense;
    int sink = 0, window = 0;                    // Streaming
    int rowPtr = 0, blocks = 0;                  // block lists
    int columns = 0, columnCount = 0;            // Slash
    int diagonals = 0, diagonalCount = 0;        // Slash
    int clusters[2] = {}, clusterCount[2] = {};  ///< of full q tiles, of the last one if shorter
    int perTile = 0;         ///< places for the tiles of a q tile; the last one has all that follow
    int gathersPerTile = 0;  ///< places for its gathered keys
    Index columnBits = 0, slashBits = 0;  ///< first word
    Index tiles = 0, gathers = 0;         ///< first place
};

/// What a block found for its q tile.
struct Item {
    int runs = 0, gatherTiles = 0, gathered = 0, cost = 0;
};

/// Sums that leave the device; PlannedOnDevice::numbers.
struct Totals {
    Word validPairs, validQuarters, tiles, gathered;
};
struct Sums {
    Word nominal, quarters, tiles, longest;
};

struct Columns {
    Word low = 0, high = 0;

    __device__ Columns operator&(const Columns& o) const { return {low & o.low, high & o.high}; }
    __device__ Columns operator|(const Columns& o) const { return {low | o.low, high | o.high}; }
    __device__ bool within(const Columns& o) const { return !(low & ~o.low) && !(high & ~o.high); }
    __device__ int count() const { return __popcll(low) + __popcll(high); }
};
__device__ inline Word wordBelow(int n) {
    return n <= 0 ? 0 : n >= 64 ? ~Word(0) : (Word(1) << n) - 1;
}
__device__ inline Columns below(int n) {
    return {wordBelow(n), wordBelow(n - 64)};
}
__device__ inline Columns between(int begin, int end) {
    const Columns b = below(begin), e = below(end);
    return {e.low & ~b.low, e.high & ~b.high};
}

/// A set of keys as bits; reads past both ends give zeros.
struct KeyBits {
    const Word* words;
    int count;

    __device__ Word at(int i) const { return unsigned(i) < unsigned(count) ? __ldg(words + i) : 0; }
    /// Members key .. key+127; key may be negative.
    __device__ Columns columns(int key) const {
        const int word = key >> 6, shift = key & 63;
        const Word a = at(word), b = at(word + 1), c = at(word + 2);
        return {a >> shift | b << 1 << (63 - shift), b >> shift | c << 1 << (63 - shift)};
    }
};

/// The first index of an ascending list whose entry is >= x.
__device__ inline int lowerBound(const int* list, int count, int x) {
    int begin = 0;
    while (count > 0) {
        const int step = count / 2;
        if (list[begin + step] < x) {
            begin += step + 1;
            count -= step + 1;
        } else {
            count = step;
        }
    }
    return begin;
}

struct Sight {
    bool any = false, causal = false, window = false;
};

/// The rows of one q tile and what they see.
struct QTile {
    const Layer& l;
    int begin, end, lo, hi;

    __device__ QTile(const Layer& layer, int q)
        : l(layer), begin(q * kRows), end(min(begin + kRows, layer.Nq)) {
        lo = l.visibleBegin(begin);
        hi = l.visibleEnd(end - 1);
    }
    __device__ int halfBegin(int half) const { return min(end, begin + half * kHalf); }
    __device__ int halfEnd(int half) const { return min(end, begin + (half + 1) * kHalf); }
    __device__ int denseBegin() const { return lo / kHalf * kHalf; }
    __device__ int denseTiles() const {
        return hi <= denseBegin() ? 0 : (hi - denseBegin() + kRows - 1) / kRows;
    }

    __device__ Sight sight(int rowBegin, int rowEnd, int keyBegin, int keyEnd) const {
        Sight s;
        if (rowBegin >= rowEnd || keyBegin >= keyEnd) return s;
        s.causal = keyEnd > l.visibleEnd(rowBegin);
        s.window = keyBegin < l.visibleBegin(rowEnd - 1);
        if (!s.causal && !s.window) {
            s.any = true;
            return s;
        }
        const int row = l.causal ? max(rowBegin, keyBegin - (l.Nk - l.Nq)) : rowBegin;
        s.any = row < rowEnd && l.visibleBegin(row) < keyEnd;
        return s;
    }
    /// Every row sees the keys [keyBegin, keyEnd).
    __device__ bool inside(int keyBegin, int keyEnd) const {
        return l.visibleBegin(end - 1) <= keyBegin && l.visibleEnd(begin) >= keyEnd;
    }
    __device__ void trim(KvTile& tile) const {
        const int last = tile.kind == Pair64 ? tile.b - kHalf : tile.a;
        tile.valid = std::uint16_t(max(0, min(hi - last, int(tile.valid))));
    }
    /// The keys of one column half of a Run128 or Pair64.
    __device__ Range keysOf(const KvTile& tile, int half) const {
        const int from = half == 0 ? tile.a : tile.kind == Pair64 ? tile.b : tile.a + kHalf;
        return {from, from + max(0, min(int(tile.valid) - half * kHalf, kHalf))};
    }
};

// ---- drafting: all lanes of a warp work on one tile

/// What the tiles of a q tile add up to; `nominal` is this lane's part, the rest is alike in all.
struct Tally {
    Word nominal = 0;
    int runs = 0, gatherTiles = 0, quarters = 0, masked = 0;
};

__device__ inline void put(KvTile& tile, Tally& tally) {
    if (tile.own == 0) return;
    if (tile.valid < kTile) tile.mask |= MaskTail;
    const unsigned own = tile.own;
    if (tile.kind == Gather) {
        ++tally.gatherTiles;
        tally.quarters += 2 * __popc((own | own >> 2) & 3u);
    } else {
        ++tally.runs;
        tally.quarters += __popc(own);
    }
    tally.masked += tile.mask != 0;
}

/// A tile whose nominal set is all that its rows see, in the quarters of `own`.
__device__ inline void visibleTile(const QTile& at, KvTile& tile, Tally& tally) {
    const int lane = int(threadIdx.x) % 32;
    at.trim(tile);
    unsigned own = 0;
#pragma unroll
    for (int q = 0; q < 4; ++q) {
        if (!(tile.own >> q & 1)) continue;
        const int begin = at.halfBegin(q & 1), end = at.halfEnd(q & 1);
        const Range k = at.keysOf(tile, q >> 1);
        const Sight s = at.sight(begin, end, k.begin, k.end);
        if (!s.any) continue;
        own |= 1u << q;
        tile.mask |= (s.causal ? MaskCausal : 0u) | (s.window ? MaskWindow : 0u);
        if (!s.causal && !s.window) {
            if (lane == 0) tally.nominal += Word((end - begin) * (k.end - k.begin));
        } else {
            for (int row = begin + lane; row < end; row += 32)
                tally.nominal += Word(max(
                    0, min(k.end, at.l.visibleEnd(row)) - max(k.begin, at.l.visibleBegin(row))));
        }
    }
    tile.own = std::uint8_t(own);
    put(tile, tally);
}

/// @param inside      every row sees every key of the tile
/// @param rowColumns  row -> the columns that it keeps, before the clip to what it sees
/// @param clip        (begin, end) -> the columns whose keys lie in [begin, end)
template <class RowColumns, class Clip>
__device__ inline void kept(const QTile& at, KvTile& tile, Tally& tally, bool inside,
                            const RowColumns& rowColumns, const Clip& clip) {
    const int lane = int(threadIdx.x) % 32;
    const Layer& l = at.l;
    const Columns all = below(tile.valid);
    unsigned own = 0;
    int nominal = 0;
#pragma unroll 1
    for (int i = 0; i < kRows; i += 32) {
        const int row = at.begin + i + lane;
        if (row >= at.end) continue;
        Columns c = rowColumns(row) & all;
        if (!inside) c = c & clip(l.visibleBegin(row), l.visibleEnd(row));
        nominal += c.count();
        own |= (c.low ? 1u : 0u) << (i / kHalf) | (c.high ? 4u : 0u) << (i / kHalf);
    }
    tally.nominal += Word(nominal);
    own = __reduce_or_sync(kAll, own);
    tile.own = std::uint8_t(own);
    if (own == 0) return;
    if (!inside) {
        for (int half = 0; half < 2; ++half) {
            if (!(own >> half & 5)) continue;
            const Columns owned{own >> half & 1 ? all.low : 0, own >> half & 4 ? all.high : 0};
            if (!owned.within(clip(0, l.visibleEnd(at.halfBegin(half))))) tile.mask |= MaskCausal;
            if (!owned.within(clip(l.visibleBegin(at.halfEnd(half) - 1), l.Nk)))
                tile.mask |= MaskWindow;
        }
    }
    put(tile, tally);
}

/// The listed keys, which every row keeps.
__device__ inline void keptGather(const QTile& at, KvTile& tile, Tally& tally, const int* keys) {
    const int count = tile.valid;
    kept(
        at, tile, tally, at.inside(keys[0], keys[count - 1] + 1), [&](int) { return below(count); },
        [&](int begin, int end) {
            return between(lowerBound(keys, count, begin), lowerBound(keys, count, end));
        });
}

/// Key rows [a, a + valid), of which `rowColumns` says what a row keeps.
template <class RowColumns>
__device__ inline void keptRun(const QTile& at, KvTile& tile, Tally& tally,
                               const RowColumns& rowColumns) {
    const int a = tile.a;
    kept(at, tile, tally, at.inside(a, a + tile.valid), rowColumns,
         [&](int begin, int end) { return between(begin - a, end - a); });
}

struct SlashSource {
    KeyBits columns, slashes;  ///< slash offset s is member Nk-1-s, so that keys ascend

    __device__ void run(const QTile& at, KvTile& tile, Tally& tally) const {
        const int from = at.l.Nk - 1 + tile.a;
        const Columns verticals = columns.columns(tile.a);
        keptRun(at, tile, tally,
                [&](int row) { return verticals | slashes.columns(from - at.l.position(row)); });
    }
    /// Whether a row of the q tile keeps the key through a diagonal.
    __device__ bool inRun(const QTile& at, int key) const {
        const Columns hit = slashes.columns(at.l.Nk - 1 - at.l.position(at.end - 1) + key) &
                            below(at.end - at.begin);
        return hit.low || hit.high;
    }
};

struct StreamingSource {
    int sink, window;

    __device__ int windowBegin(const QTile& at, int row) const {
        return at.l.position(row) - window + 1;
    }
    /// Every row keeps the keys of the run.
    __device__ bool keepsAll(const QTile& at, const KvTile& tile) const {
        const int begin = tile.a, end = begin + tile.valid;
        return end <= sink ||
               (begin >= windowBegin(at, at.end - 1) && end <= at.l.position(at.begin) + 1);
    }
    __device__ void run(const QTile& at, KvTile& tile, Tally& tally) const {
        const int a = tile.a;
        const Columns sinks = below(sink - a);
        keptRun(at, tile, tally, [&](int row) {
            return sinks | between(windowBegin(at, row) - a, at.l.position(row) + 1 - a);
        });
    }
};

/// Two key ranges, the first cut into tiles from the left, the second from the right.
struct StreamingRuns {
    int begin[2] = {0, 0}, end[2] = {0, 0};

    __device__ StreamingRuns(const QTile& at, const StreamingSource& s) {
        const int sinkEnd = min(s.sink, at.hi), from = max(s.windowBegin(at, at.begin), at.lo);
        const int to = s.window > 0 ? min(at.l.position(at.end - 1) + 1, at.hi) : 0;
        begin[0] = at.lo;
        end[0] = sinkEnd;
        if (from >= to) return;
        if (from > sinkEnd || sinkEnd <= at.lo) {
            begin[1] = from;
            end[1] = to;
        } else {
            end[0] = max(sinkEnd, to);
        }
    }
    __device__ int tiles(int range) const {
        return (max(0, end[range] - begin[range]) + kRows - 1) / kRows;
    }
    __device__ KvTile tile(int t) const {
        KvTile tile;
        const int left = tiles(0);
        if (t < left) {
            tile.a = begin[0] + t * kRows;
            tile.valid = std::uint16_t(min(kRows, end[0] - tile.a));
        } else {
            const int rest = (end[1] - begin[1] - 1) % kRows + 1;
            tile.a = t == left ? begin[1] : begin[1] + rest + (t - left - 1) * kRows;
            tile.valid = std::uint16_t(t == left ? rest : kRows);
        }
        return tile;
    }
};

// ---- what all threads of a block do together

__device__ inline Word warpSum(Word x) {
    for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(kAll, x, step);
    return x;
}

/// The sum of `x` over the threads before this one and over all; `buffer` has kWarps entries.
__device__ inline int blockPrefix(int x, int& total, int* buffer) {
    const int lane = int(threadIdx.x) % 32, warp = int(threadIdx.x) / 32;
    int sum = x;
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
        const int other = __shfl_up_sync(kAll, sum, unsigned(step));
        if (lane >= step) sum += other;
    }
    __syncthreads();  // the buffer may still be read
    if (lane == 31) buffer[warp] = sum;
    __syncthreads();
    int before = 0;
    total = 0;
    for (int w = 0; w < kWarps; ++w) {
        if (w == warp) before = total;
        total += buffer[w];
    }
    return before + sum - x;
}

struct Waiting {
    int slot, key;
};
struct Block64Space {
    unsigned listed[2][kWarps], byOwn[3][kWarps], starts[kWarps];
    Waiting waiting[3];
};

/// Pairs of 64-blocks with equal owners, what is left by position (layBlocks64), in ascending order
/// of their first key. @return their number, tiles without owner included
__device__ inline int layBlocks64(const QTile& at, const int* rowPtr, int row, int rows,
                                  const int* blocks, KvTile* tiles, Block64Space& s) {
    const int lane = int(threadIdx.x) % 32, warp = int(threadIdx.x) / 32;
    int next[2], last[2];
    for (int half = 0; half < 2; ++half) {
        const bool there = row + half < rows;
        next[half] = there ? rowPtr[row + half] : 0;
        last[half] = there ? rowPtr[row + half + 1] : 0;
    }
    const auto pair = [](int slot, unsigned own, int key, int other, KvTile* to) {
        KvTile tile;
        tile.a = key;
        tile.own = std::uint8_t(own);
        if (other != key + kHalf) {
            tile.kind = Pair64;
            tile.b = other;
        }
        to[slot] = tile;
    };
    int slots = 0, seen[3] = {0, 0, 0};
    // 128 key blocks at a time, one a thread.
    for (int first = 0; first * kHalf < at.hi; first += kThreads) {
        if (threadIdx.x < kWarps) s.listed[0][threadIdx.x] = s.listed[1][threadIdx.x] = 0;
        __syncthreads();
        for (int half = 0; half < 2; ++half) {
            const int i = next[half] + int(threadIdx.x);
            const int block = i < last[half] ? blocks[i] - first : kThreads;
            if (block < kThreads) atomicOr(&s.listed[half][block / 32], 1u << (block % 32));
            next[half] += __syncthreads_count(block < kThreads);
        }
        const int key = (first + int(threadIdx.x)) * kHalf, keyEnd = min(key + kHalf, at.hi);
        unsigned own = 0;
        for (int half = 0; half < 2; ++half)
            if ((s.listed[half][warp] >> lane & 1) &&
                at.sight(at.halfBegin(half), at.halfEnd(half), key, keyEnd).any)
                own |= 1u << half;
        for (unsigned o = 1; o < 4; ++o) {
            const unsigned all = __ballot_sync(kAll, own == o);
            if (lane == 0) s.byOwn[o - 1][warp] = all;
        }
        __syncthreads();
        // The place among those of equal owner; every second one closes a pair.
        int rank = 0, previous = -1, total[3] = {0, 0, 0};
        for (int w = 0; w < kWarps; ++w)
            for (unsigned o = 1; o < 4; ++o) {
                const unsigned all = s.byOwn[o - 1][w];
                total[o - 1] += __popc(all);
                if (o != own || w > warp) continue;
                const unsigned before = w < warp ? all : all & ((1u << lane) - 1);
                rank += __popc(before);
                if (before) previous = w * 32 + 31 - __clz(int(before));
            }
        const bool later = own != 0 && rank + 1 < total[own - 1];
        const bool starts = own != 0 && (seen[own - 1] + rank) % 2 == 0;
        const unsigned allStarts = __ballot_sync(kAll, starts);
        if (lane == 0) s.starts[warp] = allStarts;
        __syncthreads();
        const auto slotOf = [&](int thread) {
            int slot = slots + __popc(s.starts[thread / 32] & ((1u << (thread % 32)) - 1));
            for (int w = 0; w < thread / 32; ++w) slot += __popc(s.starts[w]);
            return slot;
        };
        const unsigned both = own | own << 2;
        if (own != 0 && !starts) {
            if (previous >= 0)
                pair(slotOf(previous), both, (first + previous) * kHalf, key, tiles);
            else
                pair(s.waiting[own - 1].slot, both, s.waiting[own - 1].key, key, tiles);
        }
        __syncthreads();
        if (starts && !later) s.waiting[own - 1] = {slotOf(int(threadIdx.x)), key};
        for (int w = 0; w < kWarps; ++w) slots += __popc(s.starts[w]);
        for (int o = 0; o < 3; ++o) seen[o] += total[o];
        __syncthreads();
    }
    if (threadIdx.x == 0) {
        Waiting left[3];
        unsigned owns[3];
        int count = 0;
        for (int o = 0; o < 3; ++o) {
            if (seen[o] % 2 == 0) continue;
            int i = count++;
            for (; i > 0 && left[i - 1].key > s.waiting[o].key; --i) {
                left[i] = left[i - 1];
                owns[i] = owns[i - 1];
            }
            left[i] = s.waiting[o];
            owns[i] = unsigned(o) + 1;
        }
        if (count >= 2) {
            pair(left[0].slot, owns[0] | owns[1] << 2, left[0].key, left[1].key, tiles);
            KvTile none;
            none.own = 0;
            tiles[left[1].slot] = none;
        }
        if (count % 2 == 1) {
            KvTile tile;
            tile.a = left[count - 1].key;
            tile.own = std::uint8_t(owns[count - 1]);
            tile.valid = kHalf;
            tiles[left[count - 1].slot] = tile;
        }
    }
    return slots;
}

/// The runs of the diagonals, cut into tiles. @return their number
__device__ inline int laySlashes(const QTile& at, const int* clusters, int count, KvTile* tiles,
                                 int* buffer) {
    const int first = at.l.position(at.begin), last = at.l.position(at.end - 1);
    int made = 0;
    for (int base = 0; base < count; base += kThreads) {
        const int i = base + int(threadIdx.x);
        int begin = 0, end = 0;
        if (i < count) {
            begin = max(first - clusters[2 * i], at.lo);
            end = min(last - clusters[2 * i + 1] + 1, at.hi);
        }
        const int pieces = begin < end ? (end - begin + kRows - 1) / kRows : 0;
        int total = 0;
        KvTile* to = tiles + made + blockPrefix(pieces, total, buffer);
        for (; begin < end; begin += kRows) {
            KvTile tile;
            tile.a = begin;
            tile.valid = std::uint16_t(min(kRows, end - begin));
            *to++ = tile;
        }
        made += total;
    }
    return made;
}

/// The columns that lie in no run. @return their number
__device__ inline int listColumns(const QTile& at, const SlashSource& source, const int* columns,
                                  int count, int* keys, int* buffer) {
    int found = 0;
    const int stop = lowerBound(columns, count, at.hi);
    for (int base = lowerBound(columns, count, at.lo); base < stop; base += kThreads) {
        const int i = base + int(threadIdx.x), key = i < stop ? columns[i] : 0;
        const bool listed = i < stop && !source.inRun(at, key);
        int total = 0;
        const int before = blockPrefix(listed, total, buffer);
        if (listed) keys[found + before] = key;
        found += total;
    }
    return found;
}

}  // namespace sparsight::kernels::cuda::drafting
