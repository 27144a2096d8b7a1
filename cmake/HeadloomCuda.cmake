# CUDA sources include CUDA's and headloom's headers only, so they compile wherever nvcc is, also
# beside a CPU build of torch. They are linked into the library when torch has CUDA.
option(HEADLOOM_REQUIRE_CUDA "Refuse to configure without nvcc and a CUDA build of torch" OFF)
set(HEADLOOM_HAVE_NVCC OFF)
if(HEADLOOM_CUDA)
  include(CheckLanguage)
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    if(NOT CMAKE_CUDA_ARCHITECTURES)
      set(CMAKE_CUDA_ARCHITECTURES 80 90)
    endif()
    enable_language(CUDA)
    set(HEADLOOM_HAVE_NVCC ON)
    set(CMAKE_CUDA_STANDARD 20)
    set(CMAKE_CUDA_STANDARD_REQUIRED OFF)
    if(CMAKE_VERSION VERSION_LESS 3.26)  # knows no C++20 for nvcc and passes no -std
      add_compile_options($<$<COMPILE_LANGUAGE:CUDA>:-std=c++20>)
    endif()
  endif()
endif()

set(HEADLOOM_TORCH_HAS_CUDA OFF)
if(TORCH_CUDA_LIBRARIES OR TARGET torch_cuda OR TARGET c10_cuda)
  set(HEADLOOM_TORCH_HAS_CUDA ON)
endif()
if(HEADLOOM_REQUIRE_CUDA AND NOT (HEADLOOM_HAVE_NVCC AND HEADLOOM_TORCH_HAS_CUDA))
  message(FATAL_ERROR "headloom: the preset cuda expects nvcc and a CUDA build of torch; found "
                      "nvcc: ${HEADLOOM_HAVE_NVCC}, torch with CUDA: ${HEADLOOM_TORCH_HAS_CUDA}. "
                      "Use the preset cpu to build for the processor.")
endif()
message(STATUS "headloom: nvcc ${HEADLOOM_HAVE_NVCC}, torch with CUDA ${HEADLOOM_TORCH_HAS_CUDA}")
