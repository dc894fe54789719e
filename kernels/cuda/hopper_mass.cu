#include "kernels/cuda/hopper_mass.h"

#include <algorithm>

#include "kernels/cuda/hopper_launch.h"
#include "kernels/cuda/hopper_maps.h"
#include "kernels/cuda/hopper_mass.cuh"

namespace sparsight::kernels::cuda::hopper {
namespace {

constexpr Index kPartialBytes = Index(3) << 30;  ///< of one slab of heads

template <class T>
MassLaunch launchOfWidth(int width, bool plain, bool diagonals) {
    return width == 64    ? massLaunchOf<T, 64>(plain, diagonals)
           : width == 128 ? massLaunchOf<T, 128>(plain, diagonals)
                          : massLaunchOf<T, 256>(plain, diagonals);
}

/// Blocks from their parts of 64 queries x 16 keys. Parts that no step wrote hold 0.
__global__ void sumBlocks(const float* part, const float* partMax, int halves, int sixteenths,
                          int block, int rows, int cols, float* sum, float* most) {
    const int col = int(blockIdx.x * blockDim.x + threadIdx.x), row = int(blockIdx.y);
    const Index head = blockIdx.z;
    if (col >= cols) return;
    float total = 0, top = 0;
    for (int y = row * (block / 64); y < min(halves, (row + 1) * (block / 64)); ++y)
        for (int x = col * (block / 16); x < min(sixteenths, (col + 1) * (block / 16)); ++x) {
            const Index at = (head * halves + y) * sixteenths + x;
            total += part[at];
            top = maxOrNan(top, partMax[at]);
        }
    const Index at = (head * rows + row) * cols + col;
    if (sum) sum[at] = total;
    if (most) most[at] = top;
}

/// Diagonals from the parts of the key halves that touch them.
__global__ void sumDiagonals(Layer l, const float* part, int halves, Index pitch, float* out) {
    const Index index = Index(blockIdx.x) * blockDim.x + threadIdx.x, head = blockIdx.y;
    if (index >= pitch) return;
    const int offset = l.causal ? int(index) : int(index) - (l.Nq - 1);
    LongSum sum;
    for (int half = 0; half < halves; ++half) {
        int begin, end;
        queryTiles(l, half / 2, begin, end);
        if (begin == end) continue;
        const int base = l.Nk - l.Nq - half * kHalfTokens;
        if (offset >= base + begin * kTokens - 63 && offset < base + end * kTokens)
            sum.add(part[(head * halves + half) * pitch + index]);
    }
    // Not causal: by key - query, which runs the other way.
    out[head * pitch + (l.causal ? index : pitch - 1 - index)] = sum.sum;
}

}  // namespace

bool massFits(const MassStatistics& out) {
    return (out.blockSum == nullptr && out.blockMax == nullptr) || out.block % 64 == 0;
}

void captureMass(const Layer& layer, DType type, int width, Rows q, Rows k, const float* norm2,
                 Index pitch, const MassStatistics& out, cudaStream_t stream) {
    const int heads = layer.batch * layer.Hq, ktiles = (layer.Nk + kTokens - 1) / kTokens;
    if (heads == 0 || ktiles == 0 || layer.Nq == 0) return;
    const bool blocks = out.blockSum || out.blockMax, diagonals = out.diagMass != nullptr;
    const int halves = int(pitch) / kHalfTokens, sixteenths = 8 * ktiles;
    const Index diagonalPitch = layer.causal ? Index(layer.Nk) : Index(layer.Nq) + layer.Nk - 1;
    const Index blockFloats = blocks ? Index(halves) * sixteenths : 0;
    const Index diagonalFloats = diagonals ? 2 * ktiles * diagonalPitch : 0;
    const Index headBytes = 4 * (2 * blockFloats + diagonalFloats);
    const int slab =
        int(std::clamp<Index>(kPartialBytes / std::max<Index>(1, headBytes), 1, heads));
    const Scratch part(blockFloats * slab * 4, stream), partMax(blockFloats * slab * 4, stream),
        diagonalPart(diagonalFloats * slab * 4, stream), next(sizeof(int), stream);
    const CUtensorMap qMap = makeMap(q, type, width, layer.Nq, layer.Hq, layer.batch);
    const CUtensorMap kMap = makeMap(k, type, width, layer.Nk, layer.Hkv, layer.batch);
    const MassLaunch launch = type == DType::F16
                                  ? launchOfWidth<__half>(width, layer.plain(), diagonals)
                                  : launchOfWidth<__nv_bfloat16>(width, layer.plain(), diagonals);
    for (int first = 0; first < heads; first += slab) {
        const int count = std::min(slab, heads - first);
        MassArgs args{layer,
                      norm2,
                      pitch,
                      out,
                      part.as<float>(),
                      partMax.as<float>(),
                      diagonalPart.as<float>(),
                      first,
                      count,
                      next.as<int>()};
        check(cudaMemsetAsync(next.as<int>(), 0, sizeof(int), stream), "clearing a counter");
        if (blocks) {
            const auto bytes = std::size_t(blockFloats * count * 4);
            check(cudaMemsetAsync(part.as<float>(), 0, bytes, stream), "clearing memory");
            check(cudaMemsetAsync(partMax.as<float>(), 0, bytes, stream), "clearing memory");
        }
        launch(args, qMap, kMap, std::min(count * ktiles, multiprocessors()), stream);
        if (blocks) {
            const int rows = (layer.Nq + out.block - 1) / out.block,
                      cols = (layer.Nk + out.block - 1) / out.block;
            const Index at = Index(first) * rows * cols;
            sumBlocks<<<dim3(unsigned(cols + 127) / 128, unsigned(rows), unsigned(count)), 128, 0,
                        stream>>>(part.as<float>(), partMax.as<float>(), halves, sixteenths,
                                  out.block, rows, cols, out.blockSum ? out.blockSum + at : nullptr,
                                  out.blockMax ? out.blockMax + at : nullptr);
            check(cudaGetLastError(), "summing blocks");
        }
        if (diagonals) {
            sumDiagonals<<<dim3(unsigned((diagonalPitch + 255) / 256), unsigned(count)), 256, 0,
                           stream>>>(layer, diagonalPart.as<float>(), 2 * ktiles, diagonalPitch,
                                     out.diagMass + first * diagonalPitch);
            check(cudaGetLastError(), "summing diagonals");
        }
    }
}

}  // namespace sparsight::kernels::cuda::hopper
