#include "kernels/cuda/portable_render.cuh"

namespace sparsight::kernels::cuda::portable {

template void renderOf<__nv_bfloat16>(int, const RenderArgs&, cudaStream_t);

}  // namespace sparsight::kernels::cuda::portable
