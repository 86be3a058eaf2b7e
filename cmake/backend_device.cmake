# The GPU backend, chosen by linking: the real folder or the one that says it is not there.
if(NANOCP_CUDA)
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/backend/cuda/*.cu)
else()
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/backend/no_cuda/*.cc)
endif()
add_library(nanocp_backend_device STATIC ${sources})
target_link_libraries(nanocp_backend_device PUBLIC nanocp_options nanocp_base)
if(NANOCP_CUDA)
  target_compile_options(nanocp_backend_device PRIVATE
    $<$<COMPILE_LANGUAGE:CUDA>:-Werror=all-warnings;-Xcompiler=-Wall,-Wextra,-Wshadow,-Werror>)
endif()
