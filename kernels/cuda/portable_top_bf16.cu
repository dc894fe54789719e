#include "kernels/cuda/portable_top.cuh"

namespace sparsight::kernels::cuda::portable {

template void topOf<__nv_bfloat16>(int, const TopArgs&, int, cudaStream_t);

}  // namespace sparsight::kernels::cuda::portable
