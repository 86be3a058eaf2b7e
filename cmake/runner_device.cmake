# The GPU runner with its exchange and graphs, or the one that says it is not there.
if(NANOCP_CUDA)
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/runner/cuda/*.cc
    ${CMAKE_SOURCE_DIR}/src/graph/*.cc ${CMAKE_SOURCE_DIR}/src/comm/nvlink/*.cc
    ${CMAKE_SOURCE_DIR}/src/comm/nvlink/*.cu ${CMAKE_SOURCE_DIR}/src/comm/nccl/*.cc)
else()
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/runner/no_cuda/*.cc)
endif()
# What a GPU must have and how weights lie on it: decisions over numbers, in every build.
file(GLOB host_sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/runner/device/*.cc)
add_library(nanocp_runner_device STATIC ${sources} ${host_sources})
target_link_libraries(nanocp_runner_device
  PUBLIC nanocp_engine nanocp_model nanocp_backend_device)
if(NANOCP_CUDA)
  target_link_libraries(nanocp_runner_device PRIVATE nanocp_cuda_libraries)
  nanocp_cuda_warnings(nanocp_runner_device)
endif()
