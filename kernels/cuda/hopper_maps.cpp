#include "kernels/cuda/hopper_maps.h"

#include <cudaTypedefs.h>

#include <algorithm>
#include <string>

#include "kernels/base/error.h"

namespace sparsight::kernels::cuda::hopper {
namespace {

/// Asked of the driver at run time: nothing links against it.
PFN_cuTensorMapEncodeTiled_v12000 encoder() {
    static const auto found = [] {
        void* entry = nullptr;
        cudaDriverEntryPointQueryResult result{};
        check(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &entry, 12000,
                                               cudaEnableDefault, &result),
              "the driver's tensor maps");
        if (result != cudaDriverEntryPointSuccess || entry == nullptr)
            throw Error(Errc::Device,
                        "The CUDA driver knows no tensor maps; install a driver for CUDA 12 or "
                        "later.");
        return reinterpret_cast<PFN_cuTensorMapEncodeTiled_v12000>(entry);
    }();
    return found;
}

}  // namespace

CUtensorMap makeMap(const Rows& rows, DType type, int width, int tokens, int heads, int batch,
                    int boxTokens) {
    const auto extent = [](int n) { return cuuint64_t(std::max(1, n)); };
    const cuuint64_t sizes[] = {cuuint64_t(width), extent(tokens), extent(heads), extent(batch)};
    // The stride of an axis of one entry is never used, but must be valid.
    const auto bytes = [&](Index stride, int entries) {
        return entries > 1 ? cuuint64_t(stride) * 2 : cuuint64_t(width) * 2;
    };
    const cuuint64_t strides[] = {bytes(rows.sn, tokens), bytes(rows.sh, heads),
                                  bytes(rows.sb, batch)};
    const cuuint32_t box[] = {64, cuuint32_t(boxTokens), 1, 1}, steps[] = {1, 1, 1, 1};
    CUtensorMap map;
    const CUresult result = encoder()(
        &map,
        type == DType::F16 ? CU_TENSOR_MAP_DATA_TYPE_FLOAT16 : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 4,
        const_cast<void*>(rows.p), sizes, strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
        CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
        CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    if (result != CUDA_SUCCESS)
        throw Error(Errc::Device, "The CUDA driver refused a tensor map (code " +
                                      std::to_string(int(result)) + ").");
    return map;
}

}  // namespace sparsight::kernels::cuda::hopper
