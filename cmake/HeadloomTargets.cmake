# What every target of headloom shares, and the two ways in which sources become objects.

function(headloom_common target)
  target_include_directories(${target} PUBLIC "$<BUILD_INTERFACE:${CMAKE_SOURCE_DIR}>")
  target_compile_options(${target} PRIVATE
    $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Wno-unknown-pragmas>
    $<$<AND:$<COMPILE_LANGUAGE:CXX>,$<BOOL:${HEADLOOM_WERROR}>>:-Werror>)
  if(HEADLOOM_SANITIZE)
    target_compile_options(${target} PRIVATE
      $<$<COMPILE_LANGUAGE:CXX>:-fsanitize=${HEADLOOM_SANITIZE} -fno-omit-frame-pointer>)
    target_link_options(${target} PRIVATE -fsanitize=${HEADLOOM_SANITIZE})
  endif()
endfunction()

# Targets that see torch: headers as system headers, OpenMP for at::parallel_for, a precompiled header
# that they share (of another target than headloom_pch when that is named), which executables can do
# only when they are compiled as the library is.
function(headloom_uses_torch target)
  set(pch headloom_pch ${ARGN})
  list(GET pch -1 pch)
  target_include_directories(${target} SYSTEM PUBLIC "$<BUILD_INTERFACE:${TORCH_INCLUDE_DIRS}>")
  target_compile_options(${target} PRIVATE $<$<COMPILE_LANGUAGE:CXX>:${HEADLOOM_OPENMP_FLAGS} -fPIC>)
  target_link_libraries(${target} PUBLIC torch)
  if(TARGET ${pch} AND NOT target STREQUAL pch)
    target_precompile_headers(${target} REUSE_FROM ${pch})
  endif()
endfunction()

# Kernel files see neither torch nor OpenMP, and are compiled once per instruction set; each copy
# lives in the namespace that HEADLOOM_ISA names (headloom/kernels/isa.h picks one at run time).
set(isas baseline)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  list(APPEND isas avx2 avx512)
endif()
set(HEADLOOM_ISAS ${isas} CACHE STRING "Instruction sets to compile kernels for; baseline is always needed")
if(NOT baseline IN_LIST HEADLOOM_ISAS)
  message(FATAL_ERROR "headloom: HEADLOOM_ISAS: expected a list with baseline in it; found ${HEADLOOM_ISAS}.")
endif()
set(HEADLOOM_ISA_FLAGS_baseline "")
set(HEADLOOM_ISA_FLAGS_avx2 -march=x86-64-v3)
# GCC 12 takes the undefined vectors inside its own AVX-512 headers for uninitialised variables.
set(HEADLOOM_ISA_FLAGS_avx512 -march=x86-64-v4 -mprefer-vector-width=512 -Wno-maybe-uninitialized)

# AVX-512 with products of bfloat16 pairs: goes with avx512, for the files that have such products.
set(HEADLOOM_ISA_FLAGS_avx512bf16 ${HEADLOOM_ISA_FLAGS_avx512} -mavx512bf16)

function(headloom_compile_kernels isa)
  set(target headloom_kernels_${isa})
  add_library(${target} OBJECT ${ARGN})
  headloom_common(${target})
  target_compile_options(${target} PRIVATE -O3 -fno-math-errno -fno-trapping-math ${HEADLOOM_ISA_FLAGS_${isa}})
  target_compile_definitions(${target} PRIVATE HEADLOOM_ISA=${isa} HEADLOOM_ISA_${isa}=1)
  target_sources(headloom PRIVATE $<TARGET_OBJECTS:${target}>)
endfunction()

# headloom_add_kernels(<files> BF16 <those of them that multiply bfloat16>)
function(headloom_add_kernels)
  cmake_parse_arguments(kernels "" "" BF16 ${ARGN})
  foreach(isa IN LISTS HEADLOOM_ISAS)
    headloom_compile_kernels(${isa} ${kernels_UNPARSED_ARGUMENTS})
    target_compile_definitions(headloom PRIVATE HEADLOOM_HAS_${isa}=1)
  endforeach()
  if(avx512 IN_LIST HEADLOOM_ISAS)
    headloom_compile_kernels(avx512bf16 ${kernels_BF16})
    target_compile_definitions(headloom_kernels_avx512bf16 PRIVATE HEADLOOM_ISA_avx512=1)
  endif()
endfunction()
