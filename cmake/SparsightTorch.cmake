# Finds LibTorch: -DTorch_DIR or -DCMAKE_PREFIX_PATH when given, else Debian's libtorch-dev, else the
# one inside a pip-installed torch. Sets SPARSIGHT_TORCH_ON and SPARSIGHT_TORCH_LIBRARIES.

# The folders that hold a TorchConfig.cmake, best first.
function(sparsight_torch_candidates out)
    set(candidates ${Torch_DIR})
    find_path(found TorchConfig.cmake
        PATH_SUFFIXES share/cmake/Torch lib/cmake/Torch lib/${CMAKE_LIBRARY_ARCHITECTURE}/cmake/Torch Torch
        NO_CACHE)
    if(found)
        list(APPEND candidates ${found})
    endif()
    unset(found)
    find_path(found TorchConfig.cmake PATHS /usr /usr/local
        PATH_SUFFIXES share/cmake/Torch lib/cmake/Torch lib/${CMAKE_LIBRARY_ARCHITECTURE}/cmake/Torch
        NO_DEFAULT_PATH NO_CACHE)
    if(found)
        list(APPEND candidates ${found})
    endif()
    find_program(SPARSIGHT_PYTHON NAMES python3 python)
    mark_as_advanced(SPARSIGHT_PYTHON)
    if(SPARSIGHT_PYTHON)
        execute_process(COMMAND ${SPARSIGHT_PYTHON} -c "import torch; print(torch.utils.cmake_prefix_path)"
            OUTPUT_VARIABLE prefix OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE failed)
        if(NOT failed AND EXISTS "${prefix}/Torch/TorchConfig.cmake")
            list(APPEND candidates "${prefix}/Torch")
        endif()
    endif()
    list(REMOVE_DUPLICATES candidates)
    set(${out} ${candidates} PARENT_SCOPE)
endfunction()

# In a function, so that the flags and variables that TorchConfig.cmake sets stay inside; what the
# library needs is on its imported target, which core/torch links privately.
function(sparsight_find_torch)
    sparsight_torch_candidates(candidates)
    set(why "LibTorch not found: libtorch-dev, or -DCMAKE_PREFIX_PATH")
    foreach(folder ${candidates})
        # Read before it is loaded: two packages cannot both define the target `torch`.
        if(NOT EXISTS "${folder}/TorchConfig.cmake")
            continue()
        endif()
        file(READ "${folder}/TorchConfig.cmake" text)
        if(text MATCHES "CXX11_ABI=0")
            message(STATUS "LibTorch in ${folder} uses the old C++ ABI and cannot link with Qt: skipped")
            set(why "the LibTorch found uses the old C++ ABI; take the cxx11-abi build")
            continue()
        endif()
        # Its own Caffe2, not one of the system that is found first.
        get_filename_component(caffe2 "${folder}/../Caffe2" ABSOLUTE)
        if(EXISTS "${caffe2}/Caffe2Config.cmake")
            set(Caffe2_DIR "${caffe2}" CACHE PATH "" FORCE)
        endif()
        # A LibTorch with CUDA asks which GPUs to compile for, by a test program; nothing of ours
        # is compiled by nvcc for LibTorch.
        if(NOT TORCH_CUDA_ARCH_LIST AND NOT DEFINED ENV{TORCH_CUDA_ARCH_LIST})
            set(TORCH_CUDA_ARCH_LIST 9.0)
        endif()
        find_package(Torch QUIET PATHS "${folder}" NO_DEFAULT_PATH)
        if(Torch_FOUND OR TORCH_FOUND)
            set(version "")
            find_file(header NAMES torch/version.h PATHS ${TORCH_INCLUDE_DIRS}
                NO_DEFAULT_PATH NO_CACHE)
            if(header)
                file(STRINGS "${header}" line REGEX "define TORCH_VERSION \"")
                string(REGEX REPLACE ".*\"(.*)\".*" " \\1" version "${line}")
            endif()
            set(SPARSIGHT_TORCH_ON ON PARENT_SCOPE)
            set(SPARSIGHT_TORCH_LIBRARIES ${TORCH_LIBRARIES} PARENT_SCOPE)
            sparsight_note("model forward pass" "ON" "LibTorch${version} in ${TORCH_INSTALL_PREFIX}")
            return()
        endif()
        set(why "the LibTorch in ${folder} could not be loaded")
    endforeach()
    sparsight_note("model forward pass" "OFF" "${why}")
endfunction()

sparsight_find_torch()
