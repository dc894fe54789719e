#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/base/job.h"
#include "kernels/plan.h"

namespace sparsight::kernels {

/// What an operation really did; the UI prints it.
struct Report {
    std::string kernel;         ///< id of the path taken
    int threads = 1;
    Index tiles = 0;            ///< KvTiles executed
    Index nonFiniteRows = 0;    ///< rows poisoned by NaN or Inf in the inputs
    double kernelMs = 0;        ///< time on the device, copies apart; 0 where it is not measured
    double planMs = 0;          ///< time of forwardMasks' plan
    Index bytesStaged = 0;      ///< inputs copied or repacked before the kernel could read them
    std::vector<std::string> notes;  ///< fallbacks, in words
};

/// Exact statistics of the dense attention of each head, memory O(N) per head plus the blocks.
/// Null pointers are not computed. P is the model's own attention probability: a learned sink takes
/// its part, so that a row of P sums to less than 1, and entropy is -sum_k P ln P over the keys.
/// Rows that see no key give LSE and rowMax -inf, the rest 0. With a batch, its axis comes first.
struct CaptureOut {
    float* lse = nullptr;        ///< [Hq][Nq] natural log, without sinks
    float* rowMax = nullptr;     ///< [Hq][Nq] largest score of the row (natural units)
    float* entropy = nullptr;    ///< [Hq][Nq] nats
    float* meanDistance = nullptr;  ///< [Hq][Nq] sum_k P (pos - k), tokens
    float* sinkMass = nullptr;   ///< [Hq][Nq] mass on the first `sinkTokens` keys
    float* localMass = nullptr;  ///< [Hq][Nq] mass on distances 0 .. localTokens-1
    float* blockSum = nullptr;   ///< [Hq][ceil(Nq/block)][ceil(Nk/block)] sum of P in the block
    float* blockMax = nullptr;   ///< same shape, largest P in the block
    float* colMass = nullptr;    ///< [Hq][Nk] C_j = sum_i P_ij
    float* diagMass = nullptr;   ///< [Hq][Nk] D_s = sum_i P_{i, pos(i)-s}; not causal: [Hq][Nq+Nk-1] by j - i + Nq - 1
    /// [Hq][Nq][topK] keys of the row's largest P, largest first, equal scores: lower key first; -1
    /// beyond the keys that the row sees. A row poisoned by NaN or Inf: -1 and P NaN throughout.
    std::int32_t* topKey = nullptr;
    float* topP = nullptr;       ///< [Hq][Nq][topK] their P, 0 beyond
};
struct CaptureSpec {
    Index block = 64;
    Index sinkTokens = 4, localTokens = 64;
    Index topK = 64;  ///< >= 1; read only for topKey and topP
};

enum class Statistic : std::uint8_t { Sum, Mean, Max };
enum class Show : std::uint8_t {
    All,   ///< the whole attention
    Kept,  ///< only pairs that the mask keeps
    Lost   ///< only pairs that the mask drops
};

/// A rectangle of tokens drawn into a pixel grid. Pixel (a, b) covers query rows
/// q0 + [floor(a R / height), floor((a+1) R / height)) and key columns likewise: half-open integer
/// bins, so mass is conserved at any zoom. When a bin would be empty (more pixels than tokens) the
/// pixel shows the token that it lies in (floor(a R / height)).
struct RenderSpec {
    Index q0 = 0, q1 = 0, k0 = 0, k1 = 0;
    Index width = 0, height = 0;
    Statistic statistic = Statistic::Sum;  ///< Mean: over the valid pairs of the bin, kept or not
    Show show = Show::All;
    const Policy* mask = nullptr;  ///< needed for Kept and Lost
};

/// One implementation of the kernel operations on one device. Every call is deterministic: same
/// input, same bits, for any number of threads. Inputs may be F32, F16 or BF16 with any strides;
/// arithmetic is at least float32. Calls throw Cancelled within 0.5 s of a stop asked by the job.
class Backend {
public:
    virtual ~Backend() = default;
    virtual std::string_view id() const = 0;    ///< stable, e.g. "cpu-avx512", "reference"
    virtual std::string device() const = 0;     ///< in words, e.g. "CPU, AVX-512"
    virtual int threads() const = 0;

    /// O = softmax(S) V over the plan's pairs; a row without pairs gives O = 0, LSE = -inf.
    /// @param o    [Hq][Nq][dv], every element is written
    /// @param lse  [Hq][Nq] natural log over the kept pairs without sinks, or null
    virtual Report forward(const Problem&, TensorView q, TensorView k, TensorView v, const Plan&,
                           MutTensorView o, float* lse, const Job& job = {}) = 0;
    /// buildPlan and forward in one call; a GPU makes the plan itself where it can.
    virtual Report forwardMasks(const Problem&, TensorView q, TensorView k, TensorView v,
                                std::span<const Policy> perHead, PlanMode mode, MutTensorView o,
                                float* lse, const Job& job = {});
    /// The LSE of forward without V and O: recall_i = exp(lse_plan_i - lse_dense_i).
    virtual Report lseOnly(const Problem&, TensorView q, TensorView k, const Plan&, float* lse,
                           const Job& job = {}) = 0;
    virtual Report capture(const Problem&, TensorView q, TensorView k, const CaptureSpec&,
                           const CaptureOut&, const Job& job = {}) = 0;
    /// Exact pixels of ONE head (Hq = Hkv = 1). @param lse [Nq], from capture or forward
    /// @param px [height][width]; pixels without a valid pair get -1 (a probability is never < 0).
    ///           A pixel whose valid pairs are all hidden by `show` is 0, so Kept + Lost = All (Sum)
    virtual Report render(const Problem&, TensorView q, TensorView k, const float* lse,
                          const RenderSpec&, float* px, const Job& job = {}) = 0;
    /// Antidiagonal block scores (XAttention; methods/antidiagonal): [Hq][NBq][NBk], softmax over
    /// groups of `stride` tokens, summed into blocks. Both token axes are zero-padded up to a
    /// multiple of `padTo` (0: of `block`) as the released code does; rows of groups that hold
    /// padding only are zero, key groups that hold padding only are not seen. Causal: query group I
    /// sees key groups J <= I + (padded Nk - padded Nq) / stride. Cap, bias, window and sinks are
    /// not applied.
    virtual Report antidiagonal(const Problem&, TensorView q, TensorView k, Index stride, Index block,
                                Index padTo, float* blockScore, const Job& job = {}) = 0;
};

/// Straightforward float64 loops, the oracle of every test. Slow; never chosen by itself.
std::unique_ptr<Backend> makeReference();

/// One row of the kernel registry: fastest first, reference last.
struct Kernel {
    std::string_view id, title;
    bool (*supported)();
    std::unique_ptr<Backend> (*make)(int threads);  ///< on the first GPU, where it is for GPUs
    std::string_view device = "cpu";                ///< or "cuda"
};
std::span<const Kernel> kernels();

/// The first kernel that this machine supports and that passes its self-test (a few small layers
/// against the reference, once per process), or the one that SPARSIGHT_KERNEL names. A kernel that
/// fails is left out, which every later Report says.
/// @param device   "cpu", "cuda" (the first GPU) or "cuda:N"
/// @param threads  0 = physical cores
/// @throws Error(Device) for a device that is not there, Error(Usage) for an unknown
///         SPARSIGHT_KERNEL
std::unique_ptr<Backend> makeBackend(std::string_view device = "cpu", int threads = 0);

/// Something that makeBackend() can be asked for.
struct DeviceInfo {
    std::string id;     ///< "cpu", "cuda:0"
    std::string title;  ///< in words: "CPU, AVX-512", "NVIDIA H100 80GB HBM3"
    Index memoryBytes = 0, freeBytes = 0;  ///< of its memory, now
};
/// The CPU, then every GPU that this build has kernels for.
std::vector<DeviceInfo> devices();

int physicalCores();

}  // namespace sparsight::kernels
