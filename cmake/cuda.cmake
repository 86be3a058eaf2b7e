# Finds nvcc and turns on the CUDA language. Only src/backend/cuda is compiled with it.
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
