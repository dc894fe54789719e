#include "core/torch/gpu.h"

#include <ATen/Context.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/sum.h>
#include <c10/core/InferenceMode.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <torch/version.h>

#include <limits>

#include "core/model/device.h"
#include "core/model/runner.h"
#include "core/torch/ops.h"
#ifdef SPARSIGHT_TORCH_CUDA
#include <c10/cuda/CUDACachingAllocator.h>
#endif

namespace sparsight {

TorchDevices torchDevices() {
#ifdef SPARSIGHT_TORCH_CUDA
    static const bool gpu = at::hasCUDA();
    return {gpu, gpu ? "" : "LibTorch sees no CUDA device."};
#else
    return {false, "This build's LibTorch (" TORCH_VERSION ") was made without CUDA."};
#endif
}

}  // namespace sparsight

namespace sparsight::gpu {
namespace {

at::ScalarType scalarOf(kernels::DType t) {
    return t == kernels::DType::F16    ? at::kHalf
           : t == kernels::DType::BF16 ? at::kBFloat16
                                       : at::kFloat;
}

at::ScalarType scalarOf(StDType t) {
    return t == StDType::F16 ? at::kHalf : t == StDType::BF16 ? at::kBFloat16 : at::kFloat;
}

/// `count` numbers of the CPU's memory, aligned or not, on the device.
at::Tensor copyTo(const void* p, Index count, at::ScalarType type, at::Device device) {
    at::Tensor out = at::empty({count}, at::TensorOptions(type).device(device));
    out.copy_(at::from_blob(const_cast<void*>(p), {count}, type));
    return out;
}

}  // namespace

at::Device device(std::string_view name) {
    const DeviceChoice choice = parseDevice(name);
    return choice.gpu ? at::Device(at::kCUDA, at::DeviceIndex(choice.index)) : at::Device(at::kCPU);
}

void wait(at::Device device) {
    if (device.is_cpu()) return;
    c10::impl::VirtualGuardImpl(device.type()).getStream(device).synchronize();
}

void releaseCache([[maybe_unused]] at::Device device) {
#ifdef SPARSIGHT_TORCH_CUDA
    if (!device.is_cpu()) c10::cuda::CUDACachingAllocator::emptyCache();
#endif
}

Index freeMemory(at::Device device) {
    if (device.is_cpu()) return std::numeric_limits<Index>::max() / 4;
    releaseCache(device);
    return sparsight::freeMemory("cuda:" + std::to_string(device.index()));
}

at::Tensor upload(const Weight& w, at::Device device, at::ScalarType type, at::Tensor& sum) {
    if (!w.given()) return {};
    at::Tensor out;
    if (const StoredWeight& s = w.stored; s.first) {
        const Index perGroup = w.rows / s.groups;
        const Index span = (s.groups - 1) * s.groupStride + (perGroup - 1) * s.rowStride +
                           (w.cols - 1) * s.colStride + 1;
        out = copyTo(s.first, span, scalarOf(s.type), device);
        if (s.groups > 1)
            out = out.as_strided({s.groups, perGroup, w.cols},
                                 {s.groupStride, s.rowStride, s.colStride})
                      .reshape({w.rows, w.cols});
        else
            out = out.as_strided({w.rows, w.cols}, {s.rowStride, s.colStride});
        // A part of a wider matrix lets go of the rest.
        if (span > w.count() && s.groups == 1) out = out.contiguous();
    } else {
        out = copyTo(w.data, w.count(), at::kFloat, device).view({w.rows, w.cols});
    }
    if (w.cols == 1) out = out.reshape({w.rows});
    const at::Tensor total = at::sum(out, at::kFloat);
    sum = sum.defined() ? sum.add(total) : total;
    return out.to(type);
}

kernels::DType typeOf(const at::Tensor& x) {
    return x.scalar_type() == at::kHalf       ? kernels::DType::F16
           : x.scalar_type() == at::kBFloat16 ? kernels::DType::BF16
                                              : kernels::DType::F32;
}

kernels::TensorView viewOf(const at::Tensor& x, Index sb, Index sh, Index sn) {
    return {x.data_ptr(), typeOf(x), sb, sh, sn};
}

std::function<void(const kernels::TensorView& x, Index heads, Index tokens, Index d,
                   kernels::DType to, void* out)>
fetcher(at::Device device) {
    return [device](const kernels::TensorView& x, Index heads, Index tokens, Index d,
                    kernels::DType to, void* out) {
        try {
            const c10::InferenceMode guard;
            const at::Tensor from = at::for_blob(const_cast<void*>(x.p), {heads, tokens, d})
                                        .strides({x.sh, x.sn, 1})
                                        .options(at::TensorOptions(scalarOf(x.t)).device(device))
                                        .target_device(device)
                                        .make_tensor();
            at::from_blob(out, {heads, tokens, d}, scalarOf(to))
                .copy_(from.to(scalarOf(to)).contiguous());
        } catch (const c10::Error& e) {
            rethrowTorch(e);
        }
    };
}

}  // namespace sparsight::gpu
