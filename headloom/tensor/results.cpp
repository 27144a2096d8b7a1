#include "headloom/tensor/results.h"

#include <ATen/ATen.h>
#include <sys/mman.h>

namespace headloom {
namespace {

// An advice: nothing depends on whether the system takes it.
void ask_for_huge_pages([[maybe_unused]] const at::Tensor& tensor) {
#if defined(MADV_HUGEPAGE)
  constexpr uintptr_t kPage = 4096;
  const auto data = reinterpret_cast<uintptr_t>(tensor.mutable_data_ptr());
  const uintptr_t begin = (data + kPage - 1) / kPage * kPage;
  const uintptr_t end = (data + tensor.nbytes()) / kPage * kPage;
  madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#endif
}

}  // namespace

at::Tensor empty_result(at::IntArrayRef sizes, const at::TensorOptions& options) {
  at::Tensor tensor = at::empty(sizes, options);
  if (tensor.is_cpu() && tensor.nbytes() > static_cast<size_t>(kFreshBytes)) {
    ask_for_huge_pages(tensor);
  }
  return tensor;
}

}  // namespace headloom
