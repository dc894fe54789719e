#include "kernels/cuda/portable_antidiagonal.cuh"

namespace sparsight::kernels::cuda::portable {

template void antidiagonalOf<__nv_bfloat16>(int, const AntidiagonalArgs&, int, cudaStream_t);

}  // namespace sparsight::kernels::cuda::portable
