#include "kernels/cuda/hopper_mass.cuh"

SPARSIGHT_HOPPER_MASS(__nv_bfloat16, 64)
