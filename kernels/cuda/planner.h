#pragma once

#include <cuda_runtime.h>

#include <span>
#include <vector>

#include "kernels/cuda/layer.h"
#include "kernels/plan.h"

/// The planner of plan.h on the device: tile lists made where they are read.
namespace sparsight::kernels::cuda {

/// Whether buildPlan below makes the plan of these masks: PlanMode::Tile of Dense, Streaming,
/// BlockList and VerticalSlash in any mix. For anything else take kernels::buildPlan.
bool plansOnDevice(std::span<const Policy> perHead, PlanMode mode);

/// A plan whose arrays were made on the device, ordered on the stream of buildPlan.
class PlannedOnDevice {
public:
    /// The arrays. `gathers` says that a tile may be gathered, `shared` is estimated from the
    /// lists; bits and bitsOffset are null, as no tile of Tile mode has bits.
    const DevicePlan& plan() const { return m_plan; }

    /// The same numbers as Plan::stats. Waits for the stream.
    PlanStats stats() const;

    /// The whole plan on the host, byte for byte what kernels::buildPlan gives. Waits for the
    /// stream.
    Plan toHost() const;

private:
    friend PlannedOnDevice buildPlan(const Problem&, std::span<const Policy>, cudaStream_t);
    PlannedOnDevice() = default;
    std::vector<Index> numbers() const;

    Scratch m_memory;
    DevicePlan m_plan;
    const Index* m_numbers = nullptr;    ///< on the device: totals, then sums of each distinct mask
    std::vector<std::int32_t> m_source;  ///< head -> distinct mask
    Index m_distinct = 0;
    cudaStream_t m_stream = nullptr;
};

/// kernels::buildPlan(problem, perHead, PlanMode::Tile) on the device, the same bytes. Nothing
/// waits for the device; the lists of `perHead` may go away when the call returns.
/// @param perHead  Hq policies on the host (or one, used for all heads)
/// @throws Error(Shape) for a policy that does not fit the problem, Error(Unsupported) where
///         plansOnDevice is false or queries and keys together are more than 2^30,
///         Error(Resources) when the device has not enough memory: lists are placed at upper bounds
PlannedOnDevice buildPlan(const Problem& problem, std::span<const Policy> perHead,
                          cudaStream_t stream);

}  // namespace sparsight::kernels::cuda
