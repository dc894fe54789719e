#include "kernels/cuda/portable_mass.cuh"

namespace sparsight::kernels::cuda::portable {

template void massOf<__nv_bfloat16>(int, const MassArgs&, cudaStream_t);

}  // namespace sparsight::kernels::cuda::portable
