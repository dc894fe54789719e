#include "kernels/cuda/portable_rows.cuh"

namespace sparsight::kernels::cuda::portable {

template void rowsOf<__nv_bfloat16>(int, const RowsArgs&, cudaStream_t);

}  // namespace sparsight::kernels::cuda::portable
