#include "kernels/cuda/hopper_mass.cuh"

SPARSIGHT_HOPPER_MASS(__half, 64)
