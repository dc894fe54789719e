#include "kernels/cuda/portable.h"

#include <algorithm>

#include "kernels/cuda/portable_antidiagonal.cuh"
#include "kernels/cuda/portable_forward.cuh"
#include "kernels/cuda/portable_mass.cuh"
#include "kernels/cuda/portable_render.cuh"
#include "kernels/cuda/portable_rows.cuh"
#include "kernels/cuda/portable_top.cuh"

namespace sparsight::kernels::cuda::portable {

// One translation unit for each operation and type.
extern template void forwardOf<float>(int, const ForwardArgs&, cudaStream_t);
extern template void forwardOf<__half>(int, const ForwardArgs&, cudaStream_t);
extern template void forwardOf<__nv_bfloat16>(int, const ForwardArgs&, cudaStream_t);
extern template void rowsOf<float>(int, const RowsArgs&, cudaStream_t);
extern template void rowsOf<__half>(int, const RowsArgs&, cudaStream_t);
extern template void rowsOf<__nv_bfloat16>(int, const RowsArgs&, cudaStream_t);
extern template void massOf<float>(int, const MassArgs&, cudaStream_t);
extern template void massOf<__half>(int, const MassArgs&, cudaStream_t);
extern template void massOf<__nv_bfloat16>(int, const MassArgs&, cudaStream_t);
extern template void topOf<float>(int, const TopArgs&, int, cudaStream_t);
extern template void topOf<__half>(int, const TopArgs&, int, cudaStream_t);
extern template void topOf<__nv_bfloat16>(int, const TopArgs&, int, cudaStream_t);
extern template void renderOf<float>(int, const RenderArgs&, cudaStream_t);
extern template void renderOf<__half>(int, const RenderArgs&, cudaStream_t);
extern template void renderOf<__nv_bfloat16>(int, const RenderArgs&, cudaStream_t);
extern template void antidiagonalOf<float>(int, const AntidiagonalArgs&, int, cudaStream_t);
extern template void antidiagonalOf<__half>(int, const AntidiagonalArgs&, int, cudaStream_t);
extern template void antidiagonalOf<__nv_bfloat16>(int, const AntidiagonalArgs&, int, cudaStream_t);

namespace {

constexpr Index kMemory = Index(512) << 20;  ///< of partial results at a time, where heads allow

/// run(x) with x of the type's own C++ type.
template <class Run>
void withType(DType type, const Run& run) {
    type == DType::F32 ? run(float()) : type == DType::F16 ? run(__half()) : run(__nv_bfloat16());
}

__global__ void padNorms(const float* norm2, int rows, int padded, float* out) {
    const int i = int(blockIdx.x * blockDim.x + threadIdx.x);
    if (i >= padded) return;
    const float x = i < rows ? norm2[Index(blockIdx.y) * rows + i] : -kInfinity;
    out[Index(blockIdx.y) * padded + i] = x == -kInfinity ? kInfinity : x;
}

/// Cells of `grain` to blocks of `ratio` x `ratio` cells.
__global__ void poolCells(const float* cells, int cellRows, int cellCols, int ratio, bool most,
                          float* blocks, int blockRows, int blockCols) {
    const int J = int(blockIdx.x * blockDim.x + threadIdx.x), I = int(blockIdx.y);
    if (J >= blockCols) return;
    cells += Index(blockIdx.z) * cellRows * cellCols;
    float sum = 0;
    for (int i = I * ratio; i < min((I + 1) * ratio, cellRows); ++i)
        for (int j = J * ratio; j < min((J + 1) * ratio, cellCols); ++j) {
            const float x = cells[Index(i) * cellCols + j];
            sum = most ? maxOrNaN(sum, x) : sum + x;
        }
    blocks[(Index(blockIdx.z) * blockRows + I) * blockCols + J] = sum;
}

/// Diagonals from the partial sums of their owners, in order. Not causal: they are stored by
/// query - key and wanted by key - query.
__global__ void joinDiagonals(const float* partial, int groups, int diagonals, bool reversed,
                              float* out) {
    const int n = int(blockIdx.x * blockDim.x + threadIdx.x);
    if (n >= diagonals) return;
    partial += Index(blockIdx.y) * groups * diagonals;
    float sum = 0;
    for (int g = 0; g < groups; ++g) sum += partial[Index(g) * diagonals + n];
    out[Index(blockIdx.y) * diagonals + (reversed ? diagonals - 1 - n : n)] = sum;
}

/// Pixels from their bins: the mean over valid pairs, -1 without any; a bin is shown by every pixel
/// that lies in it.
__global__ void finishPixels(Layer layer, Bins rows, Bins columns, Statistic statistic, int width,
                             int height, const float* bins, float* px) {
    const int b = int(blockIdx.x * blockDim.x + threadIdx.x), a = int(blockIdx.y);
    if (b >= width) return;
    const int I = int(Index(a) * rows.count / height), J = int(Index(b) * columns.count / width);
    const int from = columns.begin(J), to = columns.begin(J + 1);
    Index pairs = 0;
    for (int row = rows.begin(I); row < rows.begin(I + 1); ++row)
        pairs += max(0, min(to, layer.visibleEnd(row)) - max(from, layer.visibleBegin(row)));
    const float x = bins[Index(I) * columns.count + J];
    px[Index(a) * width + b] = pairs == 0                     ? -1
                               : statistic == Statistic::Mean ? x / float(pairs)
                                                              : x;
}

void clear(float* p, Index count, cudaStream_t stream) {
    if (p && count > 0) check(cudaMemsetAsync(p, 0, std::size_t(count) * 4, stream), "clearing");
}

}  // namespace

void forward(const Layer& layer, DType type, int width, Rows q, Rows k, Rows v,
             const DevicePlan& plan, OutRows o, float* lse, cudaStream_t stream) {
    if (!o.p) {
        if (!lse) return;
        RowsArgs args{layer, q, k, plan, true, {}};
        args.out.lse = lse;
        withType(type, [&](auto t) { rowsOf<decltype(t)>(width, args, stream); });
        return;
    }
    const Scale scale(layer);
    const ForwardArgs args{layer, q, k, v, plan, o, lse, scale.factor, scale.direct};
    withType(type, [&](auto t) { forwardOf<decltype(t)>(width, args, stream); });
}

void captureRows(const Layer& layer, DType type, int width, Rows q, Rows k,
                 const RowStatistics& out, cudaStream_t stream) {
    const RowsArgs args{layer, q, k, {}, false, out};
    withType(type, [&](auto t) { rowsOf<decltype(t)>(width, args, stream); });
}

void captureMass(const Layer& layer, DType type, int width, Rows q, Rows k, const float* norm2,
                 const MassStatistics& out, cudaStream_t stream) {
    const int heads = layer.batch * layer.Hq;
    const int padded = ceilDiv(layer.Nq, kStep) * kStep;
    const int blockRows = ceilDiv(layer.Nq, out.block), blockCols = ceilDiv(layer.Nk, out.block);
    const bool blocks = out.blockSum || out.blockMax;
    // Cells of 16, 32 or 64 come with the columns; blocks of any other edge are pooled from them
    // or, where they do not divide, computed apart.
    const int grain = out.block % 64 == 0   ? 64
                      : out.block % 32 == 0 ? 32
                      : out.block % 16 == 0 ? 16
                                            : 0;
    const bool pooled = blocks && grain != 0 && grain != out.block;
    const int cellRows = pooled ? ceilDiv(layer.Nq, grain) : blockRows,
              cellCols = pooled ? ceilDiv(layer.Nk, grain) : blockCols;
    const Index cells = Index(cellRows) * cellCols, blockCells = Index(blockRows) * blockCols;
    const int diagonals = layer.causal ? layer.Nk : layer.Nq + layer.Nk - 1;
    const int tiles = ceilDiv(layer.Nk, massRows(type, width));
    int groups = tiles;
    if (out.diagMass) {  // each owner has its own partial diagonals
        const Index fit = std::max<Index>(1, (kMemory / 4) / (Index(4) * diagonals));
        groups = int(std::clamp<Index>(std::min<Index>(fit, ceilDiv(2048, heads)), 1, tiles));
    }
    groups = std::min(groups, 65535);

    const Index perHead =
        4 * (Index(padded) + (out.diagMass ? Index(groups) * diagonals : 0) +
             (pooled ? cells * ((out.blockSum ? 1 : 0) + (out.blockMax ? 1 : 0)) : 0));
    const int slab = int(std::clamp<Index>(kMemory / perHead, 1, std::min(heads, 65535)));
    const Scratch norms(Index(4) * padded * slab, stream);
    Scratch partial, sums, maxima;
    if (out.diagMass) partial = Scratch(Index(4) * groups * diagonals * slab, stream);
    if (pooled && out.blockSum) sums = Scratch(4 * cells * slab, stream);
    if (pooled && out.blockMax) maxima = Scratch(4 * cells * slab, stream);
    clear(out.blockSum, heads * blockCells, stream);
    clear(out.blockMax, heads * blockCells, stream);
    clear(out.colMass, Index(heads) * layer.Nk, stream);

    for (int first = 0; first < heads; first += slab) {
        const int count = std::min(slab, heads - first);
        padNorms<<<dim3(unsigned(ceilDiv(padded, 256)), unsigned(count)), 256, 0, stream>>>(
            norm2 + Index(first) * layer.Nq, layer.Nq, padded, norms.as<float>());
        check(cudaGetLastError(), "mass statistics");
        MassArgs args;
        args.layer = layer;
        args.q = q;
        args.k = k;
        args.norm = norms.as<float>();
        args.paddedQueries = padded;
        args.firstHead = first;
        args.heads = count;
        args.groups = groups;
        const auto blocksAt = [&](float* p) { return p ? p + first * blockCells : nullptr; };
        if (blocks && grain == 0) {
            MassArgs apart = args;
            apart.blocks = true;
            apart.grain = out.block;
            apart.groups = std::min(blockCols, 65535);
            apart.cellSum = blocksAt(out.blockSum);
            apart.cellMax = blocksAt(out.blockMax);
            withType(type, [&](auto t) { massOf<decltype(t)>(width, apart, stream); });
        } else if (pooled) {
            args.grain = grain;
            args.cellSum = sums.as<float>();
            args.cellMax = maxima.as<float>();
            clear(args.cellSum, cells * count, stream);
            clear(args.cellMax, cells * count, stream);
        } else if (blocks) {
            args.grain = grain;
            args.cellSum = blocksAt(out.blockSum);
            args.cellMax = blocksAt(out.blockMax);
        }
        if (out.colMass) args.colMass = out.colMass + Index(first) * layer.Nk;
        if (out.diagMass) {
            args.diagonal = partial.as<float>();
            args.diagonals = diagonals;
            clear(args.diagonal, Index(groups) * diagonals * count, stream);
        }
        if (args.cellSum || args.cellMax || args.colMass || args.diagonal)
            withType(type, [&](auto t) { massOf<decltype(t)>(width, args, stream); });
        if (pooled) {
            const auto pool = [&](const float* from, float* to, bool most) {
                if (!from) return;
                poolCells<<<dim3(unsigned(ceilDiv(blockCols, 128)), unsigned(blockRows),
                                 unsigned(count)),
                            128, 0, stream>>>(from, cellRows, cellCols, out.block / grain, most, to,
                                              blockRows, blockCols);
                check(cudaGetLastError(), "mass statistics");
            };
            pool(args.cellSum, blocksAt(out.blockSum), false);
            pool(args.cellMax, blocksAt(out.blockMax), true);
        }
        if (out.diagMass) {
            joinDiagonals<<<dim3(unsigned(ceilDiv(diagonals, 128)), unsigned(count)), 128, 0,
                            stream>>>(args.diagonal, groups, diagonals, !layer.causal,
                                      out.diagMass + Index(first) * diagonals);
            check(cudaGetLastError(), "mass statistics");
        }
    }
}

void topKeys(const Layer& layer, DType type, int width, Rows q, Rows k, const float* norm2,
             int topK, std::int32_t* key, float* p, cudaStream_t stream) {
    TopArgs args;
    args.layer = layer;
    args.q = q;
    args.k = k;
    args.norm2 = norm2;
    args.topK = topK;
    args.wanted = std::min(topK, layer.Nk);
    args.capacity = 256;
    while (args.capacity < args.wanted + 128) args.capacity *= 2;
    args.steps = ceilDiv(layer.Nk, kStep);
    args.key = key;
    args.p = p;
    const int rows = massRows(type, width);
    const int tiles = ceilDiv(layer.Nq, rows) * layer.batch * layer.Hq;
    const Index perTile = rows * (Index(8) * args.steps + 8 * Index(args.capacity) + 8);
    const int slab = int(std::clamp<Index>(kMemory / perTile, 1, tiles));
    const Index slabRows = Index(slab) * rows;
    const Scratch most(8 * slabRows * args.steps, stream), bound(4 * slabRows, stream),
        held(4 * slabRows, stream), entries(8 * slabRows * args.capacity, stream);
    args.most = most.as<std::uint16_t>();
    args.bound = bound.as<float>();
    args.held = held.as<int>();
    args.entries = entries.as<std::uint64_t>();
    for (int first = 0; first < tiles; first += slab) {
        args.firstTile = first;
        withType(type, [&](auto t) {
            topOf<decltype(t)>(width, args, std::min(slab, tiles - first), stream);
        });
    }
}

void render(const Layer& layer, DType type, int width, Rows q, Rows k, const float* norm2,
            const RenderSpec& spec, const RenderMask& mask, float* px, cudaStream_t stream) {
    if (spec.width <= 0 || spec.height <= 0) return;
    const auto bins = [](Index from, Index to, Index pixels) {
        const Index tokens = std::max<Index>(1, to - from);
        return Bins{int(from), int(tokens), int(std::min(tokens, pixels))};
    };
    RenderArgs args;
    args.layer = layer;
    args.q = q;
    args.k = k;
    args.norm2 = norm2;
    args.rows = bins(spec.q0, spec.q1, spec.height);
    args.columns = bins(spec.k0, spec.k1, spec.width);
    args.q0 = int(spec.q0);
    args.mask = mask;
    args.most = spec.statistic == Statistic::Max;
    const Index count = Index(args.rows.count) * args.columns.count;
    const Scratch sums(4 * count, stream);
    args.out = sums.as<float>();
    clear(args.out, count, stream);
    withType(type, [&](auto t) { renderOf<decltype(t)>(width, args, stream); });
    finishPixels<<<dim3(unsigned(ceilDiv(spec.width, 128)), unsigned(spec.height)), 128, 0,
                   stream>>>(layer, args.rows, args.columns, spec.statistic, int(spec.width),
                             int(spec.height), args.out, px);
    check(cudaGetLastError(), "render");
}

void antidiagonal(const Layer& layer, DType type, int width, Rows q, Rows k, int stride, int block,
                  int padTo, float* blockScore, cudaStream_t stream) {
    AntidiagonalArgs args;
    args.q = q;
    args.k = k;
    args.Hq = layer.Hq;
    args.group = layer.Hq / layer.Hkv;
    args.Nq = layer.Nq;
    args.Nk = layer.Nk;
    args.stride = stride;
    args.rows = ceilDiv(layer.Nq, stride);
    args.columns = ceilDiv(layer.Nk, stride);
    args.ahead = (ceilDiv(layer.Nk, padTo) - ceilDiv(layer.Nq, padTo)) * (padTo / stride);
    args.causal = layer.causal;
    args.factor = layer.scale * kLog2e / float(stride);
    const int blockRows = ceilDiv(layer.Nq, block), blockCols = ceilDiv(layer.Nk, block);
    args.rowBins = {0, blockRows * (block / stride), blockRows};
    args.columnBins = {0, blockCols * (block / stride), blockCols};
    const int heads = layer.batch * layer.Hq;
    const Scratch norms(Index(4) * heads * args.rows, stream);
    args.norm2 = norms.as<float>();
    args.out = blockScore;
    clear(blockScore, Index(heads) * blockRows * blockCols, stream);
    withType(type, [&](auto t) { antidiagonalOf<decltype(t)>(width, args, heads, stream); });
}

}  // namespace sparsight::kernels::cuda::portable
