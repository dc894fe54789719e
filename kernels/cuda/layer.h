#pragma once

#include <cuda_runtime.h>
#include <math.h>

#include <cstdint>

#include "kernels/backend.h"

/// What the device code shares: the layer, its tensors and its plan as device pointers.
namespace sparsight::kernels::cuda {

constexpr float kLog2e = 1.44269504088896341f;
constexpr float kLn2 = 0.693147180559945309f;

/// A [batch, head, token, width] tensor on the device, strides in elements. Rows begin on 16 bytes
/// and hold `width` elements of which those beyond the model's own head width are zero.
struct Rows {
    const void* p = nullptr;
    Index sb = 0, sh = 0, sn = 0;

    __host__ __device__ const void* at(Index batch, Index head, Index bytes) const {
        return static_cast<const char*>(p) + (batch * sb + head * sh) * bytes;
    }
};

/// An output tensor on the device: any strides, `dv` elements a row.
struct OutRows {
    void* p = nullptr;
    DType t = DType::F32;
    Index sb = 0, sh = 0, sn = 0;
};

/// A Problem whose pointers are device pointers; see problem.h for every meaning.
struct Layer {
    int batch = 1, Hq = 1, Hkv = 1, Nq = 0, Nk = 0, dv = 0;
    float scale = 1, softcap = 0;
    int causal = 1, window = 0;
    const float* sinks = nullptr;
    const float* relBias = nullptr;

    __host__ __device__ int position(int row) const { return row + Nk - Nq; }
    __host__ __device__ int visibleEnd(int row) const {
        const int end = position(row) + 1;
        return !causal ? Nk : end < 0 ? 0 : end > Nk ? Nk : end;
    }
    __host__ __device__ int visibleBegin(int row) const {
        const int begin = position(row) - window + 1, end = visibleEnd(row);
        return window <= 0 || begin < 0 ? 0 : begin > end ? end : begin;
    }
    __host__ __device__ int kvHead(int h) const { return h / (Hq / Hkv); }
    /// Scores are scale * q.k and nothing else.
    __host__ __device__ bool plain() const { return softcap == 0 && relBias == nullptr; }
    /// Base-2 logit of one pair (kernels.md 2).
    __device__ float logit2(float dot, int head, int row, int key) const {
        float s = scale * dot;
        if (softcap != 0) s = softcap * tanhf(s / softcap);
        if (relBias) s += relBias[Index(head) * (Nq + Nk - 1) + key - row + Nq - 1];
        return s * kLog2e;
    }
};

/// A Plan's arrays on the device.
struct DevicePlan {
    const KvTile* tiles = nullptr;
    const std::int32_t* gather = nullptr;
    const WorkItem* work = nullptr;
    int workCount = 0;
    const std::int32_t* bitsOffset = nullptr;
    const std::uint64_t* bits = nullptr;
    bool gathers = false;  ///< some tile is gathered
    bool shared = true;    ///< nearly every tile concerns both halves of its rows
};

/// Throws Error(Device) naming `what` when a call of the runtime failed.
void check(cudaError_t status, const char* what);

/// Multiprocessors of the current device.
int multiprocessors();

/// Device memory of one operation, ordered on its stream: taken at once, given back by the
/// destructor. Memory that was given back stays in the device's pool for the next call.
class Scratch {
public:
    Scratch() = default;
    /// @throws Error(Resources) when the device has not enough memory
    Scratch(Index bytes, cudaStream_t stream);
    ~Scratch();
    Scratch(Scratch&& o) noexcept;
    Scratch& operator=(Scratch&& o) noexcept;

    template <class T>
    T* as() const {
        return static_cast<T*>(m_p);
    }

private:
    void* m_p = nullptr;
    cudaStream_t m_stream = nullptr;
};

/// Row statistics of the dense attention, device pointers, null = not wanted; see CaptureOut.
struct RowStatistics {
    float *lse = nullptr, *rowMax = nullptr, *entropy = nullptr, *meanDistance = nullptr,
          *sinkMass = nullptr, *localMass = nullptr;
    int sinkTokens = 0, localTokens = 0;

    __host__ __device__ bool beyondLse() const {
        return rowMax || entropy || meanDistance || sinkMass || localMass;
    }
};

/// Block, column and diagonal statistics, device pointers, null = not wanted; see CaptureOut.
struct MassStatistics {
    float *blockSum = nullptr, *blockMax = nullptr, *colMass = nullptr, *diagMass = nullptr;
    int block = 64;
};

}  // namespace sparsight::kernels::cuda
