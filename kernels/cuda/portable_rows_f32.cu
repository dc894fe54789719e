#include "kernels/cuda/portable_rows.cuh"

namespace sparsight::kernels::cuda::portable {

template void rowsOf<float>(int, const RowsArgs&, cudaStream_t);

}  // namespace sparsight::kernels::cuda::portable
