#pragma once

#include <cstring>

#include "kernels/cuda/hopper_launch.h"
#include "kernels/cuda/hopper_pipeline.cuh"

/// The producer of the forward kernel: which tiles come next, and their way into shared memory.
namespace sparsight::kernels::cuda::hopper {

/// Shapes of one instantiation. A KvTile is walked in sub-tiles of `kKeys` keys.
template <int Width, Want W>
struct Shape {
    static constexpr bool kValues = W == Want::Output;
    static constexpr int kKeys = Width == 256 ? 64 : 128;
    static constexpr int kParts = kTokens / kKeys;
    static constexpr int kStages = !kValues || Width == 64 ? 4 : 2;  ///< of K, soon free again
    static constexpr int kVStages = Width == 64 ? 4 : Width == 128 ? 3 : 2;
    static constexpr int kQStages = Width == 256 ? 1 : 2;
    static constexpr bool kLooksAhead = Width < 256;  ///< steps tell of the one that follows
    // Registers of a thread: 504 in all.
    static constexpr int kProducerRegisters = kLooksAhead ? 88 : 72;
    static constexpr int kConsumerRegisters = kLooksAhead ? 208 : 216;
    /// Results leave through the stage of their queries.
    static constexpr bool kStaged = kValues && kQStages == 2;
    static constexpr int kQBytes = tileBytes(kTokens, Width);
    static constexpr int kKvBytes = tileBytes(kKeys, Width);
    static constexpr int kBytes =
        kQStages * kQBytes + (kStages + (kValues ? kVStages : 0)) * kKvBytes + 1024 /* alignment */;
};

/// What the consumers need to know of one stage.
struct Step {
    KvTile tile;
    std::int32_t head, qtile, batch, bits;
    std::uint32_t flags;
    std::int32_t part;  ///< sub-tile of the tile
    std::int32_t pad[2];
};

template <class S>
struct Barriers {
    Step step[S::kStages];
    std::uint64_t kFull[S::kStages], kEmpty[S::kStages], vFull[S::kVStages], vEmpty[S::kVStages];
    std::uint64_t qFull[S::kQStages], qEmpty[S::kQStages];
    int taken;          ///< work item that the producers share
    int keys[kTokens];  ///< of the gathered tile that the producers copy
};

/// The listed rows of a Gather tile, copied by the four producer warps into the swizzled layout.
/// @param keys  of the rows, in shared memory; -1 = a row of zeros
template <int Width, int Keys>
__device__ inline void gatherRows(std::uint32_t tile, const char* rows, std::uint32_t rowBytes,
                                  const int* keys) {
    constexpr int kPieces = Width / 8;  // of 16 bytes in a row; lanes of a row stand side by side
    const int piece = int(threadIdx.x) % kPieces;
    const std::uint32_t chunk = tile + std::uint32_t(piece / 8 * Keys * kRowBytes);
    rows += piece * 16;
#pragma unroll 2
    for (int r = int(threadIdx.x) / kPieces; r < Keys; r += 128 / kPieces) {
        const int key = keys[r];
        ptx::copy16(chunk + std::uint32_t(r * kRowBytes + ((piece ^ r) & 7) * 16),
                    rows + std::uint64_t(unsigned(max(key, 0))) * rowBytes, key >= 0);
    }
}

/// The tiles of a work item, read by a warp 32 at a time. Of tiles that concern one warpgroup alone
/// those of either come in turn: then both have work while their keys arrive.
class TileReader {
public:
    __device__ TileReader(const KvTile* tiles, int count) : m_tiles(tiles), m_count(count) {}

    __device__ KvTile next(int& index) {
        if (m_left == 0) read();
        const unsigned bit = nextLane();
        const int lane = __ffs(int(bit)) - 1;
        m_left &= ~bit;
        m_avoid = m_first & bit ? m_first : m_second & bit ? m_second : 0;
        index = m_base + lane;
        KvTile tile;
        std::uint32_t words[4];
        std::memcpy(words, &m_mine, sizeof words);
#pragma unroll
        for (std::uint32_t& word : words) word = __shfl_sync(~0u, word, lane);
        std::memcpy(&tile, words, sizeof tile);
        return tile;
    }

    /// The warpgroups that the tile to come concerns, as two bits; both where that is not known
    /// yet.
    __device__ unsigned nextUsers() const {
        const unsigned next = nextLane();
        return m_first & next ? 1 : m_second & next ? 2 : 3;
    }

private:
    /// The bit of the tile to come, 0 before the next are read.
    __device__ unsigned nextLane() const {
        const unsigned fit = m_left & ~m_avoid, from = fit ? fit : m_left;
        return from & (0 - from);
    }
    __device__ void read() {
        m_base += 32;
        const int lane = int(threadIdx.x) % 32, n = m_count - m_base;
        m_mine = lane < n ? m_tiles[m_base + lane] : KvTile{};
        const unsigned users = (m_mine.own | m_mine.own >> 2) & 3;
        m_left = __ballot_sync(~0u, lane < n);
        m_first = __ballot_sync(~0u, lane < n && users == 1);
        m_second = __ballot_sync(~0u, lane < n && users == 2);
        m_avoid = 0;
    }

    const KvTile* m_tiles;
    int m_count, m_base = -32;
    unsigned m_left = 0, m_first = 0, m_second = 0;  ///< lanes that hold tiles still to come; tiles
                                                     ///< of one warpgroup alone
    unsigned m_avoid = 0;
    KvTile m_mine;
};

constexpr int kProducerBarrier = 3;  ///< named barrier of the producer warps

/// Walks the work: Q, K and V of every step into the rings. One warp does it; where the plan has
/// gathered tiles all four do, since the copy engine cannot gather.
template <class S, int Width>
__device__ inline void produce(const ForwardArgs& a, const CUtensorMap* qMap,
                               const CUtensorMap* kMap, const CUtensorMap* vMap, std::uint32_t q,
                               std::uint32_t k, std::uint32_t v, Barriers<S>& bars) {
    const bool leads = threadIdx.x == 0, first = threadIdx.x < 32;
    const int total = a.plan.workCount * a.layer.batch;
    Ring<S::kStages> ring;
    Ring<S::kVStages> vRing;
    Ring<S::kQStages> qRing;
    int taken = leads ? atomicAdd(a.next, 1) : 0;
    const auto share = [&] {  // the work item that thread 0 took
        if (!a.gathers) return __shfl_sync(~0u, taken, 0);
        if (leads) bars.taken = taken;
        ptx::namedBarrier(kProducerBarrier, 128);
        const int w = bars.taken;
        ptx::namedBarrier(kProducerBarrier, 128);
        return w;
    };
    const auto itemOf = [&](int w) { return a.plan.work[min(w, total - 1) % a.plan.workCount]; };
    int w = share();
    WorkItem item = itemOf(w);
    while (w < total) {
        if (leads) taken = atomicAdd(a.next, 1);  // comes while this item is walked
        const int batch = w / a.plan.workCount, kvHead = a.layer.kvHead(item.head);
        const auto loadQueries = [&] {
            if (first) {
                ptx::wait(&bars.qEmpty[qRing.stage], qRing.phase ^ 1);
                if (leads) {
                    std::uint64_t* const bar = &bars.qFull[qRing.stage];
                    ptx::arriveExpect(bar, S::kQBytes);
#pragma unroll 1
                    for (int half = 0; half < 2; ++half)
                        loadHalf<Width>(q + std::uint32_t(qRing.stage * S::kQBytes), kTokens, half,
                                        qMap, bar, item.qtile * kTokens + half * kHalfTokens,
                                        item.head, batch);
                }
            }
            qRing.next();
        };
        std::uint32_t flags = FirstStep;
        // The warpgroups that take part, as two bits.
        const auto usersOf = [&](const KvTile& of, int part) {
            const unsigned columns = S::kParts == 1 ? of.own | of.own >> 2 : of.own >> (2 * part);
            return columns & 3;
        };
        const auto send = [&](const KvTile& of, int part, int bits) {  // the stage is empty
            if (!leads) return;
            Step& step = bars.step[ring.stage];
            if (!(flags & NoTile)) flags |= usersOf(of, part) << kUsesBit;
            flags |= unsigned(vRing.stage) << kValueBit | vRing.phase << (kValueBit + 2);
            const bool whole = !of.mask && of.valid == kTokens;
            const unsigned apart = (of.own ^ of.own >> 2) & 3;
            flags |= (whole ? apart : 3) << kMaskedBit;
            if (of.kind == Gather) flags |= GatheredStep;
            step.tile = of;
            step.head = item.head;
            step.qtile = item.qtile;
            step.batch = batch;
            step.bits = bits;
            step.flags = flags;
            step.part = part;
        };
        // A single stage of Q is in use until the scores of the item before are done: then the
        // first keys go ahead.
        constexpr bool kQueriesFirst = S::kQStages > 1;
        if (kQueriesFirst) loadQueries();
        if (item.count == 0) {
            ptx::wait(&bars.kEmpty[ring.stage], ring.phase ^ 1);
            flags |= LastStep | NoTile;
            send(KvTile{}, 0, -1);
            if (leads) ptx::arrive(&bars.kFull[ring.stage]);
            ring.next();
            if (!kQueriesFirst) loadQueries();
        }
        // The keys (or values) of a step into a stage.
        const auto load = [&](bool values, const KvTile& tile, int part, int stage) {
            std::uint64_t* const full = values ? &bars.vFull[stage] : &bars.kFull[stage];
            ptx::arriveExpect(full, S::kKvBytes);
            for (int half = 0; half < S::kKeys / kHalfTokens; ++half) {
                const bool second = half + part > 0;
                loadHalf<Width>(
                    (values ? v : k) + std::uint32_t(stage * S::kKvBytes), S::kKeys, half,
                    values ? vMap : kMap, full,
                    tile.kind == Pair64 && second ? tile.b : tile.a + (second ? kHalfTokens : 0),
                    kvHead, batch);
            }
        };
        // Values come after the keys of the step that follows, in the order of their use.
        int late = -1;  // the stage of the step whose values are still to come
        const auto loadLate = [&] {
            if (late < 0) return;
            const Step& step = bars.step[late];
            const int stage = step.flags >> kValueBit & 3;
            ptx::wait(&bars.vEmpty[stage], (step.flags >> (kValueBit + 2) & 1) ^ 1);
            load(true, step.tile, step.part, stage);
            late = -1;
        };
        TileReader tiles(a.plan.tiles + item.first, item.count);
        for (int t = 0; t < item.count; ++t) {
            int index = 0;
            const KvTile tile = tiles.next(index);
            const int bits = tile.mask & MaskExact ? a.plan.bitsOffset[item.first + index] : -1;
            const int parts = (tile.valid + S::kKeys - 1) / S::kKeys;
            for (int part = 0; part < parts; ++part) {
                if (t + 1 == item.count && part + 1 == parts) flags |= LastStep;
                const int sides = S::kValues && usersOf(tile, part) ? 2 : 1;
                if (S::kLooksAhead) flags |= (~tiles.nextUsers() & 3) << kRestsBit;
                if (tile.kind == Gather) {
                    ptx::wait(&bars.kEmpty[ring.stage], ring.phase ^ 1);
                    send(tile, part, bits);
                    const int row = int(threadIdx.x), column = part * S::kKeys + row;
                    bars.keys[row] =
                        row < S::kKeys && column < tile.valid ? a.plan.gather[tile.a + column] : -1;
                    ptx::namedBarrier(kProducerBarrier, 128);
#pragma unroll 1
                    for (int side = 0; side < sides; ++side) {
                        const Rows& rows = side ? a.v : a.k;
                        const int stage = side ? vRing.stage : ring.stage;
                        std::uint64_t* const full = side ? &bars.vFull[stage] : &bars.kFull[stage];
                        if (side) ptx::wait(&bars.vEmpty[stage], vRing.phase ^ 1);
                        gatherRows<Width, S::kKeys>(
                            (side ? v : k) + std::uint32_t(stage * S::kKvBytes),
                            static_cast<const char*>(rows.at(batch, kvHead, 2)),
                            std::uint32_t(rows.sn * 2), bars.keys);
                        ptx::holdForCopies(full);
                        ptx::namedBarrier(kProducerBarrier, 128);  // all are counted in
                        if (leads) ptx::arrive(full);
                    }
                } else if (first) {
                    ptx::wait(&bars.kEmpty[ring.stage], ring.phase ^ 1);
                    send(tile, part, bits);
                    if (leads) {
                        load(false, tile, part, ring.stage);
                        loadLate();
                        if (sides == 2) late = ring.stage;
                        if (a.gathers) loadLate();
                    }
                }
                ring.next();
                if (sides == 2) vRing.next();
                if (!kQueriesFirst && flags & FirstStep) loadQueries();
                flags = 0;
            }
        }
        if (leads) loadLate();
        w = share();
        item = itemOf(w);
    }
    if (!first) return;
    ptx::wait(&bars.kEmpty[ring.stage], ring.phase ^ 1);
    if (leads) {
        bars.step[ring.stage].flags = End;
        ptx::arrive(&bars.kFull[ring.stage]);
    }
}

}  // namespace sparsight::kernels::cuda::hopper
