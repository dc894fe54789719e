#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <vector>

#include "core/model/weights.h"
#include "kernels/base/tensor.h"

/// What the models on a GPU share. Every function works on LibTorch's CPU device as well, so that
/// tests without a GPU run the same code.
namespace sparsight::gpu {

/// LibTorch's name of "cpu", "cuda" or "cuda:N".
at::Device device(std::string_view name);

/// Waits until the device has done what was asked of it: kernels of ours use a stream of their own.
void wait(at::Device device);

/// Gives memory that LibTorch keeps for later back to the device.
void releaseCache(at::Device device);

/// Bytes that may be taken on a device; very large on the CPU.
Index freeMemory(at::Device device);

/// A weight on the device as `type`; undefined for a weight that is not given.
/// @param sum  grows by the sum of the values, on the device: NaN or infinite if one of them is
at::Tensor upload(const Weight& w, at::Device device, at::ScalarType type, at::Tensor& sum);

kernels::DType typeOf(const at::Tensor& x);
kernels::TensorView viewOf(const at::Tensor& x, Index sb, Index sh, Index sn);

/// LayerCall::fetch for tensors of that device.
std::function<void(const kernels::TensorView& x, Index heads, Index tokens, Index d,
                   kernels::DType to, void* out)>
fetcher(at::Device device);

/// Keys and values of a KvCache on a device, by layer: [Hkv, capacity, D] and [Hkv, capacity, Dv].
struct Cache {
    std::vector<at::Tensor> k, v;
};

}  // namespace sparsight::gpu
