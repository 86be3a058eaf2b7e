# One source per header that includes it alone (twice, so that a missing #pragma once shows too).
# A header whose own source includes it first has been compiled alone there, and needs none.
file(GLOB_RECURSE headers CONFIGURE_DEPENDS RELATIVE ${CMAKE_SOURCE_DIR}
  ${CMAKE_SOURCE_DIR}/src/*.h ${CMAKE_SOURCE_DIR}/apps/*.h)
# These need the CUDA toolkit; the cuda preset compiles them from their sources.
list(FILTER headers EXCLUDE REGEX "^src/(backend/cuda|comm/(device|nccl|nvlink)|graph|runner/cuda)/")
set(sources)
foreach(header ${headers})
  string(REGEX REPLACE "\\.h$" ".cc" own_source ${header})
  string(REGEX REPLACE "^src/" "" included ${header})
  if(EXISTS ${CMAKE_SOURCE_DIR}/${own_source})
    file(STRINGS ${CMAKE_SOURCE_DIR}/${own_source} first_include LIMIT_COUNT 1 REGEX "^#include")
    file(STRINGS ${CMAKE_SOURCE_DIR}/${header} guard LIMIT_COUNT 1 REGEX "^#pragma once$")
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${own_source} ${header})
    if(guard AND first_include STREQUAL "#include \"${included}\"")
      continue()
    endif()
  endif()
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
