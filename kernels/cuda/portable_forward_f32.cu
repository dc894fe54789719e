#include "kernels/cuda/portable_forward.cuh"

namespace sparsight::kernels::cuda::portable {

template void forwardOf<float>(int, const ForwardArgs&, cudaStream_t);

}  // namespace sparsight::kernels::cuda::portable
