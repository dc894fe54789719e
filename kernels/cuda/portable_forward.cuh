#pragma once

#include "kernels/cuda/portable_tile.cuh"

/// O = softmax(Q K^T) V over a plan's tiles.
namespace sparsight::kernels::cuda::portable {

/// What a block does, as registers allow. A cap or a bias needs some: such a layer takes 64 rows at
/// a time, like float32 and wide rows. A block writes `kOut` columns of O; of wide float32 rows two
/// blocks each write a half.
template <class T, int W, bool kDirect>
struct ForwardShape : Shape<T, W, (kDirect && sizeof(T) == 2 && W <= 128 ? 2 : 1),
                            (W * sizeof(T) == 128 || W * sizeof(T) >= 1024 ? 128 : 256)> {
    static constexpr int kOut =
        W * int(sizeof(T)) >= 1024 || (!kDirect && sizeof(T) == 4 && W == 128) ? W / 2 : W;
    static constexpr int kOutChunks = kOut * int(sizeof(T)) / ForwardShape::kChunk;
};

struct ForwardArgs {
    Layer layer;
    Rows q, k, v;
    DevicePlan plan;
    OutRows o;
    float* lse;
    float factor;  ///< of the score tile
    bool direct;
};

/// Two neighbouring elements of a row of O. @param paired both may be written at once
__device__ inline void storePair(const OutRows& o, Index at, int column, int dv, bool paired,
                                 float x, float y) {
    if (column >= dv) return;
    const bool both = column + 1 < dv;
    if (o.t == DType::F32) {
        float* to = static_cast<float*>(o.p) + at + column;
        if (both && paired) {
            *reinterpret_cast<float2*>(to) = make_float2(x, y);
        } else {
            to[0] = x;
            if (both) to[1] = y;
        }
        return;
    }
    const std::uint32_t bits = o.t == DType::F16 ? pack<__half>(x, y) : pack<__nv_bfloat16>(x, y);
    std::uint16_t* to = static_cast<std::uint16_t*>(o.p) + at + column;
    if (both && paired) {
        *reinterpret_cast<std::uint32_t*>(to) = bits;
    } else {
        to[0] = std::uint16_t(bits);
        if (both) to[1] = std::uint16_t(bits >> 16);
    }
}

/// The probabilities of a score tile as left operands: 16 keys (16-bit types) or 8 keys (float32)
/// each. In the accumulator a lane holds the columns that it needs as an operand; for float32 the
/// keys of an operand stand in the order 0 2 4 6 1 3 5 7, and the values are read in that order.
template <class T, int kM>
struct Probabilities {
    std::uint32_t r[kM][4][4];
    __device__ explicit Probabilities(const Tile<kM>& s) {
#pragma unroll
        for (int m = 0; m < kM; ++m)
#pragma unroll
            for (int k = 0; k < 4; ++k)
#pragma unroll
                for (int i = 0; i < 4; ++i)
                    r[m][k][i] =
                        pack<T>(s[m][2 * k + i / 2][i % 2 * 2], s[m][2 * k + i / 2][i % 2 * 2 + 1]);
    }
};

/// o += P V for one chunk of V's columns. @param values where the chunk's buffer begins
template <class S, int kChunkIndex>
__device__ void addValues(float (&o)[S::kM][S::kOut / 8][4],
                          const Probabilities<typename S::T, S::kM>& p, std::uint32_t values,
                          int lane) {
    using T = typename S::T;
    constexpr int kTiles = S::kChunk / int(sizeof(T)) / 8;
    const std::uint32_t mine = leftAddress(values, 0, S::kChunk, lane);
#pragma unroll
    for (int k = 0; k < 4; ++k) {
        Left<T> a[S::kM];
#pragma unroll
        for (int m = 0; m < S::kM; ++m)
            setLeft<T>(a[m], p.r[m][k][0], p.r[m][k][1], p.r[m][k][2], p.r[m][k][3]);
#pragma unroll
        for (int j = 0; j < kTiles; j += 2) {
            std::uint32_t r[4];
            loadMatricesTransposed(
                r, (mine + std::uint32_t(k * 16 * S::kChunk)) ^ std::uint32_t(j * 16));
            Right<T> b[2];
            setRight<T>(b[0], r[0], r[1]);
            setRight<T>(b[1], r[2], r[3]);
#pragma unroll
            for (int m = 0; m < S::kM; ++m) {
                multiply<T>(o[m][kChunkIndex * kTiles + j], a[m], b[0]);
                multiply<T>(o[m][kChunkIndex * kTiles + j + 1], a[m], b[1]);
            }
        }
    }
}

/// The same for float32. A step's sum is made apart and then added: the tensor core rounds toward
/// zero at every product, which over a long row would show.
template <class S, int kChunkIndex>
__device__ void addValues(float (&o)[S::kM][S::kOut / 8][4], const Tile<S::kM>& p,
                          std::uint32_t values, int lane) {
    constexpr int kTiles = S::kChunk / 4 / 8;
    const int g = lane / 4, t = lane % 4;
#pragma unroll
    for (int m = 0; m < S::kM; ++m) {
        float sum[kTiles][4] = {};
#pragma unroll
        for (int k = 0; k < 8; ++k) {
            Left<float> a;
            setLeft<float>(a, __float_as_uint(p[m][k][0]), __float_as_uint(p[m][k][2]),
                           __float_as_uint(p[m][k][1]), __float_as_uint(p[m][k][3]));
#pragma unroll
            for (int j = 0; j < kTiles; ++j) {
                const int piece = 2 * j + g / 4, row = 8 * k + 2 * t;
                const std::uint32_t at = values + std::uint32_t(row * S::kChunk + g % 4 * 4);
                const float even = loadShared(at + std::uint32_t((piece ^ 2 * t) << 4)),
                            odd = loadShared(
                                at + std::uint32_t(S::kChunk + ((piece ^ (2 * t + 1)) << 4)));
                Right<float> b;
                setRight<float>(b, __float_as_uint(even), __float_as_uint(odd));
                multiply<float>(sum[j], a, b);
            }
        }
#pragma unroll
        for (int j = 0; j < kTiles; ++j)
#pragma unroll
            for (int e = 0; e < 4; ++e) o[m][kChunkIndex * kTiles + j][e] += sum[j][e];
    }
}

template <class S, int kBuffers>
constexpr int forwardShared() {
    return S::kLeftBytes + kBuffers * S::kRightBytes + kListedSteps * int(sizeof(Step)) + 16;
}

template <class T, int W, bool kDirect, int kBuffers>
__global__ void __launch_bounds__(kThreads, (W * sizeof(T) <= 512 ? 2 : 1))
    forwardKernel(const __grid_constant__ ForwardArgs args) {
    using S = ForwardShape<T, W, kDirect>;
    constexpr int kM = S::kM, kOut = S::kOut, kParts = S::kChunks + S::kOutChunks;
    extern __shared__ __align__(1024) unsigned char shared[];
    const std::uint32_t left = sharedAddress(shared), ring = left + S::kLeftBytes;
    Step* const steps = reinterpret_cast<Step*>(shared + S::kLeftBytes + kBuffers * S::kRightBytes);
    int* const counts = reinterpret_cast<int*>(steps + kListedSteps);

    const Layer& layer = args.layer;
    const WorkItem item = args.plan.work[blockIdx.x];
    const int part = kM == 2 ? 0 : int(blockIdx.z) % 2, batch = int(blockIdx.y);
    const int column = kOut == W ? 0 : int(blockIdx.z) / 2 * kOut;  // the block's first of O
    const int first = item.qtile * int(kTile) + part * kStep;
    if (first >= layer.Nq) return;
    const Lane lane;
    const int row = first + lane.warp * 16 * kM + lane.g;
    const int stride = rowBytes<T>(args.k), valueStride = rowBytes<T>(args.v);
    const auto* const keys =
        static_cast<const char*>(args.k.at(batch, layer.kvHead(item.head), sizeof(T)));
    const auto* const values =
        static_cast<const char*>(args.v.at(batch, layer.kvHead(item.head), sizeof(T))) +
        column * int(sizeof(T));

    copyResident<S>(left, static_cast<const char*>(args.q.at(batch, item.head, sizeof(T))),
                    rowBytes<T>(args.q), first, layer.Nq);
    commitCopies();
    const std::uint32_t mine = leftAddress(left, lane.warp * 16 * kM, S::kRow, lane.lane);

    float o[kM][kOut / 8][4], top[kM][2], sum[kM][2];
#pragma unroll
    for (int m = 0; m < kM; ++m) {
#pragma unroll
        for (int j = 0; j < kOut / 8; ++j)
#pragma unroll
            for (int e = 0; e < 4; ++e) o[m][j][e] = 0;
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            top[m][h] = -kInfinity;
            sum[m][h] = 0;
        }
    }

    const int end = item.first + item.count;
    for (int tile = item.first; tile < end; tile += kListedSteps / 2) {
        const int count = planSteps(steps, counts, args.plan, tile, end, kM == 2 ? 3 : 1 << part);
        // Of each step first the chunks of the keys, then those of the values.
        const auto issue = [&](int n, std::uint32_t to) {
            const Step step = steps[n / kParts];
            const int chunk = n % kParts;
            if (chunk < S::kChunks)
                copyStep<S>(to, keys + chunk * S::kChunk, stride, step, args.plan.gather);
            else
                copyStep<S>(to, values + (chunk - S::kChunks) * S::kChunk, valueStride, step,
                            args.plan.gather);
        };
        Ring<kBuffers, S::kRightBytes, decltype(issue)> buffers(ring, count * kParts, issue);
        for (int i = 0; i < count; ++i) {
            const int flags = steps[i].flags;
            const auto next = [&](int part) {
                return buffers.next(i * kParts + part, count * kParts);
            };
            const bool wanted = kM == 1 || flags >> (lane.warp / 2) & 1;
            Tile<kM> s;
#pragma unroll
            for (int chunk = 0; chunk < S::kChunks; ++chunk) {
                const std::uint32_t right = rightAddress(next(chunk), S::kChunk, lane.lane);
                if (chunk == 0) clear<kM>(s);
                if (wanted)
                    addScores<S, S::kRow>(s, mine ^ std::uint32_t(chunk * S::kChunk), right);
            }
            std::uint32_t value = 0;
            if constexpr (kM == 2) value = next(S::kChunks);
            if (wanted) {
                if constexpr (!kDirect)
                    toLogits<kM>(s, layer, item.head, steps[i], row, args.plan.gather);
                if (flags & kTested)
                    hide<kM>(s, layer, steps[i], row, args.plan.gather, args.plan.bits);
#pragma unroll
                for (int m = 0; m < kM; ++m) {
                    float shrink[2];
#pragma unroll
                    for (int h = 0; h < 2; ++h) {
                        float most = s[m][0][2 * h];
#pragma unroll
                        for (int j = 0; j < 8; ++j)
                            most = fmaxf(most, fmaxf(s[m][j][2 * h], s[m][j][2 * h + 1]));
                        most = fmaxf(most, __shfl_xor_sync(kAllLanes, most, 1));
                        most = fmaxf(most, __shfl_xor_sync(kAllLanes, most, 2));
                        most = fmaxf(most, top[m][h]);
                        const float base = most == -kInfinity ? 0 : most * args.factor;
                        shrink[h] = exp2Fast(fmaf(top[m][h], args.factor, -base));
                        top[m][h] = most;
                        float add = 0;
#pragma unroll
                        for (int j = 0; j < 8; ++j)
#pragma unroll
                            for (int b = 0; b < 2; ++b) {
                                float& x = s[m][j][2 * h + b];
                                x = exp2Fast(fmaf(x, args.factor, -base));
                                add += x;
                            }
                        sum[m][h] = fmaf(sum[m][h], shrink[h], add);
                    }
                    if (__any_sync(kAllLanes, shrink[0] != 1 || shrink[1] != 1)) {
#pragma unroll
                        for (int j = 0; j < kOut / 8; ++j)
#pragma unroll
                            for (int e = 0; e < 4; ++e) o[m][j][e] *= shrink[e / 2];
                    }
                }
            }
            const std::conditional_t<sizeof(T) == 4, const Tile<kM>&, Probabilities<T, kM>> p(s);
            if constexpr (kM == 1) value = next(S::kChunks);  // later: fewer registers in use
            if (wanted) addValues<S, 0>(o, p, value, lane.lane);
            if constexpr (S::kOutChunks > 1) {
                value = next(S::kChunks + 1);
                if (wanted) addValues<S, 1>(o, p, value, lane.lane);
            }
            if constexpr (S::kOutChunks > 2) {
                static_assert(S::kOutChunks == 4);
                value = next(S::kChunks + 2);
                if (wanted) addValues<S, 2>(o, p, value, lane.lane);
                value = next(S::kChunks + 3);
                if (wanted) addValues<S, 3>(o, p, value, lane.lane);
            }
        }
        buffers.drain();
    }

    const OutRows& out = args.o;
    const int bytes = out.t == DType::F32 ? 4 : 2;
    const bool paired = ((out.sb | out.sh | out.sn) & 1) == 0 &&
                        reinterpret_cast<std::uintptr_t>(out.p) % std::uintptr_t(2 * bytes) == 0;
#pragma unroll
    for (int m = 0; m < kM; ++m)
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            const int r = row + 16 * m + 8 * h;
            float total = sum[m][h];
            total += __shfl_xor_sync(kAllLanes, total, 1);
            total += __shfl_xor_sync(kAllLanes, total, 2);
            if (r >= layer.Nq) continue;
            const float base = total > 0 ? top[m][h] * args.factor : 0;
            if (args.lse && lane.t == 0 && column == 0)
                args.lse[(Index(batch) * layer.Hq + item.head) * layer.Nq + r] =
                    total > 0 ? kLn2 * (base + log2f(total)) : -kInfinity;
            float weight = total;
            if (layer.sinks) weight += exp2f(layer.sinks[item.head] * kLog2e - base);
            const float share = total > 0 ? 1 / weight : 0;
            const Index at = batch * out.sb + item.head * out.sh + r * out.sn;
#pragma unroll
            for (int j = 0; j < kOut / 8; ++j)
                storePair(out, at, column + 8 * j + 2 * lane.t, layer.dv, paired,
                          o[m][j][2 * h] * share, o[m][j][2 * h + 1] * share);
        }
}

template <class T, int W, bool kDirect>
void forwardOf(const ForwardArgs& args, cudaStream_t stream) {
    using S = ForwardShape<T, W, kDirect>;
    constexpr int kBuffers = S::kLeftBytes + 3 * S::kRightBytes <= 80 * 1024 ? 3 : 2;
    constexpr int kShared = forwardShared<S, kBuffers>();
    static_assert(kShared <= 99 * 1024);
    if (args.plan.workCount == 0) return;
    allowShared(forwardKernel<T, W, kDirect, kBuffers>, kShared);
    const dim3 grid(unsigned(args.plan.workCount), unsigned(args.layer.batch),
                    (S::kM == 2 ? 1 : 2) * (W / S::kOut));
    forwardKernel<T, W, kDirect, kBuffers><<<grid, kThreads, kShared, stream>>>(args);
    check(cudaGetLastError(), "forward");
}
template <class T, int W>
void forwardOf(const ForwardArgs& args, cudaStream_t stream) {
    args.direct ? forwardOf<T, W, true>(args, stream) : forwardOf<T, W, false>(args, stream);
}

/// By type, of every width.
template <class T>
void forwardOf(int width, const ForwardArgs& args, cudaStream_t stream) {
    width == 64    ? forwardOf<T, 64>(args, stream)
    : width == 128 ? forwardOf<T, 128>(args, stream)
                   : forwardOf<T, 256>(args, stream);
}

}  // namespace sparsight::kernels::cuda::portable
