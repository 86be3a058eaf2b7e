# One static library per folder of src/, its unit tests (*_test.cc) in one program per folder.
# The link lists below are the include arrows; tests/tidy checks that sources keep to them.
include(GoogleTest)
if(NANOCP_UNITY)
  find_package(Python3 REQUIRED COMPONENTS Interpreter)
endif()

# With NANOCP_UNITY the sources of a target are compiled a few at a time, for builds from nothing. BACKWARDS puts them in
# the opposite order: an include that is missing in one source hides behind others in one of the two orders only.
macro(nanocp_order list_name)
  if(NANOCP_UNITY STREQUAL "BACKWARDS")
    list(REVERSE ${list_name})
  endif()
endmacro()

function(nanocp_unite target)
  if(NOT NANOCP_UNITY)
    return()
  endif()
  set(sources ${ARGN})
  list(FILTER sources INCLUDE REGEX "\\.cc$")
  list(TRANSFORM sources REPLACE "^([^/])" "${CMAKE_CURRENT_SOURCE_DIR}/\\1")
  execute_process(COMMAND ${Python3_EXECUTABLE} ${CMAKE_SOURCE_DIR}/tools/source_batches.py ${sources}
    OUTPUT_VARIABLE lines OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
  string(REPLACE "\n" ";" lines "${lines}")
  set(number 0)
  foreach(line ${lines})
    string(REPLACE " " ";" batch "${line}")
    set_source_files_properties(${batch} PROPERTIES UNITY_GROUP "batch_${number}")
    math(EXPR number "${number} + 1")
  endforeach()
  set_target_properties(${target} PROPERTIES UNITY_BUILD ON UNITY_BUILD_MODE GROUP)
endfunction()

# Builds that are checked and not timed compile with -O0 what NANOCP_UNOPTIMISED lists: modules and programs of tests. It takes
# the compiler half the time where headers of JSON or HTTP are the most of a source.
function(nanocp_compile_quickly target what)
  if(what IN_LIST NANOCP_UNOPTIMISED)
    target_compile_options(${target} PRIVATE -O0)
  endif()
endfunction()

function(nanocp_module name)
  cmake_parse_arguments(ARG "" "" "FOLDERS;LINK;TEST_LINK" ${ARGN})
  set(sources)
  set(tests)
  foreach(folder ${ARG_FOLDERS})
    file(GLOB found CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/${folder}/*.cc)
    foreach(source ${found})
      if(source MATCHES "_test\\.cc$")
        list(APPEND tests ${source})
      else()
        list(APPEND sources ${source})
      endif()
    endforeach()
  endforeach()
  nanocp_order(sources)
  if(sources)
    add_library(nanocp_${name} STATIC ${sources})
    nanocp_unite(nanocp_${name} ${sources})
    nanocp_compile_quickly(nanocp_${name} ${name})
    target_link_libraries(nanocp_${name} PUBLIC nanocp_options ${ARG_LINK})
  else()
    add_library(nanocp_${name} INTERFACE)
    target_link_libraries(nanocp_${name} INTERFACE nanocp_options ${ARG_LINK})
  endif()
  if(tests AND NANOCP_TESTS AND NOT name IN_LIST NANOCP_TESTS_LEFT_OUT)
    nanocp_test(${name}_test unit SOURCES ${tests} LINK nanocp_${name} ${ARG_TEST_LINK})
  endif()
endfunction()

# nanocp_test(name label SOURCES ... LINK ...): a GoogleTest program, one CTest entry per case.
# Suites whose name starts with Slow get the label slow instead; sanitizer presets leave them out.
function(nanocp_test name label)
  cmake_parse_arguments(ARG "" "TIMEOUT" "SOURCES;LINK" ${ARGN})
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 600)
  endif()
  nanocp_order(ARG_SOURCES)
  add_executable(${name} ${ARG_SOURCES})
  nanocp_unite(${name} ${ARG_SOURCES})
  nanocp_compile_quickly(${name} ${name})
  target_link_libraries(${name} PRIVATE ${ARG_LINK} GTest::gtest GTest::gtest_main)
  # Discovery before the run, not after the build: the sanitizers' environment is set by then.
  set(common DISCOVERY_MODE PRE_TEST DISCOVERY_TIMEOUT 60 WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
  gtest_discover_tests(${name} ${common} TEST_FILTER "-Slow*:*/Slow*"
    PROPERTIES LABELS ${label} TIMEOUT ${ARG_TIMEOUT})
  gtest_discover_tests(${name} ${common} TEST_FILTER "Slow*:*/Slow*"
    PROPERTIES LABELS slow TIMEOUT ${ARG_TIMEOUT})
endfunction()

# nanocp_embed(target namespace::kName file): the file's text as a std::string_view of the target.
function(nanocp_embed target name file)
  string(REGEX REPLACE "[^A-Za-z0-9]" "_" source ${name})
  set(source ${CMAKE_CURRENT_BINARY_DIR}/embedded/${source}.cc)
  add_custom_command(OUTPUT ${source}
    COMMAND ${CMAKE_COMMAND} -DINPUT=${file} -DOUTPUT=${source} -DNAME=${name}
      -P ${CMAKE_SOURCE_DIR}/cmake/embed_text.cmake
    DEPENDS ${file} ${CMAKE_SOURCE_DIR}/cmake/embed_text.cmake
    VERBATIM)
  target_sources(${target} PRIVATE ${source})
endfunction()

nanocp_module(base FOLDERS base LINK Threads::Threads)
nanocp_module(plan FOLDERS plan LINK nanocp_base)

# Host policy: no tensor, device or I/O.
nanocp_module(request FOLDERS request LINK nanocp_plan)
nanocp_module(kvcache FOLDERS kvcache LINK nanocp_request)
nanocp_module(scheduler FOLDERS scheduler scheduler/policies LINK nanocp_kvcache)
nanocp_module(engine FOLDERS engine LINK nanocp_scheduler)
nanocp_module(sim FOLDERS sim LINK nanocp_engine)
# No fused products: the same plans and simulated times on every machine.
foreach(module scheduler sim)
  target_compile_options(nanocp_${module} PRIVATE -ffp-contract=off)
endforeach()

# Pictures: text of SVG, nothing else.
nanocp_module(chart FOLDERS chart LINK nanocp_base)

# Devices: no request.
nanocp_module(tensor FOLDERS tensor LINK nanocp_base)
include(${CMAKE_SOURCE_DIR}/cmake/backend_cpu.cmake)
include(${CMAKE_SOURCE_DIR}/cmake/backend_device.cmake)
nanocp_module(comm FOLDERS comm comm/loopback LINK nanocp_tensor nanocp_plan)
nanocp_module(model FOLDERS model
  LINK nanocp_ops nanocp_comm nlohmann_json::nlohmann_json)

nanocp_module(text FOLDERS text text/jinja
  LINK nanocp_plan nlohmann_json::nlohmann_json PkgConfig::UTF8PROC PkgConfig::PCRE2)
nanocp_module(grammar FOLDERS grammar LINK nanocp_request nanocp_text)
nanocp_module(api FOLDERS api api/output LINK nanocp_engine nanocp_grammar)
# HTTP knows no model; the server is where it meets the engine.
nanocp_module(http FOLDERS http LINK nanocp_base Boost::headers)
nanocp_module(http_client FOLDERS http_client LINK nanocp_base Boost::headers)
nanocp_module(load FOLDERS load LINK nanocp_sim nanocp_http_client nlohmann_json::nlohmann_json)
nanocp_module(server FOLDERS server LINK nanocp_api nanocp_http nanocp_chart
  PkgConfig::PROMETHEUS)
foreach(part PageHtml:page.html PageCss:page.css BasicsJs:basics.js ClusterJs:cluster.js
    ChartsJs:charts.js TablesJs:tables.js ChatJs:chat.js MainJs:main.js)
  string(REPLACE ":" ";" part ${part})
  list(GET part 0 constant)
  list(GET part 1 file)
  nanocp_embed(nanocp_server nanocp::server::k${constant}
    ${CMAKE_SOURCE_DIR}/src/server/page/${file})
endforeach()

include(${CMAKE_SOURCE_DIR}/cmake/runner_device.cmake)
nanocp_module(runner FOLDERS runner LINK nanocp_engine nanocp_model nanocp_runner_device)

if(EXISTS ${CMAKE_SOURCE_DIR}/apps/CMakeLists.txt)
  add_subdirectory(apps)
endif()
add_subdirectory(tests)
if(NANOCP_BENCH AND EXISTS ${CMAKE_SOURCE_DIR}/bench/CMakeLists.txt)
  add_subdirectory(bench)
endif()
