# The trainer and the command: libraries from the distribution, header-only but for utf8proc.
find_path(HEADLOOM_CLI11 CLI/CLI.hpp)
find_path(HEADLOOM_TOMLPP toml++/toml.h)
find_path(HEADLOOM_JSON nlohmann/json.hpp)
find_path(HEADLOOM_UTF8PROC utf8proc.h)
find_library(HEADLOOM_UTF8PROC_LIBRARY utf8proc)
if(NOT HEADLOOM_CLI11 OR NOT HEADLOOM_TOMLPP OR NOT HEADLOOM_JSON OR NOT HEADLOOM_UTF8PROC
   OR NOT HEADLOOM_UTF8PROC_LIBRARY)
  message(WARNING "headloom: the command and the trainer are left out: they expect the headers of CLI11, "
                  "toml++ and nlohmann-json, and utf8proc (Debian: libcli11-dev libtomlplusplus-dev "
                  "nlohmann-json3-dev libutf8proc-dev); found CLI11: ${HEADLOOM_CLI11}, toml++: "
                  "${HEADLOOM_TOMLPP}, json: ${HEADLOOM_JSON}, utf8proc: ${HEADLOOM_UTF8PROC_LIBRARY}. "
                  "The shared library is built all the same.")
  set(HEADLOOM_TOOLS OFF CACHE BOOL "" FORCE)
  return()
endif()

file(GLOB_RECURSE tool_sources CONFIGURE_DEPENDS text/*.cpp tasks/*.cpp train/*.cpp report/*.cpp)
add_library(headloom_tools STATIC ${tool_sources})
headloom_common(headloom_tools)
target_include_directories(headloom_tools SYSTEM PUBLIC ${HEADLOOM_CLI11} ${HEADLOOM_TOMLPP} ${HEADLOOM_JSON}
                           ${HEADLOOM_UTF8PROC})
target_link_libraries(headloom_tools PUBLIC headloom PRIVATE ${HEADLOOM_UTF8PROC_LIBRARY})
headloom_uses_torch(headloom_tools)

file(GLOB cli_sources CONFIGURE_DEPENDS cli/*.cpp)
list(FILTER cli_sources EXCLUDE REGEX "/main\\.cpp$")
target_sources(headloom_tools PRIVATE ${cli_sources})
target_compile_definitions(headloom_tools PRIVATE HEADLOOM_VERSION="${PROJECT_VERSION}")
add_executable(headloom_command cli/main.cpp)
headloom_common(headloom_command)
headloom_uses_torch(headloom_command)
target_link_libraries(headloom_command PRIVATE headloom_tools)
set_target_properties(headloom_command PROPERTIES OUTPUT_NAME headloom)

# The C library's allocator loses a tenth of a training step, and three times the memory, once blocks of the
# matrix library's cached kernels lie between those of the tensors (docs/performance/kernels.md). A sanitizer
# brings an allocator of its own.
find_library(HEADLOOM_TCMALLOC NAMES tcmalloc_minimal libtcmalloc_minimal.so.4)
if(HEADLOOM_TCMALLOC AND NOT HEADLOOM_SANITIZE)
  target_link_libraries(headloom_command PRIVATE -Wl,--no-as-needed ${HEADLOOM_TCMALLOC} -Wl,--as-needed)
elseif(NOT HEADLOOM_TCMALLOC)
  message(STATUS "headloom: the command uses the C library's allocator; training is some 10 % faster with "
                 "tcmalloc (Debian: libtcmalloc-minimal4).")
endif()
