#pragma once

#include <memory>

#include "kernels/backend.h"

namespace sparsight::kernels {

/// Kernels of one GPU. Pointers of a call may lie in host memory (copied there and back) or on the
/// device; what is on the device must be ready on the default stream.
/// @param id      the kernel's row in the registry
/// @param device  number of the GPU
/// @param hopper  use the kernels for compute capability 9.0 where they fit
/// @throws Error(Device) when the GPU does not answer
std::unique_ptr<Backend> makeCuda(std::string_view id, int device, bool hopper);

namespace cuda {
/// Usable GPUs (compute capability 8.0 or more); 0 where there is no driver.
int deviceCount();
bool isHopper(int device);
/// As DeviceInfo wants it.
DeviceInfo describe(int device);
}  // namespace cuda

}  // namespace sparsight::kernels
