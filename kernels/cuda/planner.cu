#include "kernels/cuda/planner.h"

#include <cstring>
#include <cub/device/device_radix_sort.cuh>

#include "kernels/base/error.h"
#include "kernels/cuda/planner_draft.cuh"
#include "kernels/plan/heads.h"

// A block drafts the q tile of one distinct mask (planner_draft.cuh) at a place large enough for
// any outcome; prefix sums of the counts say where its tiles and gathered keys belong.
namespace sparsight::kernels::cuda {
namespace {

using namespace drafting;

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
