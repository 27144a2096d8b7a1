// What tools ask of the library besides its mechanisms: what it was built with.
#include <torch/library.h>
#include <torch/version.h>

#include "headloom/base/check.h"

namespace headloom {
namespace {

std::string build_info() {
#if defined(HEADLOOM_WITH_CUDA)
  const char* cuda = "with CUDA";
#else
  const char* cuda = "without CUDA";
#endif
  return cat("headloom 0.1.0, torch ", TORCH_VERSION, ", ", cuda);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(headloom, m) { m.def("build_info() -> str", build_info); }

}  // namespace headloom
