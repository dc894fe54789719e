#include "kernels/cuda/portable_mass.cuh"

namespace sparsight::kernels::cuda::portable {

template void massOf<__half>(int, const MassArgs&, cudaStream_t);

}  // namespace sparsight::kernels::cuda::portable
