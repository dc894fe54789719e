#include "kernels/cuda/portable_mass.cuh"

namespace sparsight::kernels::cuda::portable {

template void massOf<float>(int, const MassArgs&, cudaStream_t);

}  // namespace sparsight::kernels::cuda::portable
