#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/backend.h"

namespace sparsight {

/// A device as --device and the settings name it.
struct DeviceChoice {
    bool gpu = false;
    int index = 0;  ///< of the GPU
    /// "cpu", "cuda:0"
    std::string id() const { return gpu ? "cuda:" + std::to_string(index) : "cpu"; }
};
/// "cpu", "cuda" (the first GPU) or "cuda:N". @throws Error(Usage)
DeviceChoice parseDevice(std::string_view name);

/// Bytes that may be taken now in the memory of a device; 0 for one that is not there, and for the
/// CPU.
Index freeMemory(std::string_view device);

/// What a user can choose from.
struct DeviceList {
    std::vector<kernels::DeviceInfo> devices;  ///< the CPU first
    std::string noGpu;    ///< why there is no GPU among them, a sentence; "" = there is one
    std::string noModel;  ///< why models do not run on these GPUs; "" = they do, or there is none
};
DeviceList deviceList();

/// The kernels of a device. A call that a GPU has no memory for is made again on the CPU, and
/// `say` is told once, unless a GpuPass runs.
/// @throws Error as kernels::makeBackend, Error(Usage) for a name that is no device
std::unique_ptr<kernels::Backend> backendOrCpu(std::string_view device, int threads = 0,
                                               std::function<void(const std::string&)> say = {});

/// The same for a backend that exists.
std::unique_ptr<kernels::Backend> orCpu(std::unique_ptr<kernels::Backend> gpu,
                                        std::function<void(const std::string&)> say = {});

/// While one lives, calls of this thread to the kernels have pointers into a GPU's memory: the
/// model's pass has to begin again when they fail.
class GpuPass {
public:
    GpuPass();
    ~GpuPass();
    GpuPass(const GpuPass&) = delete;
    static bool runs();
};

/// "79.6 GiB", "512 MiB"
std::string bytesText(Index bytes);

}  // namespace sparsight
