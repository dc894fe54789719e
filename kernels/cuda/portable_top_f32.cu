#include "kernels/cuda/portable_top.cuh"

namespace sparsight::kernels::cuda::portable {

template void topOf<float>(int, const TopArgs&, int, cudaStream_t);

}  // namespace sparsight::kernels::cuda::portable
