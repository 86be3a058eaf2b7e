# Compiler flags of all our targets.
add_library(nanocp_options INTERFACE)
target_include_directories(nanocp_options INTERFACE ${CMAKE_SOURCE_DIR}/src)
target_compile_definitions(nanocp_options INTERFACE NANOCP_TEST_SCALE=${NANOCP_TEST_SCALE})
target_compile_options(nanocp_options INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall;-Wextra;-Wpedantic;-Wshadow;-Wconversion;-Wno-sign-conversion>)
if(NANOCP_WARNINGS_AS_ERRORS)
  target_compile_options(nanocp_options INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-Werror>)
endif()

if(NANOCP_SANITIZE)
  target_compile_options(nanocp_options INTERFACE
    -fsanitize=${NANOCP_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer -g1)
  target_link_options(nanocp_options INTERFACE -fsanitize=${NANOCP_SANITIZE})
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    # The sanitizers' extra branches confuse gcc's flow analysis; the plain build keeps the warning.
    target_compile_options(nanocp_options INTERFACE -Wno-maybe-uninitialized)
    # ThreadSanitizer does not see Asio's fences; nothing of ours relies on them.
    target_compile_options(nanocp_options INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-Wno-tsan>)
  endif()
endif()

if(NANOCP_FUZZ)
  if(NOT CMAKE_CXX_COMPILER_ID MATCHES "Clang")
    message(FATAL_ERROR "NANOCP_FUZZ needs clang: configure with -DCMAKE_CXX_COMPILER=clang++")
  endif()
  target_compile_options(nanocp_options INTERFACE -fsanitize=fuzzer-no-link)
endif()
