#pragma once

#include <type_traits>

#include "kernels/cuda/portable_mma.cuh"

/// The score tile: a block of four warps multiplies `kRows` resident rows (left) with 64 streamed
/// rows (right). Warp w owns the rows 16 kM w .. 16 kM (w + 1) - 1; lane l = 4 g + t holds
/// s[m][j][2 h + b], which is row 16 kM w + 16 m + 8 h + g and column 8 j + 2 t + b.
///
/// Rows lie in shared memory as 16-byte pieces; piece p of row r stands at place p ^ (r & 7), so
/// that eight rows of one piece are on different banks. The streamed rows come through a ring of
/// buffers, a chunk (`kChunk` bytes of each row) at a time.
namespace sparsight::kernels::cuda::portable {

template <class T_, int W, int kM_, int kChunk_>
struct Shape {
    using T = T_;
    static constexpr int kM = kM_, kRows = 64 * kM, kWidth = W;
    static constexpr int kRow = W * int(sizeof(T));
    static constexpr int kChunk = kChunk_, kChunks = kRow / kChunk;
    static constexpr int kLeftBytes = kRows * kRow, kRightBytes = kStep * kChunk;
};

/// As many rows as 64 KB hold, 128 at most; shared memory stays below the 99 KB of compute
/// capability 8.6.
template <class T, int W>
using WideShape = Shape<T, W, (W * sizeof(T) <= 512 ? 2 : 1),
                        (W * sizeof(T) <= 128 || W * sizeof(T) >= 512 ? 128 : 256)>;
/// 128 rows where they take 32 KB at most.
template <class T, int W, int kChunk>
using SlimShape = Shape<T, W, (W * sizeof(T) <= 256 ? 2 : 1), kChunk>;

template <int kM>
using Tile = float[kM][8][4];

struct Lane {
    int warp, lane, g, t;
    __device__ Lane()
        : warp(int(threadIdx.x) / 32),
          lane(int(threadIdx.x) % 32),
          g(int(threadIdx.x) % 32 / 4),
          t(int(threadIdx.x) % 4) {}
};

/// Bytes from one row to the next.
template <class T>
__device__ int rowBytes(const Rows& rows) {
    return int(rows.sn) * int(sizeof(T));
}

/// Where lane `lane` reads a left fragment (or, transposed, a value fragment) at row `row`.
__device__ inline std::uint32_t leftAddress(std::uint32_t base, int row, int rowBytes, int lane) {
    return base + std::uint32_t((row + lane % 16) * rowBytes + ((lane / 16 ^ (lane & 7)) << 4));
}
/// Where lane `lane` reads a right fragment of 16 streamed rows.
__device__ inline std::uint32_t rightAddress(std::uint32_t base, int rowBytes, int lane) {
    return base + std::uint32_t((lane % 8 + lane / 16 * 8) * rowBytes +
                                ((lane / 8 % 2 ^ (lane & 7)) << 4));
}

/// Copies `kCount` rows of `kBytes` bytes into shared memory. @param token the token of a row, < 0
/// for a row of zeros
template <int kBytes, int kCount, class Token>
__device__ void copyRows(std::uint32_t to, const char* from, int stride, const Token& token) {
    constexpr int kPieces = kBytes / 16, kAtOnce = kThreads / kPieces;
    static_assert(kThreads % kPieces == 0 && kCount % kAtOnce == 0);
    const int piece = int(threadIdx.x) % kPieces, first = int(threadIdx.x) / kPieces;
#pragma unroll
    for (int i = 0; i < kCount / kAtOnce; ++i) {
        const int row = first + i * kAtOnce, n = token(row);
        copyAsync16(to + std::uint32_t(row * kBytes + ((piece ^ (row & 7)) << 4)),
                    from + Index(n < 0 ? 0 : n) * stride + piece * 16, n >= 0);
    }
}

/// The resident rows first, first + 1, ... (zeros from `end` on).
template <class S>
__device__ void copyResident(std::uint32_t to, const char* from, int stride, int first, int end) {
    copyRows<S::kRow, S::kRows>(to, from, stride,
                                [=](int row) { return first + row < end ? first + row : -1; });
}

/// s += left right^T over `kBytes` bytes of each row. @param left, right the lane's addresses
template <class S, int kLeftRow>
__device__ void addScores(Tile<S::kM>& s, std::uint32_t left, std::uint32_t right) {
    using T = typename S::T;
#pragma unroll
    for (int k = 0; k < S::kChunk / 32; ++k) {
        Left<T> a[S::kM];
#pragma unroll
        for (int m = 0; m < S::kM; ++m) {
            std::uint32_t r[4];
            loadMatrices(r, (left + std::uint32_t(m * 16 * kLeftRow)) ^ std::uint32_t(k * 32));
            setLeft<T>(a[m], r[0], r[1], r[2], r[3]);
        }
#pragma unroll
        for (int j = 0; j < 8; j += 2) {
            std::uint32_t r[4];
            loadMatrices(r, (right + std::uint32_t(j * 8 * S::kChunk)) ^ std::uint32_t(k * 32));
            Right<T> b[2];
            setRight<T>(b[0], r[0], r[1]);
            setRight<T>(b[1], r[2], r[3]);
#pragma unroll
            for (int m = 0; m < S::kM; ++m) {
                multiply<T>(s[m][j], a[m], b[0]);
                multiply<T>(s[m][j + 1], a[m], b[1]);
            }
        }
    }
}

/// 64 streamed rows and what is tested in their columns.
struct Step {
    int token;  ///< the first streamed row; with kListed an offset into the plan's gather list
    int valid;  ///< columns in use
    int flags;
    int bits;  ///< kExact: where in the plan's bits the word of row 0 stands
};
enum StepFlag : int {
    kOwnLower = 1,  ///< rows 0..63 of the q tile use it
    kOwnUpper = 2,
    kCausal = 4,
    kWindow = 8,
    kTail = 16,  ///< valid < 64
    kExact = 32,
    kListed = 64,
    kTested = kCausal | kWindow | kTail | kExact
};

template <class S>
__device__ void copyStep(std::uint32_t to, const char* from, int stride, const Step& step,
                         const std::int32_t* list) {
    if (step.flags & kListed) {
        copyRows<S::kChunk, kStep>(to, from, stride, [&](int row) {
            return row < step.valid ? list[step.token + row] : -1;
        });
        return;
    }
    constexpr int kPieces = S::kChunk / 16, kAtOnce = kThreads / kPieces;
    const int piece = int(threadIdx.x) % kPieces;
    int row = int(threadIdx.x) / kPieces;
    const char* at = from + Index(step.token + row) * stride + piece * 16;
    to += std::uint32_t(row * S::kChunk + ((piece ^ (row & 7)) << 4));
#pragma unroll
    for (int i = 0; i < kStep / kAtOnce; ++i) {
        copyAsync16(to + std::uint32_t(i * kAtOnce * S::kChunk), row < step.valid ? at : from,
                    row < step.valid);
        row += kAtOnce;
        at += Index(kAtOnce) * stride;
    }
}

/// Takes turns through `kBuffers` buffers: next() gives the buffer of the next item, which has
/// arrived, and starts the copy of a later one. `issue(item, address)` starts the copy of an item.
template <int kBuffers, int kBytes, class Issue>
class Ring {
public:
    __device__ Ring(std::uint32_t base, int items, const Issue& issue)
        : m_base(base), m_items(items), m_issue(issue) {
#pragma unroll
        for (int i = 0; i < kBuffers - 1; ++i) put(i);
    }
    __device__ std::uint32_t next() {
        waitCopies<kBuffers - 2>();
        __syncthreads();
        put(m_slot == 0 ? kBuffers - 1 : m_slot - 1);
        const std::uint32_t at = m_base + std::uint32_t(m_slot * kBytes);
        m_slot = m_slot + 1 == kBuffers ? 0 : m_slot + 1;
        return at;
    }
    /// next() for a caller that counts: the buffer of `item` of `items`.
    __device__ std::uint32_t next(int item, int items) {
        m_put = item + kBuffers - 1;
        m_items = items;
        return next();
    }
    /// Every thread is done with every buffer.
    __device__ void drain() {
        waitCopies<0>();
        __syncthreads();
    }

private:
    __device__ void put(int slot) {
        if (m_put < m_items) m_issue(m_put, m_base + std::uint32_t(slot * kBytes));
        commitCopies();
        ++m_put;
    }
    std::uint32_t m_base;
    int m_items, m_put = 0, m_slot = 0;
    const Issue& m_issue;
};

template <int kM>
__device__ void clear(Tile<kM>& s) {
#pragma unroll
    for (int m = 0; m < kM; ++m)
#pragma unroll
        for (int j = 0; j < 8; ++j)
#pragma unroll
            for (int e = 0; e < 4; ++e) s[m][j][e] = 0;
}

/// Scores of `count` steps, one after the other: use(step, i, s) gets the tile of step at(i).
/// `ready(step, i)` is called when the copies of step i start.
/// @param from the streamed head's rows
template <class S, int kBuffers, class At, class Ready, class Use>
__device__ void sweep(std::uint32_t left, std::uint32_t ring, const char* from, int stride,
                      const std::int32_t* list, int count, const At& at, const Ready& ready,
                      const Use& use) {
    const Lane lane;
    const std::uint32_t mine = leftAddress(left, lane.warp * 16 * S::kM, S::kRow, lane.lane);
    const auto issue = [&](int item, std::uint32_t to) {
        const int i = item / S::kChunks, chunk = item % S::kChunks;
        const Step step = at(i);
        if (chunk == 0) ready(step, i);
        copyStep<S>(to, from + chunk * S::kChunk, stride, step, list);
    };
    Ring<kBuffers, S::kRightBytes, decltype(issue)> buffers(ring, count * S::kChunks, issue);
    for (int i = 0; i < count; ++i) {
        const Step step = at(i);
        const bool wanted = S::kM == 1 || step.flags >> (lane.warp / 2) & 1;
        Tile<S::kM> s;
        clear<S::kM>(s);
#pragma unroll
        for (int chunk = 0; chunk < S::kChunks; ++chunk) {
            const std::uint32_t right = rightAddress(buffers.next(), S::kChunk, lane.lane);
            if (wanted) addScores<S, S::kRow>(s, mine ^ std::uint32_t(chunk * S::kChunk), right);
        }
        if (wanted) use(step, i, s);
    }
    buffers.drain();
}

/// The same bits, of which the compiler knows nothing: what is computed from them is computed here,
/// each time, and not held in registers all along.
__device__ inline std::uint32_t onTheSpot(std::uint32_t x) {
    asm volatile("" : "+r"(x));
    return x;
}
__device__ inline int onTheSpot(int x) {
    return int(onTheSpot(std::uint32_t(x)));
}

// ---- What counts: one bit a column, for each of the lane's rows.

/// Columns [from, to) of 64.
__device__ inline std::uint64_t columnRange(int from, int to) {
    if (to <= from || to <= 0 || from >= kStep) return 0;
    const std::uint64_t below = to >= kStep ? ~std::uint64_t(0) : (std::uint64_t(1) << to) - 1;
    return from <= 0 ? below : below & ~std::uint64_t(0) << from;
}

/// Sets the columns of row (m, h) whose bit is 0 to `hidden`.
template <int kM>
__device__ void keepColumns(Tile<kM>& s, int m, int h, std::uint64_t word, float hidden) {
    word >>= 2 * (threadIdx.x % 4);
    const auto lower = std::uint32_t(word), upper = std::uint32_t(word >> 32);
#pragma unroll
    for (int j = 0; j < 8; ++j)
#pragma unroll
        for (int b = 0; b < 2; ++b) {
            const std::uint32_t bits = j < 4 ? lower : upper;
            float& x = s[m][j][2 * h + b];
            x = bits & 1u << (j % 4 * 8 + b) ? x : hidden;
        }
}

/// Sets what a step does not execute to -inf. @param row the lane's row of (m, h) = (0, 0)
template <int kM>
__device__ void hide(Tile<kM>& s, const Layer& layer, const Step& step, int row,
                     const std::int32_t* list, const std::uint64_t* bits) {
    const int t = onTheSpot(2 * (int(threadIdx.x) % 4));
#pragma unroll
    for (int m = 0; m < kM; ++m)
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            const int r = onTheSpot(row) + 16 * m + 8 * h;
            const int last = layer.position(r);
            const int begin = step.flags & kWindow ? layer.visibleBegin(r) : 0;
            int from = 0, to = step.valid;
            if (!(step.flags & kListed)) {
                if (step.flags & kCausal) to = min(to, last - step.token + 1);
                if (step.flags & kWindow) from = begin - step.token;
            }
            std::uint64_t word = columnRange(from, to);
            if (step.flags & kExact) word &= bits[step.bits + 2 * (r % int(kTile))];
            if (step.flags & kListed && step.flags & (kCausal | kWindow)) {
                for (int n = 0; n < 16; ++n) {
                    const int column = n / 2 * 8 + t + n % 2;
                    if (column >= step.valid) continue;
                    const int key = list[step.token + column];
                    if ((step.flags & kCausal && key > last) || key < begin)
                        word &= ~(std::uint64_t(1) << column);
                }
            }
            keepColumns<kM>(s, m, h, word, -kInfinity);
        }
}

/// The factor of a score tile: x = factor * s are base-2 logits. Raw products where that is all
/// there is to it; a layer with a cap, a bias or no positive scale goes through toLogits first.
struct Scale {
    float factor;
    bool direct;
    __host__ __device__ explicit Scale(const Layer& layer)
        : factor(layer.scale * kLog2e), direct(layer.plain() && layer.scale > 0) {
        if (!direct) factor = 1;
    }
};

/// Raw products to base-2 logits. @param place gives key - row + Nq - 1 of (m, h, j, b)
template <int kM, class Place>
__device__ void toLogits(Tile<kM>& s, const Layer& layer, int head, const Place& place) {
    const int biases = layer.Nq + layer.Nk - 1;
    const float* bias = layer.relBias + (layer.relBias ? Index(head) * biases : 0);
    const float inverse = layer.softcap != 0 ? 1 / layer.softcap : 0;
#pragma unroll
    for (int m = 0; m < kM; ++m)
#pragma unroll
        for (int j = 0; j < 8; ++j) {
            __syncwarp();  // no more than these four biases at a time in registers
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                float x = layer.scale * s[m][j][e];
                if (layer.softcap != 0) x = layer.softcap * tanhFast(x * inverse);
                if (layer.relBias) {
                    const int at = place(m, e / 2, j, e % 2);
                    x += bias[at < 0 ? 0 : at >= biases ? biases - 1 : at];
                }
                s[m][j][e] = x * kLog2e;
            }
        }
}

/// toLogits for query rows against a step of keys. @param row as in hide
template <int kM>
__device__ void toLogits(Tile<kM>& s, const Layer& layer, int head, const Step& step, int row,
                         const std::int32_t* list) {
    const int t = onTheSpot(2 * (int(threadIdx.x) % 4));
    row = onTheSpot(row);
    toLogits<kM>(s, layer, head, [&](int m, int h, int j, int b) {
        const int column = min(8 * j + t + b, step.valid - 1);
        const int key = step.flags & kListed ? list[step.token + column] : step.token + column;
        return key - (row + 16 * m + 8 * h) + layer.Nq - 1;
    });
}

// ---- Which steps a block takes.

/// The key steps that rows [first, end) see in the model's own attention.
struct VisibleSteps {
    int begin = 0, count = 0, Nk = 0, causalFrom = 0, windowBelow = 0;

    __device__ VisibleSteps(const Layer& layer, int first, int end)
        : VisibleSteps(layer, first, end, 0, layer.Nk) {
        begin = begin / kStep * kStep;
        count = (max(0, layer.visibleEnd(end - 1) - begin) + kStep - 1) / kStep;
    }
    /// Only the keys [from, to), the first step at the first key seen.
    __device__ VisibleSteps(const Layer& layer, int first, int end, int from, int to)
        : begin(max(from, layer.visibleBegin(first))),
          Nk(min(to, layer.visibleEnd(end - 1))),
          causalFrom(layer.causal ? layer.position(first) : layer.Nk),
          windowBelow(layer.window > 0 ? layer.visibleBegin(end - 1) : 0) {
        count = (max(0, Nk - begin) + kStep - 1) / kStep;
    }
    __device__ Step operator()(int i) const {
        Step step{begin + i * kStep, 0, kOwnLower | kOwnUpper, 0};
        step.valid = min(kStep, Nk - step.token);
        if (step.valid < kStep) step.flags |= kTail;
        if (step.token + step.valid - 1 > causalFrom) step.flags |= kCausal;
        if (step.token < windowBelow) step.flags |= kWindow;
        return step;
    }
};

constexpr int kListedSteps = kThreads;  ///< steps that are decoded at a time

/// Writes `step` of the threads with `used` one after the other, in thread order.
/// @return how many. Two barriers; the caller has seen that nobody reads the old list
__device__ inline int compactSteps(Step* steps, int* counts, const Step& step, bool used) {
    const Lane lane;
    const unsigned votes = __ballot_sync(kAllLanes, used);
    if (lane.lane == 0) counts[lane.warp] = __popc(votes);
    __syncthreads();
    int before = 0, total = 0;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
        if (w < lane.warp) before += counts[w];
        total += counts[w];
    }
    if (used) steps[before + __popc(votes & ((1u << lane.lane) - 1))] = step;
    __syncthreads();
    return total;
}

/// The steps of the plan's tiles first .. first + 63 (below `end`).
/// @param halves which 64-row halves of the q tile the block has: 1, 2 or 3
__device__ inline int planSteps(Step* steps, int* counts, const DevicePlan& plan, int first,
                                int end, int halves) {
    const int at = first + int(threadIdx.x) / 2, part = int(threadIdx.x) % 2;
    Step step{};
    bool used = false;
    if (at < end) {
        const KvTile& tile = plan.tiles[at];
        const int own = tile.own >> (2 * part) & halves;
        step.valid = min(int(tile.valid) - part * kStep, kStep);
        used = own != 0 && step.valid > 0;
        step.token = tile.kind == Pair64 ? (part ? tile.b : tile.a) : tile.a + part * kStep;
        step.flags = own;
        if (step.valid < kStep) step.flags |= kTail;
        if (tile.mask & MaskCausal) step.flags |= kCausal;
        if (tile.mask & MaskWindow) step.flags |= kWindow;
        if (tile.kind == Gather) step.flags |= kListed;
        if (tile.mask & MaskExact) {
            step.flags |= kExact;
            step.bits = plan.bitsOffset[at] + part;
        }
    }
    return compactSteps(steps, counts, step, used);
}

/// Lets a kernel use more than 48 KB of shared memory, then checks its launch.
template <class Kernel>
void allowShared(Kernel kernel, int bytes) {
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes),
          "shared memory");
}

inline int ceilDiv(Index a, Index b) {
    return int((a + b - 1) / b);
}

}  // namespace sparsight::kernels::cuda::portable
