#include "headloom/mechanisms/light_conv/light_conv_reference.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <limits>

#include "headloom/tensor/contract.h"
#include "headloom/tensor/dropout.h"

namespace headloom {

using at::Tensor;

Tensor light_conv_reference(const Tensor& x, const Tensor& weight, const ConvCall& call) {
  const int64_t time = x.size(1), heads = weight.size(-2), kernel_size = weight.size(-1);
  const Taps taps(x, weight, call);
  const Tensor weights = taps.weights(weight, 0, time).applied();  // broadcasts to [B, T, H, K]
  const Tensor window =
      taps.window(x).unflatten(2, {heads, x.size(2) / heads});  // [B, T + K - 1 or more, H, R]
  Tensor y = at::zeros_like(window.narrow(1, 0, time));
  for (int64_t k = 0; k < kernel_size; ++k) {
    y = y + weights.select(-1, k).unsqueeze(-1) * window.narrow(1, k, time);
  }
  return add_bias_and_mask(y.flatten(2), call);
}

Taps::Taps(const Tensor& x, const Tensor& weight, const ConvCall& call)
    : call_(call),
      batch_(x.size(0)),
      time_(x.size(1)),
      heads_(weight.size(-2)),
      kernel_size_(weight.size(-1)),
      left_(std::min(call.padding, time_ + kernel_size_ - 1)) {
  std::vector<int64_t> bounds{0, time_};
  if (call.cu_seqlens) bounds = read_boundaries(call.op, "cu_seqlens", *call.cu_seqlens, time_);
  if (!call.cu_seqlens && !call.renorm_padding) return;
  const Tensor first = at::empty({time_}, at::TensorOptions().dtype(at::kLong));
  const Tensor end = at::empty_like(first);
  for (size_t s = 0; s + 1 < bounds.size(); ++s) {
    first.slice(0, bounds[s], bounds[s + 1]).fill_(bounds[s]);
    end.slice(0, bounds[s], bounds[s + 1]).fill_(bounds[s + 1]);
  }
  first_ = first.to(x.device());
  end_ = end.to(x.device());
}

Tensor Taps::in_range(int64_t begin, int64_t n) const {
  const auto positions = first_.options();
  const Tensor source = at::arange(begin, begin + n, positions).unsqueeze(1) +
                        (at::arange(kernel_size_, positions) - left_);  // [n, K]
  const Tensor inside = (source >= first_.narrow(0, begin, n).unsqueeze(1))
                            .logical_and(source < end_.narrow(0, begin, n).unsqueeze(1));
  if (!call_.key_padding_mask) return inside.unsqueeze(0).unsqueeze(2);
  const Tensor padded =
      call_.key_padding_mask->index_select(1, source.clamp(0, time_ - 1).flatten())
          .view({batch_, n, kernel_size_});
  return inside.logical_and(padded.logical_not()).unsqueeze(2);
}

Tensor Taps::dropconnect(const Tensor& weight, int64_t begin, int64_t n) const {
  const double p = call_.weight_dropout;
  if (!call_.per_position) {
    return dropout_mask({heads_, kernel_size_}, p, *call_.seed, weight.options());
  }
  return dropout_mask({batch_, time_, heads_, kernel_size_}, p, *call_.seed, weight.options(), 1,
                      begin, begin + n);
}

TapWeights Taps::weights(const Tensor& given, int64_t begin, int64_t n) const {
  Tensor weight = given;
  if (call_.key_padding_mask && weight.dim() == 4) {
    // The output at padding is cleared, but its gradient, 0, times a stray NaN would be NaN.
    const Tensor padded = call_.key_padding_mask->narrow(1, begin, n);
    weight = weight.masked_fill(padded.unsqueeze(-1).unsqueeze(-1), 0.0);
  }
  TapWeights taps{weight, {}};
  const Tensor inside = first_.defined() ? in_range(begin, n) : Tensor();
  if (call_.weight_softmax) {
    Tensor logits = weight;
    if (call_.renorm_padding) {
      // Where no tap is in range there is nothing to normalise and every tap reads zero; a row of
      // -inf would make NaN of it.
      const Tensor excluded = inside.logical_not().logical_and(inside.any(-1, /*keepdim=*/true));
      logits = logits.masked_fill(excluded, -std::numeric_limits<double>::infinity());
    }
    taps.normalised = logits.softmax(-1);
  }
  if (call_.weight_dropout > 0.0) taps.multiplier = dropconnect(weight, begin, n);
  if (call_.cu_seqlens) {
    const Tensor reads = inside.to(weight.scalar_type());
    taps.multiplier = taps.multiplier.defined() ? taps.multiplier * reads : reads;
  }
  return taps;
}

Tensor Taps::window(const Tensor& x) const {
  const int64_t behind = std::max<int64_t>(0, kernel_size_ - 1 - left_);
  return at::constant_pad_nd(zero_padding(x, call_), {0, 0, left_, behind});
}

Tensor zero_padding(const Tensor& x, const ConvCall& call) {
  return call.key_padding_mask ? x.masked_fill(call.key_padding_mask->unsqueeze(-1), 0.0) : x;
}

Tensor add_bias_and_mask(const Tensor& y, const ConvCall& call) {
  return zero_padding(call.conv_bias ? y + *call.conv_bias : y, call);
}

}  // namespace headloom
