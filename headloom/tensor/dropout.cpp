#include "headloom/tensor/dropout.h"

#include <ATen/ATen.h>

#include "headloom/base/check.h"
#include "headloom/base/dropout_mask.h"
#include "headloom/base/parallel.h"

#if defined(HEADLOOM_WITH_CUDA)
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#endif

namespace headloom {
namespace {

void fill_on_cpu(const DropoutMaskArgs& args) {
  parallel_for(0, args.count, 1 << 14,
               [&](int64_t begin, int64_t end) { fill_dropout_mask(args, begin, end); });
}

#if defined(HEADLOOM_WITH_CUDA)
void fill_on_cuda(const DropoutMaskArgs& args, c10::Device device) {
  const c10::cuda::CUDAGuard guard(device);
  const char* error = fill_dropout_mask_cuda(args, c10::cuda::getCurrentCUDAStream().stream());
  HEADLOOM_CHECK(error == nullptr, "dropout_mask", "the CUDA kernel to start", error);
}
#endif

// Filled where it is wanted when this build has a kernel there, else on the processor: the values
// are the same.
at::Device fill_device(at::Device wanted) {
#if defined(HEADLOOM_WITH_CUDA)
  if (wanted.is_cuda()) return wanted;
#endif
  (void)wanted;
  return at::kCPU;
}

}  // namespace

at::Tensor new_seed() {
  return at::randint(int64_t{1} << 62, {}, at::TensorOptions().dtype(at::kLong));
}

at::Tensor dropout_mask(at::IntArrayRef sizes, double p, const at::Tensor& seed,
                        const at::TensorOptions& options, int64_t dim, int64_t begin, int64_t end) {
  std::vector<int64_t> part(sizes.begin(), sizes.end());
  part[dim] = end - begin;
  int64_t inner = 1;  // elements below `dim`, contiguous in both the part and the whole
  for (size_t axis = dim + 1; axis < sizes.size(); ++axis) inner *= sizes[axis];

  // float32 cannot hold float64's factor: the mask is 0 and 1 until it is float64.
  const bool wide = c10::typeMetaToScalarType(options.dtype()) == at::kDouble;
  const double kept = 1.0 / (1.0 - p);
  const auto in_type = [&](const at::Tensor& mask) {
    return wide ? mask.to(options) * kept : mask.to(options);
  };

  const at::Device device = fill_device(options.device());
  const at::Tensor mask = at::empty(part, at::TensorOptions().dtype(at::kFloat).device(device));
  if (mask.numel() == 0) return mask.to(options);
  const DropoutMaskArgs args{mask.data_ptr<float>(), mask.numel(),
                             part[dim] * inner,      sizes[dim] * inner,
                             begin * inner,          static_cast<uint64_t>(seed.item<int64_t>()),
                             drop_threshold(p),      wide ? 1.0f : static_cast<float>(kept)};
#if defined(HEADLOOM_WITH_CUDA)
  if (device.is_cuda()) {
    fill_on_cuda(args, device);
    return in_type(mask);
  }
#endif
  fill_on_cpu(args);
  return in_type(mask);
}

at::Tensor dropout_mask(at::IntArrayRef sizes, double p, const at::Tensor& seed,
                        const at::TensorOptions& options) {
  if (sizes.empty()) return dropout_mask({1}, p, seed, options).reshape({});
  return dropout_mask(sizes, p, seed, options, 0, 0, sizes[0]);
}

}  // namespace headloom
