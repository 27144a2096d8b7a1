#include "headloom/mechanisms/dropout.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include "headloom/base/check.h"
#include "headloom/base/parallel.h"
#include "headloom/base/rng.h"
#include "headloom/kernels/dropout.h"
#include "headloom/kernels/isa_table.h"
#include "headloom/tensor/dispatch.h"
#include "headloom/tensor/dropout.h"

namespace headloom {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Elements that a thread takes at least; a multiple of 4, as the kernel's parts begin.
constexpr int64_t kGrain = 1 << 14;

// x contiguous, on the processor.
Tensor drop(const Tensor& x, double p, uint64_t seed) {
  const Tensor y = at::empty_like(x);
  dispatch_kernel_type(x.scalar_type(), "dropout", [&](auto tag) {
    using T = typename decltype(tag)::type;
    kernels::DropoutArgs<T> args{static_cast<const T*>(x.const_data_ptr()),
                                 static_cast<T*>(y.mutable_data_ptr()),
                                 0,
                                 0,
                                 seed,
                                 static_cast<uint32_t>(drop_threshold(p)),
                                 1.0 / (1.0 - p)};
    const auto kernel = kernels::member_for<T>(kernels::dropout_table(kernels::active_isa()));
    const int64_t count = x.numel(), parts = (count + kGrain - 1) / kGrain;
    parallel_for(0, parts, 1, [&](int64_t begin, int64_t end) {
      kernels::DropoutArgs<T> part = args;
      part.begin = begin * kGrain;
      part.end = std::min(end * kGrain, count);
      kernel(part);
    });
  });
  return y;
}

class Dropout : public torch::autograd::Function<Dropout> {
 public:
  static Tensor forward(AutogradContext* context, const Tensor& x, double p, int64_t seed) {
    context->saved_data["p"] = p;
    context->saved_data["seed"] = seed;
    return drop(x.contiguous(), p, static_cast<uint64_t>(seed));
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    return {Dropout::apply(grads[0], context->saved_data["p"].toDouble(),
                           context->saved_data["seed"].toInt()),
            Tensor(), Tensor()};
  }
};

}  // namespace

Tensor dropout(const Tensor& x, double p, bool training) {
  HEADLOOM_CHECK(p >= 0.0 && p < 1.0, "dropout", "p from 0 to below 1", cat(p));
  if (!training || p == 0.0) return x;
  const Tensor seed = new_seed();
  if (!x.is_cpu()) return x * dropout_mask(x.sizes(), p, seed, x.options());
  return Dropout::apply(x, p, seed.item<int64_t>());
}

}  // namespace headloom
