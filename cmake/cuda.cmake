# Finds nvcc and turns on the CUDA language. Device code is in src/backend/cuda, src/comm/nvlink and bench.
find_program(NANOCP_NVCC nvcc HINTS /usr/local/cuda/bin $ENV{CUDA_HOME}/bin)
if(NOT NANOCP_NVCC)
  message(FATAL_ERROR
    "NANOCP_CUDA=ON, but no nvcc in PATH, CUDA_HOME or /usr/local/cuda: install the CUDA toolkit 13")
endif()
set(CMAKE_CUDA_COMPILER ${NANOCP_NVCC})
set(CMAKE_CUDA_ARCHITECTURES 90a CACHE STRING "GPU architectures")
set(CMAKE_CUDA_RUNTIME_LIBRARY Static)
enable_language(CUDA)
if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)  # CMake 3.25 knows nvcc's flags up to C++17 only
  set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
  set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION -std=c++20)
endif()
set(CMAKE_CUDA_STANDARD 20)
set(CMAKE_CUDA_EXTENSIONS OFF)
if(CMAKE_CUDA_COMPILER_VERSION VERSION_LESS 13.0)
  message(FATAL_ERROR "nvcc ${CMAKE_CUDA_COMPILER_VERSION} is too old: NanoCP needs 13.0 or newer")
endif()

# Headers and libraries of the toolkit: the runtime (static), cuBLASLt and NCCL (both shared).
find_package(CUDAToolkit 13.0 REQUIRED)
find_path(NCCL_INCLUDE_DIR nccl_device.h HINTS ${CUDAToolkit_INCLUDE_DIRS})
find_library(NCCL_LIBRARY nccl HINTS ${CUDAToolkit_LIBRARY_DIR} ${CUDAToolkit_LIBRARY_ROOT}/lib)
if(NOT NCCL_INCLUDE_DIR OR NOT NCCL_LIBRARY)
  message(FATAL_ERROR "NANOCP_CUDA=ON, but no NCCL 2.28 or newer (nccl_device.h, libnccl.so): "
    "install libnccl-dev, or set NCCL_INCLUDE_DIR and NCCL_LIBRARY")
endif()
add_library(nanocp_cuda_libraries INTERFACE)
target_include_directories(nanocp_cuda_libraries SYSTEM INTERFACE
  ${CUDAToolkit_INCLUDE_DIRS} ${NCCL_INCLUDE_DIR})
target_link_libraries(nanocp_cuda_libraries INTERFACE
  CUDA::cudart_static CUDA::cublasLt ${NCCL_LIBRARY})

function(nanocp_cuda_warnings target)
  target_compile_options(${target} PRIVATE
    $<$<COMPILE_LANGUAGE:CUDA>:-Werror=all-warnings;-Xcompiler=-Wall,-Wextra,-Wshadow,-Werror>)
endfunction()
