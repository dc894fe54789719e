#include "kernels/cuda/planner.h"

#include <cstring>
#include <cub/device/device_radix_sort.cuh>

#include "kernels/base/error.h"
#include "kernels/plan/heads.h"

// The CPU planner (kernels/plan.cpp, kernels/plan/*.h) is the definition of every byte; names are
// those of that code. A block of kThreads drafts the q tile of one distinct mask at a place large
// enough for any outcome; prefix sums of the counts say where its tiles and gathered keys belong.
namespace sparsight::kernels::cuda {
namespace {

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
__device__ Word wordBelow(int n) {
    return n <= 0 ? 0 : n >= 64 ? ~Word(0) : (Word(1) << n) - 1;
}
__device__ Columns below(int n) {
    return {wordBelow(n), wordBelow(n - 64)};
}
__device__ Columns between(int begin, int end) {
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
__device__ int lowerBound(const int* list, int count, int x) {
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

__device__ void put(KvTile& tile, Tally& tally) {
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
__device__ void visibleTile(const QTile& at, KvTile& tile, Tally& tally) {
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
__device__ void kept(const QTile& at, KvTile& tile, Tally& tally, bool inside,
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
__device__ void keptGather(const QTile& at, KvTile& tile, Tally& tally, const int* keys) {
    const int count = tile.valid;
    kept(
        at, tile, tally, at.inside(keys[0], keys[count - 1] + 1), [&](int) { return below(count); },
        [&](int begin, int end) {
            return between(lowerBound(keys, count, begin), lowerBound(keys, count, end));
        });
}

/// Key rows [a, a + valid), of which `rowColumns` says what a row keeps.
template <class RowColumns>
__device__ void keptRun(const QTile& at, KvTile& tile, Tally& tally, const RowColumns& rowColumns) {
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

__device__ Word warpSum(Word x) {
    for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(kAll, x, step);
    return x;
}

/// The sum of `x` over the threads before this one and over all; `buffer` has kWarps entries.
__device__ int blockPrefix(int x, int& total, int* buffer) {
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
__device__ int layBlocks64(const QTile& at, const int* rowPtr, int row, int rows, const int* blocks,
                           KvTile* tiles, Block64Space& s) {
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
__device__ int laySlashes(const QTile& at, const int* clusters, int count, KvTile* tiles,
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
__device__ int listColumns(const QTile& at, const SlashSource& source, const int* columns,
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

/// Everything that planItems reads and writes on the device.
struct Space {
    const Mask* masks;
    const int* source;   ///< [Hq] head -> distinct mask
    const int* numbers;  ///< the lists of all masks
    Word* bits;
    int words;  ///< of one bit set
    int qtiles, distinct;
    int* denseQuarters;  ///< [qtiles]
    KvTile* staged;      ///< runs, then gathers with their first key in `b`
    int* stagedKeys;
    Item* items;     ///< [distinct][qtiles]
    Word* first;     ///< [distinct][qtiles] tiles before it << 32 | gathered keys before it
    int* kvRank;     ///< [Hkv]
    int* kvLongest;  ///< [Hkv]
    Totals* totals;
    Sums* sums;  ///< [distinct]

    __device__ KvTile* tilesOf(const Mask& m, int q) const {
        if (m.kind == Kind::Blocks128) return staged + m.tiles + numbers[m.rowPtr + q];
        if (m.kind == Kind::Blocks64)  // half of the two lists, and one more where owners differ
            return staged + m.tiles + numbers[m.rowPtr + 2 * q] / 2 + 2 * Index(q);
        return staged + m.tiles + Index(q) * m.perTile;
    }
    __device__ int* keysOf(const Mask& m, int q) const {
        return stagedKeys + m.gathers + Index(q) * m.gathersPerTile;
    }
    __device__ SlashSource slashOf(const Mask& m) const {
        return {{bits + m.columnBits, words}, {bits + m.slashBits, words}};
    }
};

/// One block per q tile counts what the dense plan executes; one per mask makes its bit sets.
__global__ void __launch_bounds__(kThreads) prepare(Layer l, Space s) {
    const int q = int(blockIdx.x) - s.distinct;
    if (q < 0) {
        const Mask& m = s.masks[blockIdx.x];
        if (m.kind != Kind::Slash) return;
        const auto set = [&](Index words, int member) {
            atomicOr(s.bits + words + (member >> 6), Word(1) << (member & 63));
        };
        for (int i = int(threadIdx.x); i < m.columnCount; i += kThreads)
            set(m.columnBits, s.numbers[m.columns + i]);
        for (int i = int(threadIdx.x); i < m.diagonalCount; i += kThreads)
            set(m.slashBits, l.Nk - 1 - s.numbers[m.diagonals + i]);
        return;
    }
    __shared__ int quarters;
    __shared__ Word pairs;
    if (threadIdx.x == 0) {
        quarters = 0;
        pairs = 0;
    }
    __syncthreads();
    const QTile at(l, q);
    int mine = 0;
    for (int t = int(threadIdx.x); t < at.denseTiles(); t += kThreads) {
        KvTile tile;
        tile.a = at.denseBegin() + t * kRows;
        at.trim(tile);
        for (int i = 0; i < 4; ++i) {
            const Range k = at.keysOf(tile, i >> 1);
            mine += at.sight(at.halfBegin(i & 1), at.halfEnd(i & 1), k.begin, k.end).any;
        }
    }
    atomicAdd(&quarters, mine);
    const int row = at.begin + int(threadIdx.x);
    const Word seen =
        warpSum(row < at.end ? Word(l.visibleEnd(row) - l.visibleBegin(row)) : Word(0));
    if (threadIdx.x % 32 == 0) atomicAdd(&pairs, seen);
    __syncthreads();
    if (threadIdx.x != 0) return;
    s.denseQuarters[q] = quarters;
    atomicAdd(&s.totals->validQuarters, Word(quarters));
    atomicAdd(&s.totals->validPairs, pairs);
}

struct BlockSums {
    Word nominal;
    int runs, gatherTiles, quarters, masked;
};

__global__ void __launch_bounds__(kThreads, 8) planItems(Layer l, Space s) {
    __shared__ int buffer[kWarps];
    __shared__ Block64Space block64;
    __shared__ BlockSums sums;
    // The longest q tiles first.
    const int q = int(gridDim.x - 1 - blockIdx.x), lane = int(threadIdx.x) % 32;
    const Mask& m = s.masks[blockIdx.y];
    const QTile at(l, q);
    KvTile* const tiles = s.tilesOf(m, q);
    int* const keys = s.keysOf(m, q);
    const SlashSource slash = s.slashOf(m);
    const StreamingSource streaming{m.sink, m.window};

    const StreamingRuns streamed(at, streaming);
    const int* blocks = s.numbers + m.blocks;
    int runs = 0, gathered = 0;
    if (m.kind == Kind::Dense) {
        runs = at.denseTiles();
    } else if (m.kind == Kind::Streaming) {
        runs = streamed.tiles(0) + streamed.tiles(1);
    } else if (m.kind == Kind::Blocks128) {
        const int* rowPtr = s.numbers + m.rowPtr + q;
        blocks += rowPtr[0];
        runs = lowerBound(blocks, rowPtr[1] - rowPtr[0], (at.hi + kRows - 1) / kRows);
    } else if (m.kind == Kind::Blocks64) {
        runs = layBlocks64(at, s.numbers + m.rowPtr, 2 * q, (l.Nq + kHalf - 1) / kHalf, blocks,
                           tiles, block64);
    } else {
        const int last = at.end - at.begin < kRows;
        runs = laySlashes(at, s.numbers + m.clusters[last], m.clusterCount[last], tiles, buffer);
        gathered = listColumns(at, slash, s.numbers + m.columns, m.columnCount, keys, buffer);
    }

    /// One tile, by all lanes of a warp. @param grid on the grid of the dense plan
    const auto draft = [&](int t, bool grid, Tally& tally) {
        KvTile tile;
        if (grid || m.kind == Kind::Dense) {
            tile.a = at.denseBegin() + t * kRows;
            tile.valid = std::uint16_t(min(kRows, at.hi - tile.a));
        } else if (t >= runs) {
            tile.kind = Gather;
            tile.a = (t - runs) * kRows;
            tile.valid = std::uint16_t(min(kRows, gathered - tile.a));
            tile.b = keys[tile.a];
        } else if (m.kind == Kind::Streaming) {
            tile = streamed.tile(t);
        } else if (m.kind == Kind::Blocks128) {
            tile.a = blocks[t] * kRows;
        } else {
            tile = tiles[t];
        }
        if (tile.kind == Gather)
            keptGather(at, tile, tally, keys + tile.a);
        else if (m.kind == Kind::Slash)
            slash.run(at, tile, tally);
        else if (m.kind == Kind::Streaming && !streaming.keepsAll(at, tile))
            streaming.run(at, tile, tally);
        else
            visibleTile(at, tile, tally);
        return tile;
    };
    const bool sourced = m.kind == Kind::Streaming || m.kind == Kind::Slash;
    int n = runs + (gathered + kRows - 1) / kRows;
    for (bool grid = false;; grid = true) {
        __syncthreads();
        if (threadIdx.x == 0) sums = {};
        __syncthreads();
        Tally tally;
        for (int t = int(threadIdx.x) / 32; t < n; t += kWarps) {
            const KvTile tile = draft(t, grid, tally);
            __syncwarp();  // the draft may have begun in the same place
            if (lane == 0) tiles[t] = tile;
        }
        const Word nominal = warpSum(tally.nominal);
        if (lane == 0) {
            atomicAdd(&sums.nominal, nominal);
            atomicAdd(&sums.runs, tally.runs);
            atomicAdd(&sums.gatherTiles, tally.gatherTiles);
            atomicAdd(&sums.quarters, tally.quarters);
            atomicAdd(&sums.masked, tally.masked);
        }
        __syncthreads();
        // Runs at free places may touch more quarters than the grid of the dense plan has.
        if (!sourced || grid || sums.quarters <= s.denseQuarters[q]) break;
        gathered = 0;
        n = at.denseTiles();
    }
    const int count = sums.runs + sums.gatherTiles;
    if (count < n) {  // close the gaps that tiles without owner leave
        int to = 0;
        for (int base = 0; base < n; base += kThreads) {
            const int t = base + int(threadIdx.x);
            KvTile tile;
            tile.own = 0;
            if (t < n) tile = tiles[t];
            int total = 0;
            const int before = blockPrefix(tile.own != 0, total, buffer);
            if (tile.own != 0) tiles[to + before] = tile;
            to += total;
        }
    }
    if (threadIdx.x != 0) return;
    const Item item{sums.runs, sums.gatherTiles, gathered,
                    150 + 100 * sums.runs + 115 * sums.gatherTiles + 10 * sums.masked};
    s.items[Index(blockIdx.y) * s.qtiles + q] = item;
    Sums& of = s.sums[blockIdx.y];
    atomicAdd(&of.nominal, sums.nominal);
    atomicAdd(&of.quarters, Word(sums.quarters));
    atomicAdd(&of.tiles, Word(count));
    atomicMax(&of.longest, Word(item.cost));
}

/// One block: where the tiles and keys of each item belong, and the order of the key/value heads.
__global__ void __launch_bounds__(kScanThreads) placeItems(Layer l, Space s) {
    __shared__ Word warps[kScanThreads / 32];
    const int lane = int(threadIdx.x) % 32, warp = int(threadIdx.x) / 32;
    const Index items = Index(s.distinct) * s.qtiles;
    Word before = 0;
    for (Index base = 0; base < items; base += kScanThreads) {
        const Index i = base + threadIdx.x;
        Word mine = 0;
        if (i < items) {
            const Item item = s.items[i];
            mine = Word(item.runs + item.gatherTiles) << 32 | Word(item.gathered);
        }
        Word sum = mine;
        for (int step = 1; step < 32; step *= 2) {
            const Word other = __shfl_up_sync(kAll, sum, unsigned(step));
            if (lane >= step) sum += other;
        }
        if (lane == 31) warps[warp] = sum;
        __syncthreads();
        Word all = warps[lane];
        for (int step = 1; step < 32; step *= 2) {
            const Word other = __shfl_up_sync(kAll, all, unsigned(step));
            if (lane >= step) all += other;
        }
        const Word earlier = __shfl_sync(kAll, all, max(0, warp - 1));
        if (i < items) s.first[i] = before + (warp > 0 ? earlier : 0) + sum - mine;
        before += __shfl_sync(kAll, all, 31);
        __syncthreads();
    }
    if (threadIdx.x == 0) {
        s.totals->tiles = before >> 32;
        s.totals->gathered = before & 0xffffffffu;
    }
    const int group = l.Hq / l.Hkv;
    for (int kv = int(threadIdx.x); kv < l.Hkv; kv += kScanThreads) {
        Word longest = 0;
        for (int h = kv * group; h < (kv + 1) * group; ++h)
            longest = max(longest, s.sums[s.source[h]].longest);
        s.kvLongest[kv] = int(longest);
    }
    __syncthreads();
    for (int kv = int(threadIdx.x); kv < l.Hkv; kv += kScanThreads) {
        int rank = 0;
        for (int other = 0; other < l.Hkv; ++other)
            rank += s.kvLongest[other] > s.kvLongest[kv] ||
                    (s.kvLongest[other] == s.kvLongest[kv] && other < kv);
        s.kvRank[kv] = rank;
    }
}

/// One block per item brings its tiles and keys to their places, ordered by first key.
__global__ void __launch_bounds__(kThreads) placeTiles(Space s, KvTile* tiles, int* gather) {
    const int q = int(blockIdx.x);
    const Index i = Index(blockIdx.y) * s.qtiles + q;
    const Mask& m = s.masks[blockIdx.y];
    const KvTile* from = s.tilesOf(m, q);
    const int* keys = s.keysOf(m, q);
    const Item item = s.items[i];
    KvTile* const to = tiles + (s.first[i] >> 32);
    const int base = int(s.first[i] & 0xffffffffu);
    const auto firstKey = [&](int t) { return t < item.runs ? from[t].a : from[t].b; };
    for (int t = int(threadIdx.x); t < item.runs + item.gatherTiles; t += kThreads) {
        KvTile tile = from[t];
        const bool gathers = t >= item.runs;
        const int key = firstKey(t);
        // Tiles of the other sort that stand before; runs before gathers of the same key.
        int begin = gathers ? 0 : item.runs, count = gathers ? item.runs : item.gatherTiles;
        const int start = begin;
        while (count > 0) {
            const int step = count / 2, other = firstKey(begin + step);
            if (other < key || (gathers && other == key)) {
                begin += step + 1;
                count -= step + 1;
            } else {
                count = step;
            }
        }
        if (gathers) {
            tile.a += base;
            tile.b = 0;
        }
        to[(gathers ? t - item.runs : t) + begin - start] = tile;
    }
    for (int k = int(threadIdx.x); k < item.gathered; k += kThreads) gather[base + k] = keys[k];
}

/// Sort keys of all (head, q tile): the key/value head, then the largest cost first.
__global__ void keysOfWork(Layer l, Space s, int costBits, Word* keys, int* values) {
    const Index i = Index(blockIdx.x) * kThreads + threadIdx.x;
    if (i >= Index(l.Hq) * s.qtiles) return;
    const int head = int(i / s.qtiles), q = int(i % s.qtiles);
    const Item item = s.items[Index(s.source[head]) * s.qtiles + q];
    const Word most = (Word(1) << costBits) - 1;
    keys[i] = Word(s.kvRank[l.kvHead(head)]) << costBits | (most - Word(item.cost));
    values[i] = int(i);
}

__global__ void writeWork(Layer l, Space s, const int* values, WorkItem* work) {
    const Index i = Index(blockIdx.x) * kThreads + threadIdx.x;
    if (i >= Index(l.Hq) * s.qtiles) return;
    const int head = values[i] / s.qtiles, q = values[i] % s.qtiles;
    const Index at = Index(s.source[head]) * s.qtiles + q;
    work[i] = {head, q, int(s.first[at] >> 32), s.items[at].runs + s.items[at].gatherTiles};
}

// ---- the host's part

Index ceilDiv(Index a, Index b) {
    return (a + b - 1) / b;
}

/// Parts of one piece of memory, each on 256 bytes.
class Parts {
public:
    template <class T>
    Index add(Index count) {
        const Index at = m_bytes;
        m_bytes += ceilDiv(std::max<Index>(1, count) * Index(sizeof(T)), 256) * 256;
        return at;
    }
    Index bytes() const { return m_bytes; }

private:
    Index m_bytes = 0;
};

/// The masks as they are sent, and how much room their results need at most.
struct Outline {
    std::vector<Mask> masks;
    std::vector<std::int32_t> numbers;  ///< room for masks and sources first, then lists
    Index tiles = 0, gathers = 0, words = 0, longest = 0;
    bool anyGather = false;
    Index shared = 0, alone = 0;  ///< tiles of both halves of the rows, of one (estimated)
};

class Outliner {
public:
    Outliner(const Problem& problem, Index bitWords, Outline& out)
        : m_p(problem),
          m_out(out),
          m_words(bitWords),
          m_qtiles(ceilDiv(problem.Nq, kTile)),
          m_lastRows(problem.Nq - (m_qtiles - 1) * kTile) {
        m_denseTiles = ceilDiv(problem.Nk, kTile);
        if (problem.causal && problem.window > 0)
            m_denseTiles = std::min(m_denseTiles, ceilDiv(problem.window + kTile + kHalf, kTile));
    }

    void operator()(const Dense&) {
        Mask m;
        place(m, m_denseTiles, m_denseTiles);
    }
    void operator()(const Streaming& s) {
        Mask m;
        m.kind = Kind::Streaming;
        m.sink = int(std::min(s.sink, m_p.Nk));
        m.window = int(std::min(s.window, m_p.Nk + m_p.Nq));
        const Index pieces = ceilDiv(m.sink, kTile) + ceilDiv(m.window + kTile - 1, kTile) + 1;
        place(m, std::min(pieces, m_denseTiles + 2), std::min(pieces, m_denseTiles + 2));
    }
    void operator()(const BlockList& list) {
        Mask m;
        m.kind = list.block == kHalf ? Kind::Blocks64 : Kind::Blocks128;
        m.rowPtr = send(list.rowPtr);
        m.blocks = send(list.col);
        m.tiles = m_out.tiles;
        const auto blocks = Index(list.col.size());
        m_out.tiles += m.kind == Kind::Blocks64 ? blocks / 2 + 2 * m_qtiles : blocks;
        m_out.longest = std::max(m_out.longest, ceilDiv(m_p.Nk, kTile) + 2);
        m.kind == Kind::Blocks64 ? estimate(list) : halves(blocks);
        m_out.masks.push_back(m);
    }
    void operator()(const VerticalSlash& vs) {
        Mask m;
        m.kind = Kind::Slash;
        m.columns = send(vs.cols);
        m.columnCount = int(vs.cols.size());
        m.diagonals = send(vs.diags);
        m.diagonalCount = int(vs.diags.size());
        m.columnBits = m_out.words;
        m.slashBits = m_out.words + m_words;
        m_out.words += 2 * m_words;
        const Index gathers = ceilDiv(m.columnCount, kTile);
        const Index full = m_p.Nq >= kTile ? cluster(vs, kTile, m, 0) + gathers : 0;
        const Index last = m_lastRows < kTile ? cluster(vs, m_lastRows, m, 1) + gathers : full;
        Index keys = m.columnCount;
        if (m_p.causal && m_p.window > 0) keys = std::min(keys, m_p.window + kTile - 1);
        m.gathersPerTile = int(keys);
        m.gathers = m_out.gathers;
        m_out.gathers += keys * m_qtiles;
        m_out.anyGather = m_out.anyGather || m.columnCount > 0;
        place(m, full, last);
    }
    void operator()(const RowRanges&) {}

private:
    int send(const std::vector<std::int32_t>& list) {
        const auto at = m_out.numbers.size();
        m_out.numbers.insert(m_out.numbers.end(), list.begin(), list.end());
        return int(at);
    }
    /// Diagonals whose runs of `rows` keys touch, as (largest, smallest) offset, so that the runs
    /// ascend. @return tiles at most
    Index cluster(const VerticalSlash& vs, Index rows, Mask& m, int which) {
        m.clusters[which] = int(m_out.numbers.size());
        Index tiles = 0;
        for (auto s = vs.diags.rbegin(); s != vs.diags.rend();) {
            const std::int32_t largest = *s;
            std::int32_t smallest = largest;
            for (++s; s != vs.diags.rend() && smallest - *s <= rows; ++s) smallest = *s;
            m_out.numbers.push_back(largest);
            m_out.numbers.push_back(smallest);
            tiles += ceilDiv(largest - smallest + rows, kTile);
            ++m.clusterCount[which];
        }
        return tiles;
    }
    /// @param full, last  tiles at most of a full q tile, of the last one
    void place(Mask& m, Index full, Index last) {
        // A draft that gives way to the dense grid has at most one tile less than the grid: that
        // has all but one quarter for each half of the rows.
        full = std::max(full, std::min(full + 2, m_denseTiles));
        last = std::max(last, std::min(last + 2, m_denseTiles));
        m.perTile = int(full);
        m.tiles = m_out.tiles;
        m_out.tiles += (m_qtiles - 1) * full + last;
        m_out.longest = std::max({m_out.longest, full, last});
        halves((m_qtiles - 1) * full + last);
        m_out.masks.push_back(m);
    }
    /// Tiles of which only those of a last q tile of one half concern one.
    void halves(Index tiles) {
        const Index one = m_lastRows <= kHalf ? tiles / m_qtiles : 0;
        m_out.alone += one;
        m_out.shared += tiles - one;
    }
    /// The same for 64-blocks, from some of the q tiles.
    void estimate(const BlockList& list) {
        const auto rows = Index(list.rowPtr.size()) - 1;
        const auto begin = [&](Index row) {
            return list.col.begin() + list.rowPtr[std::size_t(std::min(row, rows))];
        };
        const Index step = std::max<Index>(1, m_qtiles / 8);
        for (Index q = 0; q < m_qtiles; q += step) {
            const auto end = begin(2 * q + 1), last = begin(2 * q + 2);
            Index both = 0;
            auto lower = end;
            for (auto upper = begin(2 * q); upper != end; ++upper) {
                while (lower != last && *lower < *upper) ++lower;
                both += lower != last && *lower == *upper;
            }
            m_out.shared += step * both;
            m_out.alone += step * (Index(last - begin(2 * q)) - 2 * both);
        }
    }

    const Problem& m_p;
    Outline& m_out;
    Index m_words, m_qtiles, m_lastRows, m_denseTiles = 0;
};

int bitsFor(Index values) {
    int bits = 0;
    while (Index(1) << bits < values) ++bits;
    return bits;
}

void launched() {
    check(cudaGetLastError(), "planning");
}

}  // namespace

bool plansOnDevice(std::span<const Policy> perHead, PlanMode mode) {
    return mode == PlanMode::Tile &&
           std::none_of(perHead.begin(), perHead.end(),
                        [](const auto& p) { return std::holds_alternative<RowRanges>(p); });
}

PlannedOnDevice buildPlan(const Problem& problem, std::span<const Policy> perHead,
                          cudaStream_t stream) {
    if (!plansOnDevice(perHead, PlanMode::Tile))
        throw Error(Errc::Unsupported,
                    "plan: lists of key ranges are planned on the CPU, not on the GPU");
    const planner::DistinctPolicies heads(problem, perHead);
    if (problem.Nq + problem.Nk > Index(1) << 30)
        throw Error(Errc::Unsupported, "plan: " + std::to_string(problem.Nq) + " queries on " +
                                           std::to_string(problem.Nk) +
                                           " keys are planned on the CPU, not on the GPU");
    Layer layer;
    layer.Hq = int(problem.Hq);
    layer.Hkv = int(problem.Hkv);
    layer.Nq = int(problem.Nq);
    layer.Nk = int(problem.Nk);
    layer.causal = problem.causal;
    layer.window = int(std::min(problem.window, problem.Nq + problem.Nk));

    const auto distinct = Index(heads.policies.size());
    const Index qtiles = ceilDiv(problem.Nq, kTile), items = problem.Hq * qtiles;
    if (items > INT32_MAX || distinct > 65535)
        throw Error(Errc::Unsupported, "plan: " + std::to_string(problem.Hq) + " heads of " +
                                           std::to_string(problem.Nq) +
                                           " queries are planned on the CPU, not on the GPU");
    PlannedOnDevice out;
    out.m_stream = stream;
    out.m_distinct = distinct;
    out.m_source.assign(heads.source.begin(), heads.source.end());
    Space s{};
    s.qtiles = int(qtiles);
    s.distinct = int(distinct);
    s.words = int(ceilDiv(problem.Nk, 64));

    // One piece is sent: the masks, the heads' numbers of masks, all lists.
    Outline outline;
    const std::size_t maskNumbers = std::size_t(distinct) * sizeof(Mask) / 4;
    std::size_t room = maskNumbers + out.m_source.size();
    for (const Policy* policy : heads.policies) {
        if (const auto* list = std::get_if<BlockList>(policy))
            room += list->rowPtr.size() + list->col.size();
        if (const auto* vs = std::get_if<VerticalSlash>(policy))
            room += vs->cols.size() + 5 * vs->diags.size();
    }
    outline.numbers.reserve(room);
    outline.numbers.resize(maskNumbers);
    outline.numbers.insert(outline.numbers.end(), out.m_source.begin(), out.m_source.end());
    if (qtiles > 0) {
        Outliner outliner(problem, s.words, outline);
        for (const Policy* policy : heads.policies) std::visit(outliner, *policy);
        std::memcpy(outline.numbers.data(), outline.masks.data(), maskNumbers * 4);
    }
    if (outline.tiles > INT32_MAX || outline.gathers > INT32_MAX)
        throw Error(Errc::Resources,
                    "plan: the tile lists may need more than 32 GB on the GPU; plan fewer heads at "
                    "a time");

    Parts result;
    const Index totals = result.add<Totals>(1);
    const Index sums = totals + Index(sizeof(Totals));
    result.add<Sums>(distinct + 1);
    const Index cleared = result.bytes();
    const Index tiles = result.add<KvTile>(outline.tiles);
    const Index gather = result.add<int>(outline.gathers);
    const Index work = result.add<WorkItem>(items);
    out.m_memory = Scratch(result.bytes(), stream);
    char* const memory = out.m_memory.as<char>();
    out.m_plan.tiles = reinterpret_cast<KvTile*>(memory + tiles);
    out.m_plan.gather = reinterpret_cast<int*>(memory + gather);
    out.m_plan.work = reinterpret_cast<WorkItem*>(memory + work);
    out.m_plan.workCount = int(items);
    out.m_plan.gathers = outline.anyGather;
    out.m_plan.shared = 8 * outline.alone <= outline.alone + outline.shared;
    out.m_numbers = reinterpret_cast<const Index*>(memory + totals);
    check(cudaMemsetAsync(memory, 0, std::size_t(cleared), stream), "planning");
    if (qtiles == 0 || distinct == 0) return out;

    const int costBits = bitsFor(150 + 125 * outline.longest + 1);
    const int keyBits = costBits + bitsFor(problem.Hkv);
    std::size_t sortBytes = 0;
    check(
        cub::DeviceRadixSort::SortPairs(nullptr, sortBytes, static_cast<Word*>(nullptr),
                                        static_cast<Word*>(nullptr), static_cast<int*>(nullptr),
                                        static_cast<int*>(nullptr), int(items), 0, keyBits, stream),
        "planning");
    Parts parts;
    const Index bits = parts.add<Word>(outline.words);
    const Index sent = parts.add<int>(Index(outline.numbers.size()));
    const Index quarters = parts.add<int>(qtiles);
    const Index staged = parts.add<KvTile>(outline.tiles);
    const Index stagedKeys = parts.add<int>(outline.gathers);
    const Index itemsAt = parts.add<Item>(distinct * qtiles);
    const Index first = parts.add<Word>(distinct * qtiles);
    const Index kv = parts.add<int>(2 * problem.Hkv);
    const Index keys = parts.add<Word>(2 * items);
    const Index values = parts.add<int>(2 * items);
    const Index sorting = parts.add<char>(Index(sortBytes));
    const Scratch scratch(parts.bytes(), stream);
    char* const there = scratch.as<char>();
    s.bits = reinterpret_cast<Word*>(there + bits);
    s.masks = reinterpret_cast<const Mask*>(there + sent);
    s.numbers = reinterpret_cast<const int*>(there + sent);
    s.source = s.numbers + maskNumbers;
    s.denseQuarters = reinterpret_cast<int*>(there + quarters);
    s.staged = reinterpret_cast<KvTile*>(there + staged);
    s.stagedKeys = reinterpret_cast<int*>(there + stagedKeys);
    s.items = reinterpret_cast<Item*>(there + itemsAt);
    s.first = reinterpret_cast<Word*>(there + first);
    s.kvRank = reinterpret_cast<int*>(there + kv);
    s.kvLongest = s.kvRank + problem.Hkv;
    s.totals = reinterpret_cast<Totals*>(memory + totals);
    s.sums = reinterpret_cast<Sums*>(memory + sums);
    auto* const sortKeys = reinterpret_cast<Word*>(there + keys);
    auto* const sortValues = reinterpret_cast<int*>(there + values);

    if (outline.words > 0)
        check(cudaMemsetAsync(s.bits, 0, std::size_t(outline.words) * sizeof(Word), stream),
              "planning");
    check(cudaMemcpyAsync(there + sent, outline.numbers.data(), outline.numbers.size() * 4,
                          cudaMemcpyHostToDevice, stream),
          "sending masks");
    const dim3 grid{unsigned(qtiles), unsigned(distinct)};
    prepare<<<unsigned(distinct + qtiles), kThreads, 0, stream>>>(layer, s);
    launched();
    planItems<<<grid, kThreads, 0, stream>>>(layer, s);
    launched();
    placeItems<<<1, kScanThreads, 0, stream>>>(layer, s);
    launched();
    placeTiles<<<grid, kThreads, 0, stream>>>(s, reinterpret_cast<KvTile*>(memory + tiles),
                                              reinterpret_cast<int*>(memory + gather));
    launched();
    if (items == 0) return out;
    const auto blocks = unsigned(ceilDiv(items, kThreads));
    keysOfWork<<<blocks, kThreads, 0, stream>>>(layer, s, costBits, sortKeys, sortValues);
    launched();
    check(cub::DeviceRadixSort::SortPairs(there + sorting, sortBytes, sortKeys, sortKeys + items,
                                          sortValues, sortValues + items, int(items), 0, keyBits,
                                          stream),
          "planning");
    writeWork<<<blocks, kThreads, 0, stream>>>(layer, s, sortValues + items,
                                               reinterpret_cast<WorkItem*>(memory + work));
    launched();
    return out;
}

std::vector<Index> PlannedOnDevice::numbers() const {
    std::vector<Index> all((sizeof(Totals) + std::size_t(m_distinct) * sizeof(Sums)) /
                           sizeof(Index));
    check(cudaMemcpyAsync(all.data(), m_numbers, all.size() * sizeof(Index), cudaMemcpyDeviceToHost,
                          m_stream),
          "copying a plan");
    check(cudaStreamSynchronize(m_stream), "planning");
    return all;
}

PlanStats PlannedOnDevice::stats() const {
    const std::vector<Index> all = numbers();
    PlanStats stats;
    stats.validPairs = all[0];
    stats.validQuarters = all[1];
    for (const std::int32_t source : m_source) {
        const Index* sums = all.data() + (sizeof(Totals) + std::size_t(source) * sizeof(Sums)) / 8;
        stats.nominalPairs.push_back(sums[0]);
        stats.executedQuarters.push_back(sums[1]);
        stats.tiles.push_back(sums[2]);
    }
    return stats;
}

Plan PlannedOnDevice::toHost() const {
    Plan plan;
    plan.mode = PlanMode::Tile;
    plan.stats = stats();
    const std::vector<Index> all = numbers();
    plan.tiles.resize(std::size_t(all[2]));
    plan.gather.resize(std::size_t(all[3]));
    plan.work.resize(std::size_t(m_plan.workCount));
    plan.bitsOffset.assign(plan.tiles.size(), -1);
    const auto bring = [&](auto& to, const auto* from) {
        check(cudaMemcpyAsync(to.data(), from, to.size() * sizeof(to[0]), cudaMemcpyDeviceToHost,
                              m_stream),
              "copying a plan");
    };
    bring(plan.tiles, m_plan.tiles);
    bring(plan.gather, m_plan.gather);
    bring(plan.work, m_plan.work);
    check(cudaStreamSynchronize(m_stream), "copying a plan");
    return plan;
}

}  // namespace sparsight::kernels::cuda
