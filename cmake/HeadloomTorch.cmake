# Finds the torch that the project's Python imports. An installed libtorch is used as well when
# CMAKE_PREFIX_PATH or Torch_DIR names one.
if(NOT Torch_DIR AND (SKBUILD OR NOT CMAKE_PREFIX_PATH))
  # `pip install` names the Python that it installs for, and hides that Python's packages from builds
  # through PYTHONPATH, which -E ignores: the torch to build for is the one beside which headloom will be.
  if(SKBUILD)
    set(HEADLOOM_PYTHON ${Python_EXECUTABLE})
  endif()
  find_program(HEADLOOM_PYTHON NAMES python3 HINTS ${CMAKE_SOURCE_DIR}/.venv/bin NO_DEFAULT_PATH)
  find_program(HEADLOOM_PYTHON NAMES python3)
  execute_process(
    COMMAND ${HEADLOOM_PYTHON} -E -c "import torch; print(torch.utils.cmake_prefix_path)"
    OUTPUT_VARIABLE torch_prefix OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_VARIABLE torch_error
    RESULT_VARIABLE torch_missing)
  if(torch_missing)
    message(FATAL_ERROR "headloom: expected a Python that imports torch 2.11 to 2.13; found none at "
                        "${HEADLOOM_PYTHON}. Install one there (pip install torch), run `make build`, which "
                        "sets one up, or pass "
                        "-DTorch_DIR=<libtorch>/share/cmake/Torch.\n${torch_error}")
  endif()
  list(APPEND CMAKE_PREFIX_PATH ${torch_prefix})
endif()

find_package(Torch REQUIRED)
if(Torch_VERSION AND (Torch_VERSION VERSION_LESS 2.11 OR Torch_VERSION VERSION_GREATER_EQUAL 2.14))
  message(FATAL_ERROR "headloom: expected torch 2.11 to 2.13; found ${Torch_VERSION} at ${Torch_DIR}.")
endif()

# at::parallel_for runs on one thread unless the caller is compiled with OpenMP. The runtime is the
# libgomp that torch itself loads; a second copy would bring a second thread pool.
set(HEADLOOM_OPENMP_FLAGS -fopenmp)
