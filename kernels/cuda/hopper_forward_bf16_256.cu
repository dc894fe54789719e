#include "kernels/cuda/hopper_forward.cuh"

SPARSIGHT_HOPPER_FORWARD(__nv_bfloat16, 256)
