#include "kernels/cuda/portable_forward.cuh"

namespace sparsight::kernels::cuda::portable {

template void forwardOf<__nv_bfloat16>(int, const ForwardArgs&, cudaStream_t);

}  // namespace sparsight::kernels::cuda::portable
