#include "kernels/cuda/portable_render.cuh"

namespace sparsight::kernels::cuda::portable {

template void renderOf<__half>(int, const RenderArgs&, cudaStream_t);

}  // namespace sparsight::kernels::cuda::portable
