# The GPU backend, chosen by linking: the real folders or the ones that say it is not there.
if(NANOCP_CUDA)
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/backend/cuda/*.cu
    ${CMAKE_SOURCE_DIR}/src/backend/cuda/*.cc)
else()
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/backend/no_cuda/*.cc)
endif()
add_library(nanocp_backend_device STATIC ${sources})
target_link_libraries(nanocp_backend_device PUBLIC nanocp_options nanocp_base)
if(NANOCP_CUDA)
  target_link_libraries(nanocp_backend_device PRIVATE nanocp_cuda_libraries)
  nanocp_cuda_warnings(nanocp_backend_device)
endif()
