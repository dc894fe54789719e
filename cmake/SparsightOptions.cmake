# Finds what the options ask for and remembers, for the summary, what is on, off and why.
function(sparsight_note part state why)
    set_property(GLOBAL APPEND PROPERTY SPARSIGHT_SUMMARY "${part}: ${state} (${why})")
endfunction()
function(sparsight_summary)
    get_property(lines GLOBAL PROPERTY SPARSIGHT_SUMMARY)
    message(STATUS "Sparsight ${PROJECT_VERSION}, ${CMAKE_BUILD_TYPE} build")
    foreach(line ${lines})
        message(STATUS "  ${line}")
    endforeach()
endfunction()

find_package(Threads REQUIRED)

# Flags of every target of ours.
add_library(sparsight_flags INTERFACE)
target_compile_options(sparsight_flags INTERFACE
    $<$<COMPILE_LANGUAGE:C,CXX>:-Wall;-Wextra;-Wshadow;-Wconversion>)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
    # GCC 12 warns of overlapping copies inside std::string's operator+ (its bug 105651).
    target_compile_options(sparsight_flags INTERFACE $<$<COMPILE_LANGUAGE:C,CXX>:-Wno-restrict>)
endif()
if(SPARSIGHT_WERROR)
    target_compile_options(sparsight_flags INTERFACE $<$<COMPILE_LANGUAGE:C,CXX>:-Werror>)
endif()
sparsight_note("warnings as errors" "${SPARSIGHT_WERROR}" "SPARSIGHT_WERROR")

# --- LibTorch: CMAKE_PREFIX_PATH, else Debian's, else the one inside a pip-installed torch.
set(SPARSIGHT_TORCH_ON OFF)
if(SPARSIGHT_WITH_TORCH)
    include(SparsightTorch)
else()
    sparsight_note("model forward pass" "OFF" "SPARSIGHT_WITH_TORCH=OFF")
endif()

# --- Qt
set(SPARSIGHT_GUI_ON OFF)
if(SPARSIGHT_WITH_GUI)
    find_package(Qt6 6.4 QUIET COMPONENTS Core Gui Widgets Charts Concurrent Svg)
    if(Qt6_FOUND)
        set(SPARSIGHT_GUI_ON ON)
        sparsight_note("desktop program" "ON" "Qt ${Qt6_VERSION}")
    else()
        sparsight_note("desktop program" "OFF" "Qt 6.4 with Charts not found: qt6-base-dev qt6-charts-dev libqt6opengl6-dev libqt6svg6-dev")
    endif()
else()
    sparsight_note("desktop program" "OFF" "SPARSIGHT_WITH_GUI=OFF")
endif()

# --- CUDA
set(SPARSIGHT_CUDA_ON OFF)
# Machine code of 8.0 runs on all 8.x, that of 9.0 on Hopper; later GPUs compile the latter's PTX.
set(SPARSIGHT_CUDA_ARCHITECTURES "80-real;90" CACHE STRING
    "Architectures of the portable CUDA kernels; those for Hopper are built as 90a besides")
if(NOT SPARSIGHT_WITH_CUDA STREQUAL "OFF")
    include(CheckLanguage)
    if(NOT CMAKE_CUDA_COMPILER AND NOT DEFINED ENV{CUDACXX})
        find_program(SPARSIGHT_NVCC nvcc HINTS /usr/local/cuda/bin)
        if(SPARSIGHT_NVCC)
            set(ENV{CUDACXX} ${SPARSIGHT_NVCC})  # tried first: it may be there and not work
        endif()
    endif()
    set(CMAKE_CUDA_ARCHITECTURES 80-real)
    check_language(CUDA)
    if(CMAKE_CUDA_COMPILER)
        enable_language(CUDA)
    endif()
    if(CMAKE_CUDA_COMPILER AND CMAKE_CUDA_COMPILER_VERSION VERSION_GREATER_EQUAL 12.4)
        find_package(CUDAToolkit REQUIRED)
        set(SPARSIGHT_CUDA_ON ON)
        sparsight_note("CUDA kernels" "ON" "nvcc ${CMAKE_CUDA_COMPILER_VERSION}")
    elseif(SPARSIGHT_WITH_CUDA STREQUAL "ON")
        message(FATAL_ERROR "SPARSIGHT_WITH_CUDA=ON, but no nvcc of CUDA 12.4 or later was found; "
                            "set CMAKE_CUDA_COMPILER to it.")
    else()
        sparsight_note("CUDA kernels" "OFF" "no nvcc of CUDA 12.4 or later")
    endif()
else()
    sparsight_note("CUDA kernels" "OFF" "SPARSIGHT_WITH_CUDA=OFF")
endif()
