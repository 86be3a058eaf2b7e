# One source per header that includes it alone (twice, so that a missing #pragma once shows too).
file(GLOB_RECURSE headers CONFIGURE_DEPENDS RELATIVE ${CMAKE_SOURCE_DIR}
  ${CMAKE_SOURCE_DIR}/src/*.h ${CMAKE_SOURCE_DIR}/apps/*.h)
# These need the CUDA toolkit; the cuda preset compiles them from their sources.
list(FILTER headers EXCLUDE REGEX "^src/(backend/cuda|comm/(device|nccl|nvlink)|graph|runner/cuda)/")
set(sources)
foreach(header ${headers})
  string(REPLACE "/" "_" name ${header})
  set(source ${CMAKE_BINARY_DIR}/header_check/${name}.cc)
  file(CONFIGURE OUTPUT ${source} CONTENT
    "#include \"${CMAKE_SOURCE_DIR}/${header}\"\n#include \"${CMAKE_SOURCE_DIR}/${header}\"\n")
  list(APPEND sources ${source})
endforeach()
add_library(nanocp_header_check OBJECT ${sources})
target_link_libraries(nanocp_header_check
  PRIVATE nanocp_options nlohmann_json::nlohmann_json CLI11::CLI11 PkgConfig::OPENBLAS)
target_include_directories(nanocp_header_check PRIVATE ${CMAKE_SOURCE_DIR})
# Headers of the instruction-set variants hold functions that only their one source uses.
target_compile_options(nanocp_header_check PRIVATE -O0 -Wno-unused-function)
