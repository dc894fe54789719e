#include "kernels/cuda/staging.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <algorithm>

namespace sparsight::kernels::cuda {
namespace {

constexpr int kThreads = 256;

int blocksFor(Index work) {
    return int(std::min<Index>((work + kThreads - 1) / kThreads, 1 << 20));
}
void launched(const char* what) {
    check(cudaGetLastError(), what);
}

__device__ float load(const void* p, DType t, Index i) {
    if (t == DType::F32) return static_cast<const float*>(p)[i];
    if (t == DType::F16) return __half2float(static_cast<const __half*>(p)[i]);
    return __bfloat162float(static_cast<const __nv_bfloat16*>(p)[i]);
}
__device__ void store(void* p, DType t, Index i, float x) {
    if (t == DType::F32)
        static_cast<float*>(p)[i] = x;
    else if (t == DType::F16)
        static_cast<__half*>(p)[i] = __float2half_rn(x);
    else
        static_cast<__nv_bfloat16*>(p)[i] = __float2bfloat16_rn(x);
}

__global__ void pack(const void* p, DType from, Index sb, Index sh, Index sn, int width, void* out,
                     DType to, int padded, int heads, Index tokens, Index total,
                     const std::uint8_t* bad) {
    for (Index i = Index(blockIdx.x) * kThreads + threadIdx.x; i < total;
         i += Index(gridDim.x) * kThreads) {
        const Index row = i / padded, c = i % padded, head = row / tokens;
        const bool real = c < width && !(bad && bad[row]);
        const Index at = head / heads * sb + head % heads * sh + row % tokens * sn + c;
        store(out, to, i, real ? load(p, from, at) : 0.0f);
    }
}

/// A 16-byte piece holds NaN or infinity: some exponent is all ones.
__device__ bool badPiece(const uint4& x, DType t) {
    const std::uint32_t words[] = {x.x, x.y, x.z, x.w};
    bool bad = false;
#pragma unroll
    for (const std::uint32_t w : words) {
        if (t == DType::F32) {
            bad = bad || (w & 0x7f800000u) == 0x7f800000u;
        } else {
            const std::uint32_t e = t == DType::F16 ? 0x7c00u : 0x7f80u;
            bad = bad || (w & e) == e || (w >> 16 & e) == e;
        }
    }
    return bad;
}

__global__ void findBad(Rows rows, DType type, int pieces, int heads, Index tokens, Index total,
                        std::uint8_t* bad, int* any) {
    // A group of lanes (a power of two) reads a row.
    const int group = pieces < 32 ? pieces : 32, lane = int(threadIdx.x) % group;
    const int bytes = type == DType::F32 ? 4 : 2;
    for (Index row = (Index(blockIdx.x) * kThreads + threadIdx.x) / group; row < total;
         row += Index(gridDim.x) * kThreads / group) {
        const Index head = row / tokens;
        const auto* p = static_cast<const char*>(rows.at(head / heads, head % heads, bytes)) +
                        row % tokens * rows.sn * bytes;
        bool found = false;
        for (int piece = lane; piece < pieces; piece += group)
            found = badPiece(__ldg(reinterpret_cast<const uint4*>(p) + piece), type) || found;
        const unsigned mask = group == 32
                                  ? ~0u
                                  : ((1u << group) - 1)
                                        << (threadIdx.x % 32 / unsigned(group) * unsigned(group));
        const bool badRow = __any_sync(mask, found);
        if (lane == 0) bad[row] = badRow;
        if (lane == 0 && badRow) *any = 1;
    }
}

__device__ void poisonOut(OutRows o, int dv, Index batch, Index head, Index row) {
    if (!o.p) return;
    for (int c = 0; c < dv; ++c) store(o.p, o.t, batch * o.sb + head * o.sh + row * o.sn + c, NAN);
}

/// One block per work item, one thread per row.
__global__ void poisonItems(Layer l, DevicePlan plan, BadRows bad, OutRows o, float* lse) {
    const WorkItem item = plan.work[blockIdx.x];
    const int batch = int(blockIdx.y), local = int(threadIdx.x), half = local / 64;
    const int row = item.qtile * int(kTile) + local;
    const Index head = Index(batch) * l.Hq + item.head;
    const Index kvHead = Index(batch) * l.Hkv + l.kvHead(item.head);
    const bool badQuery = row < l.Nq && bad.q && bad.q[head * l.Nq + row];
    bool poisoned = false, poisonedValues = false;
    for (int t = item.first; t < item.first + item.count; ++t) {
        const KvTile tile = plan.tiles[t];
        for (int c = 0; c < tile.valid; ++c) {
            const int key = tile.kind == Gather              ? plan.gather[tile.a + c]
                            : tile.kind == Pair64 && c >= 64 ? tile.b + c - 64
                                                             : tile.a + c;
            const bool badKey = bad.k && bad.k[kvHead * l.Nk + key];
            const bool badValue = bad.v && bad.v[kvHead * l.Nk + key];
            if (!badKey && !badValue && !badQuery) continue;
            if (!(tile.own >> (2 * (c / 64) + half) & 1)) continue;
            if (tile.mask & MaskCausal && key > l.position(row)) continue;
            if (tile.mask & MaskWindow && key < l.visibleBegin(row)) continue;
            if (tile.mask & MaskExact &&
                !(plan.bits[plan.bitsOffset[t] + 2 * local + c / 64] >> (c % 64) & 1))
                continue;
            poisoned = poisoned || badKey || badQuery;
            poisonedValues = poisonedValues || badValue;
        }
    }
    if (row >= l.Nq) return;
    if (poisoned && lse) lse[head * l.Nq + row] = NAN;
    if (poisoned || poisonedValues) poisonOut(o, l.dv, batch, item.head, row);
}

__global__ void poisonStatistics(Layer l, BadRows bad, RowStatistics rows) {
    const Index i = Index(blockIdx.x) * kThreads + threadIdx.x;
    if (i >= Index(l.batch) * l.Hq * l.Nq) return;
    const Index head = i / l.Nq;
    const int row = int(i % l.Nq), begin = l.visibleBegin(row), end = l.visibleEnd(row);
    bool poisoned = begin < end && bad.q && bad.q[i];
    const Index kvHead = head / l.Hq * l.Hkv + l.kvHead(int(head % l.Hq));
    if (bad.k)
        for (int key = begin; key < end && !poisoned; ++key) poisoned = bad.k[kvHead * l.Nk + key];
    if (!poisoned) return;
    float* const all[] = {rows.lse,          rows.rowMax,   rows.entropy,
                          rows.meanDistance, rows.sinkMass, rows.localMass};
    for (float* x : all)
        if (x) x[i] = NAN;
}

__global__ void countBad(Layer l, const float* lse, OutRows o, int* count) {
    const Index i = (Index(blockIdx.x) * kThreads + threadIdx.x) / 32;
    const int lane = int(threadIdx.x) % 32;
    if (i >= Index(l.batch) * l.Hq * l.Nq) return;
    bool bad = lse && isnan(lse[i]);
    if (o.p) {
        const Index head = i / l.Nq, at = head / l.Hq * o.sb + head % l.Hq * o.sh + i % l.Nq * o.sn;
        for (int c = lane; c < l.dv; c += 32) bad = bad || !isfinite(load(o.p, o.t, at + c));
    }
    bad = __any_sync(~0u, bad);
    if (lane == 0 && bad) atomicAdd(count, 1);
}

__global__ void norms(Layer l, const float* lse, Index pitch, float hidden, float* norm2) {
    const Index i = Index(blockIdx.x) * kThreads + threadIdx.x;
    const Index heads = Index(l.batch) * l.Hq;
    if (i >= heads * pitch) return;
    const Index head = i / pitch, row = i % pitch;
    float x = row < l.Nq ? lse[head * l.Nq + row] : -INFINITY;
    if (x == -INFINITY) {
        x = hidden;
    } else {
        if (l.sinks) {
            const float s = l.sinks[head % l.Hq], top = fmaxf(x, s);
            // NaN of x stays: fmaxf alone would drop it.
            x = isnan(x) ? x : top + log1pf(expf(fminf(x, s) - top));
        }
        x *= kLog2e;
    }
    norm2[i] = x;
}

}  // namespace

void packRows(const void* p, DType from, Index sb, Index sh, Index sn, int width, void* out,
              DType to, int padded, int batch, int heads, int tokens, const std::uint8_t* bad,
              cudaStream_t stream) {
    const Index total = Index(batch) * heads * tokens * padded;
    if (total == 0) return;
    pack<<<blocksFor(total), kThreads, 0, stream>>>(p, from, sb, sh, sn, width, out, to, padded,
                                                    heads, tokens, total, bad);
    launched("packing the inputs");
}

void findBadRows(const Rows& rows, DType type, int width, int batch, int heads, int tokens,
                 std::uint8_t* bad, int* any, cudaStream_t stream) {
    const Index total = Index(batch) * heads * tokens;
    if (total == 0) return;
    const int pieces = int(width * bytesOf(type) / 16);
    findBad<<<blocksFor(total * std::min(pieces, 32)), kThreads, 0, stream>>>(
        rows, type, pieces, heads, tokens, total, bad, any);
    launched("looking for NaN");
}

void poisonForward(const Layer& layer, const DevicePlan& plan, const BadRows& bad, OutRows o,
                   float* lse, cudaStream_t stream) {
    if (plan.workCount == 0) return;
    poisonItems<<<dim3(unsigned(plan.workCount), unsigned(layer.batch)), unsigned(kTile), 0,
                  stream>>>(layer, plan, bad, o, lse);
    launched("spreading NaN");
}

void poisonRows(const Layer& layer, const BadRows& bad, const RowStatistics& rows,
                cudaStream_t stream) {
    const Index total = Index(layer.batch) * layer.Hq * layer.Nq;
    if (total == 0) return;
    poisonStatistics<<<unsigned((total + kThreads - 1) / kThreads), kThreads, 0, stream>>>(
        layer, bad, rows);
    launched("spreading NaN");
}

void countNonFinite(const Layer& layer, const float* lse, OutRows o, int* count,
                    cudaStream_t stream) {
    const Index total = Index(layer.batch) * layer.Hq * layer.Nq * 32;
    if (total == 0) return;
    countBad<<<unsigned((total + kThreads - 1) / kThreads), kThreads, 0, stream>>>(layer, lse, o,
                                                                                   count);
    launched("counting rows with NaN");
}

void makeNorms(const Layer& layer, const float* lse, Index pitch, float hidden, float* norm2,
               cudaStream_t stream) {
    const Index total = Index(layer.batch) * layer.Hq * pitch;
    if (total == 0) return;
    norms<<<unsigned((total + kThreads - 1) / kThreads), kThreads, 0, stream>>>(layer, lse, pitch,
                                                                                hidden, norm2);
    launched("norms");
}

}  // namespace sparsight::kernels::cuda
