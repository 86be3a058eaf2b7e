# Ops and their CPU backend: ops/ declares and dispatches, backend/cpu implements, so the two form
# one library. simd_kernels.cc is compiled once per instruction set; one is chosen at run time.
nanocp_module(ops FOLDERS ops backend/cpu LINK nanocp_tensor nanocp_plan PkgConfig::OPENBLAS)

function(nanocp_simd_variant name)
  add_library(nanocp_simd_${name} OBJECT ${CMAKE_SOURCE_DIR}/src/backend/cpu/simd/simd_kernels.cc)
  target_link_libraries(nanocp_simd_${name} PRIVATE nanocp_options)
  target_compile_definitions(nanocp_simd_${name} PRIVATE NANOCP_SIMD_VARIANT=${name})
  target_compile_options(nanocp_simd_${name} PRIVATE -O3 -ffp-contract=fast "${ARGN}")
  target_sources(nanocp_ops PRIVATE $<TARGET_OBJECTS:nanocp_simd_${name}>)
endfunction()

nanocp_simd_variant(baseline)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  nanocp_simd_variant(avx2 -mavx2 -mfma -mf16c)
  # g++ 12 warns about its own AVX-512 headers.
  nanocp_simd_variant(avx512 -mavx512f -mavx512bw -mavx512vl -mavx512dq -mfma -mf16c
    $<$<CXX_COMPILER_ID:GNU>:-Wno-uninitialized;-Wno-maybe-uninitialized>)
  target_compile_definitions(nanocp_ops PRIVATE NANOCP_X86_SIMD=1)
endif()
