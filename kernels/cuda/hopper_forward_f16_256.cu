#include "kernels/cuda/hopper_forward.cuh"

SPARSIGHT_HOPPER_FORWARD(__half, 256)
