# headloom_add_mechanism(<folder> [BF16]): one call makes a slice. With BF16 its kernels multiply
# bfloat16 and are compiled for that instruction set too. Its files are told apart by suffix:
#   <x>_cpu.cpp   kernels: no torch header, compiled once per instruction set
#   <x>_cuda.cu   CUDA kernels: no torch header, compiled when nvcc is found
#   other *.cpp   the operator, its reference, its gradient, its module; compiled against torch
function(headloom_add_mechanism name)
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/${name}/*.cpp)
  file(GLOB cuda_sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/${name}/*_cuda.cu)
  set(kernel_sources ${sources})
  list(FILTER kernel_sources INCLUDE REGEX "_cpu\\.cpp$")
  list(FILTER sources EXCLUDE REGEX "_cpu\\.cpp$")
  target_sources(headloom PRIVATE ${sources})
  set_property(GLOBAL APPEND PROPERTY HEADLOOM_KERNEL_SOURCES ${kernel_sources})
  if("BF16" IN_LIST ARGN)
    set_property(GLOBAL APPEND PROPERTY HEADLOOM_BF16_KERNEL_SOURCES ${kernel_sources})
  endif()
  set_property(GLOBAL APPEND PROPERTY HEADLOOM_CUDA_SOURCES ${cuda_sources})
endfunction()
