#include "kernels/cuda/portable_forward.cuh"

namespace sparsight::kernels::cuda::portable {

template void forwardOf<__half>(int, const ForwardArgs&, cudaStream_t);

}  // namespace sparsight::kernels::cuda::portable
