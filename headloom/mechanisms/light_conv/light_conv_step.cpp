#include "headloom/mechanisms/light_conv/light_conv_step.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <utility>

#include "headloom/base/check.h"
#include "headloom/base/parallel.h"
#include "headloom/kernels/isa_table.h"
#include "headloom/mechanisms/light_conv/light_conv.h"
#include "headloom/mechanisms/light_conv/light_conv_step_kernels.h"
#include "headloom/tensor/dispatch.h"
#include "headloom/tensor/gradients.h"

HEADLOOM_ISA_TABLE(ConvStepTable, conv_step_table)

namespace headloom {
namespace {

using at::Tensor;

// Multiply-adds below which a second thread costs more than it saves.
constexpr int64_t kGrain = int64_t{1} << 15;

}  // namespace

ConvState::ConvState(int64_t batch, int64_t kernel_size, int64_t channels,
                     const at::TensorOptions& options)
    : ring_(at::zeros({batch, kernel_size - 1, channels}, options)) {}

Tensor ConvState::by_kernel(const Tensor& values, const Tensor& logits, const Step& options) {
  const bool one_kernel = logits.dim() == 2;
  dispatch_kernel_type(values.scalar_type(), "convolution step", [&](auto tag) {
    using S = typename decltype(tag)::type;
    kernels::ConvStep<S> step;
    step.values = static_cast<S*>(values.data_ptr());
    step.ring = static_cast<S*>(ring_.data_ptr());
    step.logits = static_cast<const S*>(logits.const_data_ptr());
    step.heads = logits.size(-2);
    step.kernel_size = logits.size(-1);
    step.logits_token_stride = one_kernel ? 0 : step.heads * step.kernel_size;
    step.logits_batch_stride = values.size(1) * step.logits_token_stride;
    step.bias = options.conv_bias.defined()
                    ? static_cast<const S*>(options.conv_bias.const_data_ptr())
                    : nullptr;
    step.tokens = values.size(1);
    step.head_channels = values.size(2) / step.heads;
    step.position = length_;
    step.weight_softmax = options.weight_softmax;
    step.renorm_padding = options.renorm_padding;
    const int64_t work = std::max<int64_t>(1, step.tokens * step.head_channels * step.kernel_size);
    const auto run = kernels::member_for<S>(kernels::conv_step_table(kernels::active_isa()));
    parallel_for(0, values.size(0) * step.heads, std::max<int64_t>(1, kGrain / work),
                 [&](int64_t begin, int64_t end) { run(step, begin, end); });
  });
  return values;
}

Tensor ConvState::in_order() const {
  const int64_t rows = ring_.size(1), oldest = rows > 0 ? length_ % rows : 0;
  return at::cat({ring_.narrow(1, oldest, rows - oldest), ring_.narrow(1, 0, oldest)}, 1);
}

Tensor ConvState::by_operators(const Tensor& values, const Tensor& logits,
                               const Step& options) const {
  const int64_t rows = ring_.size(1), tokens = values.size(1);
  const Tensor window = at::cat({in_order(), values}, 1);  // [B, K - 1 + n, C]
  const auto fill = [&](ConvOptions& call) {
    call.padding = "causal";
    call.weight_softmax = options.weight_softmax;
    call.conv_bias = as_optional(options.conv_bias);
  };
  if (logits.dim() == 2) {
    LightConvOptions call;
    fill(call);
    return light_conv(window, logits, call).narrow(1, rows, tokens);
  }
  DynamicConvOptions call;
  fill(call);
  call.renorm_padding = options.renorm_padding;
  if (options.renorm_padding && length_ < rows) {
    // What stands for tokens before the first is no token.
    const Tensor absent =
        at::zeros({window.size(0), window.size(1)}, window.options().dtype(at::kBool));
    absent.narrow(1, 0, rows - length_).fill_(true);
    call.key_padding_mask = absent;
  }
  const Tensor all_logits = at::constant_pad_nd(logits, {0, 0, 0, 0, rows, 0});
  return dynamic_conv(window, all_logits, call).narrow(1, rows, tokens);
}

void ConvState::remember(const Tensor& values) {
  const int64_t rows = ring_.size(1), tokens = values.size(1);
  int64_t from = std::max<int64_t>(0, tokens - rows);
  while (from < tokens) {
    const int64_t row = (length_ + from) % rows;
    const int64_t count = std::min(tokens - from, rows - row);
    ring_.narrow(1, row, count).copy_(values.narrow(1, from, count));
    from += count;
  }
}

Tensor ConvState::step(const Tensor& given, const Tensor& given_logits, const Step& given_options) {
  const at::ScalarType type = ring_.scalar_type();
  const Tensor values = given.to(type).contiguous(), logits = given_logits.to(type).contiguous();
  Step options = given_options;
  if (options.conv_bias.defined()) options.conv_bias = options.conv_bias.to(type).contiguous();
  Tensor mixed;
  const bool recorded = at::GradMode::is_enabled() &&
                        (values.requires_grad() || logits.requires_grad() ||
                         (options.conv_bias.defined() && options.conv_bias.requires_grad()));
  if (values.device().is_cpu() && !recorded) {
    mixed = by_kernel(values, logits, options);
  } else {
    mixed = by_operators(values, logits, options);
    if (ring_.size(1) > 0) remember(values.detach());
  }
  length_ += values.size(1);
  return mixed;
}

void ConvState::reorder(const Tensor& index) {
  if (index.size(0) != ring_.size(0)) {
    ring_ = ring_.index_select(0, index);
    spare_ = Tensor();
    return;
  }
  if (!spare_.defined()) spare_ = at::empty_like(ring_);
  at::index_select_out(spare_, ring_, 0, index);
  std::swap(ring_, spare_);
}

int64_t ConvState::bytes() const {
  return static_cast<int64_t>(ring_.nbytes() + (spare_.defined() ? spare_.nbytes() : 0));
}

}  // namespace headloom
