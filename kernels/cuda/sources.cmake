# CUDA kernels: one translation unit for each type and width, so that they compile side by side.
include(${CMAKE_CURRENT_SOURCE_DIR}/cuda/portable_sources.cmake)
# CMake 3.25 does not know how to ask this compiler for C++20.
if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)
    set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
    set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION -std=c++20)
endif()
set(cuda_flags --expt-relaxed-constexpr -Xptxas=-v)

add_library(sparsight_cuda_hopper OBJECT
    cuda/hopper_forward.cu
    cuda/hopper_mass.cu
)
foreach(type bf16 f16)
    foreach(width 64 128 256)
        target_sources(sparsight_cuda_hopper PRIVATE
            cuda/hopper_forward_${type}_${width}.cu cuda/hopper_mass_${type}_${width}.cu)
    endforeach()
endforeach()
set_target_properties(sparsight_cuda_hopper PROPERTIES CUDA_ARCHITECTURES 90a-real)
option(SPARSIGHT_RACECHECK "Synchronise as compute-sanitizer's racecheck understands it (slower)" OFF)
if(SPARSIGHT_RACECHECK)
    target_compile_definitions(sparsight_cuda_hopper PRIVATE SPARSIGHT_RACECHECK)
endif()

list(TRANSFORM sparsight_cuda_portable PREPEND cuda/)
add_library(sparsight_cuda_portable OBJECT cuda/planner.cu cuda/staging.cu ${sparsight_cuda_portable})
set_target_properties(sparsight_cuda_portable PROPERTIES
    CUDA_ARCHITECTURES "${SPARSIGHT_CUDA_ARCHITECTURES}")

foreach(target sparsight_cuda_hopper sparsight_cuda_portable)
    target_include_directories(${target} PRIVATE ${PROJECT_SOURCE_DIR})
    target_compile_options(${target} PRIVATE ${cuda_flags})
    set_target_properties(${target} PROPERTIES
        CUDA_COMPILER_LAUNCHER ${PROJECT_SOURCE_DIR}/cmake/ptxas-check.sh)
    target_sources(sparsight_kernels PRIVATE $<TARGET_OBJECTS:${target}>)
endforeach()
target_sources(sparsight_kernels PRIVATE cuda/backend.cpp cuda/hopper_maps.cpp)
target_compile_definitions(sparsight_kernels PUBLIC SPARSIGHT_CUDA)
target_link_libraries(sparsight_kernels PUBLIC CUDA::cudart_static)
