#pragma once

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
    static constexpr int kStages = !kValues || Width == 64 ? 4 : Width == 128 ? 3 : 2;
    static constexpr int kQStages = Width == 64 || (Width == 128 && !kValues) ? 2 : 1;
    static constexpr int kQBytes = tileBytes(kTokens, Width);
    static constexpr int kKvBytes = tileBytes(kKeys, Width);
    static constexpr int kBytes =
        kQStages * kQBytes + kStages * kKvBytes * (kValues ? 2 : 1) + 1024 /* alignment */;
};

/// What the consumers need to know of one stage.
struct Step {
    KvTile tile;
    std::int32_t head, qtile, batch, bits;
    std::uint32_t flags;
    std::int32_t part;  ///< sub-tile of the tile
    std::int32_t pad[2];
};

template <int Stages, int QStages>
struct Barriers {
    Step step[Stages];
    std::uint64_t kFull[Stages], kEmpty[Stages], vFull[Stages], vEmpty[Stages];
    std::uint64_t qFull[QStages], qEmpty[QStages];
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

constexpr int kProducerBarrier = 3;  ///< named barrier of the producer warps

/// Walks the work: Q, K and V of every step into the rings. One warp does it; where the plan has
/// gathered tiles all four do, since the copy engine cannot gather.
template <class S, int Width>
__device__ inline void produce(const ForwardArgs& a, const CUtensorMap* qMap,
                               const CUtensorMap* kMap, const CUtensorMap* vMap, std::uint32_t q,
                               std::uint32_t k, std::uint32_t v,
                               Barriers<S::kStages, S::kQStages>& bars) {
    const bool leads = threadIdx.x == 0, first = threadIdx.x < 32;
    const int total = a.plan.workCount * a.layer.batch;
    Ring<S::kStages> ring;
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
    KvTile tile = item.count ? a.plan.tiles[item.first] : KvTile{};
    while (w < total) {
        if (leads) taken = atomicAdd(a.next, 1);  // comes while this item is walked
        const int batch = w / a.plan.workCount, kvHead = a.layer.kvHead(item.head);
        // Q follows the first tile: its stage is in use until the scores of the item before are
        // done.
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
        const auto send = [&](const KvTile& of, int part, int bits) {  // the stage is empty
            if (!leads) return;
            Step& step = bars.step[ring.stage];
            const unsigned columns = S::kParts == 1 ? of.own : of.own >> (2 * part);
            for (int g = 0; g < 2; ++g)
                if (!(flags & NoTile) && (columns >> g & (S::kParts == 1 ? 5 : 1)))
                    flags |= 1u << (kUsesBit + g);
            if (of.mask || of.valid < kTokens || of.own != 0xf) flags |= MaskedStep;
            if (of.kind == Gather) flags |= GatheredStep;
            step.tile = of;
            step.head = item.head;
            step.qtile = item.qtile;
            step.batch = batch;
            step.bits = bits;
            step.flags = flags;
            step.part = part;
        };
        if (item.count == 0) {
            ptx::wait(&bars.kEmpty[ring.stage], ring.phase ^ 1);
            if (S::kValues) ptx::wait(&bars.vEmpty[ring.stage], ring.phase ^ 1);
            flags |= LastStep | NoTile;
            send(KvTile{}, 0, -1);
            if (leads) {
                ptx::arrive(&bars.kFull[ring.stage]);
                if (S::kValues) ptx::arrive(&bars.vFull[ring.stage]);
            }
            ring.next();
            loadQueries();
        }
        for (int t = 0; t < item.count; ++t) {
            KvTile following = tile;
            if (t + 1 < item.count) following = a.plan.tiles[item.first + t + 1];
            const int bits = tile.mask & MaskExact ? a.plan.bitsOffset[item.first + t] : -1;
            const int parts = (tile.valid + S::kKeys - 1) / S::kKeys;
            for (int part = 0; part < parts; ++part) {
                if (t + 1 == item.count && part + 1 == parts) flags |= LastStep;
                if (tile.kind == Gather) {
                    ptx::wait(&bars.kEmpty[ring.stage], ring.phase ^ 1);
                    send(tile, part, bits);
                    const int row = int(threadIdx.x), column = part * S::kKeys + row;
                    bars.keys[row] =
                        row < S::kKeys && column < tile.valid ? a.plan.gather[tile.a + column] : -1;
                    ptx::namedBarrier(kProducerBarrier, 128);
#pragma unroll 1
                    for (int side = 0; side < (S::kValues ? 2 : 1); ++side) {
                        const Rows& rows = side ? a.v : a.k;
                        std::uint64_t* const full =
                            side ? &bars.vFull[ring.stage] : &bars.kFull[ring.stage];
                        if (side) ptx::wait(&bars.vEmpty[ring.stage], ring.phase ^ 1);
                        gatherRows<Width, S::kKeys>(
                            (side ? v : k) + std::uint32_t(ring.stage * S::kKvBytes),
                            static_cast<const char*>(rows.at(batch, kvHead, 2)),
                            std::uint32_t(rows.sn * 2), bars.keys);
                        ptx::holdForCopies(full);
                        ptx::namedBarrier(kProducerBarrier, 128);  // all are counted in
                        if (leads) ptx::arrive(full);
                    }
                } else if (first) {
                    ptx::wait(&bars.kEmpty[ring.stage], ring.phase ^ 1);
                    send(tile, part, bits);
#pragma unroll 1
                    for (int side = 0; side < (S::kValues ? 2 : 1); ++side) {
                        std::uint64_t* const full =
                            side ? &bars.vFull[ring.stage] : &bars.kFull[ring.stage];
                        if (side) ptx::wait(&bars.vEmpty[ring.stage], ring.phase ^ 1);
                        if (!leads) continue;
                        ptx::arriveExpect(full, S::kKvBytes);
                        for (int half = 0; half < S::kKeys / kHalfTokens; ++half) {
                            const bool second = half + part > 0;
                            loadHalf<Width>(
                                (side ? v : k) + std::uint32_t(ring.stage * S::kKvBytes), S::kKeys,
                                half, side ? vMap : kMap, full,
                                tile.kind == Pair64 && second ? tile.b
                                                              : tile.a + (second ? kHalfTokens : 0),
                                kvHead, batch);
                        }
                    }
                }
                ring.next();
                if (flags & FirstStep) loadQueries();
                flags = 0;
            }
            tile = following;
        }
        w = share();
        item = itemOf(w);
        if (item.count) tile = a.plan.tiles[item.first];
    }
    if (!first) return;
    ptx::wait(&bars.kEmpty[ring.stage], ring.phase ^ 1);
    if (leads) {
        bars.step[ring.stage].flags = End;
        ptx::arrive(&bars.kFull[ring.stage]);
    }
}

}  // namespace sparsight::kernels::cuda::hopper
