#include "headloom/tensor/dropout.h"

#include <ATen/ATen.h>

#include "headloom/base/parallel.h"
#include "headloom/base/rng.h"

namespace headloom {

at::Tensor new_seed() {
  return at::randint(int64_t{1} << 62, {}, at::TensorOptions().dtype(at::kLong));
}

at::Tensor dropout_mask(at::IntArrayRef sizes, double p, const at::Tensor& seed,
                        const at::TensorOptions& options, int64_t dim, int64_t begin, int64_t end) {
  std::vector<int64_t> part(sizes.begin(), sizes.end());
  part[dim] = end - begin;
  int64_t inner = 1;  // elements below `dim`, contiguous in both the part and the whole
  for (size_t axis = dim + 1; axis < sizes.size(); ++axis) inner *= sizes[axis];
  const int64_t run = part[dim] * inner;
  const int64_t stride = sizes[dim] * inner;

  const at::Tensor mask = at::empty(part, at::TensorOptions().dtype(at::kFloat));
  const int64_t runs = run == 0 ? 0 : mask.numel() / run;
  const uint64_t key = static_cast<uint64_t>(seed.item<int64_t>());
  const uint64_t threshold = drop_threshold(p);
  const float kept = static_cast<float>(1.0 / (1.0 - p));
  float* out = mask.data_ptr<float>();
  parallel_for(0, runs * run, 1 << 14, [&](int64_t chunk_begin, int64_t chunk_end) {
    for (int64_t i = chunk_begin; i < chunk_end; ++i) {
      const int64_t element = i / run * stride + begin * inner + i % run;
      out[i] = dropout_keeps(key, static_cast<uint64_t>(element), threshold) ? kept : 0.0f;
    }
  });
  return mask.to(options);
}

at::Tensor dropout_mask(at::IntArrayRef sizes, double p, const at::Tensor& seed,
                        const at::TensorOptions& options) {
  if (sizes.empty()) return dropout_mask({1}, p, seed, options).reshape({});
  return dropout_mask(sizes, p, seed, options, 0, 0, sizes[0]);
}

}  // namespace headloom
