// From tensors to the fused kernels of the processor and back.
// B batch, T time, C channels, H heads, K kernel width, G groups of tiles.
#include <ATen/ATen.h>

#include <algorithm>
#include <vector>

#include "headloom/base/caches.h"
#include "headloom/base/parallel.h"
#include "headloom/base/rng.h"
#include "headloom/kernels/isa_table.h"
#include "headloom/kernels/workspace.h"
#include "headloom/mechanisms/light_conv/light_conv_kernels.h"
#include "headloom/mechanisms/light_conv/light_conv_paths.h"
#include "headloom/tensor/contract.h"
#include "headloom/tensor/dispatch.h"
#include "headloom/tensor/dropout.h"
#include "headloom/tensor/gradients.h"
#include "headloom/tensor/results.h"

namespace headloom {
namespace {

using at::Tensor;
using kernels::ConvArgs;
using kernels::ConvTile;
using kernels::kTileQuantum;
using kernels::Workspace;

template <class S>
const S* data(const Tensor& tensor) {
  return static_cast<const S*>(tensor.const_data_ptr());
}
template <class S>
S* mutable_data(const Tensor& tensor) {
  return tensor.defined() ? static_cast<S*>(tensor.mutable_data_ptr()) : nullptr;
}

Tensor with_contiguous_rows(const Tensor& tensor) {
  return tensor.stride(-1) == 1 || tensor.size(-1) == 1 ? tensor : tensor.contiguous();
}

int64_t round_up(int64_t value, int64_t step) {
  return (value + step - 1) / step * step;
}

// Positions of a tile, the unit that threads share out. Those of a gradient by dynamic weights
// compute the weights of K - 1 further positions, so they are longer where K is.
int64_t tile_rows(int64_t time, int64_t taps, bool recomputes_halo) {
  const int64_t rows =
      recomputes_halo ? std::clamp<int64_t>(round_up(taps, kTileQuantum), 128, 1024) : 64;
  return std::clamp(round_up(time, kTileQuantum), kTileQuantum, rows);
}

// Whether results of this size are written past the caches.
bool is_streamed(size_t bytes) {
  return static_cast<int64_t>(bytes) > last_level_cache_bytes() / 2;
}

// One call: its arguments in the layout and the types that the kernels take, which it keeps alive.
class FusedConv {
 public:
  FusedConv(const Tensor& x, const Tensor& weight, const ConvCall& call, bool backward)
      : call_(call), type_(accumulation_type(x)), x_(with_contiguous_rows(x)) {
    shared_ = weight.dim() == 2;
    weight_ = shared_ ? weight.to(type_).contiguous() : with_contiguous_rows(weight);
    if (shared_) {
      normalised_ = call.weight_softmax ? weight_.softmax(-1) : weight_;
      applied_ = normalised_;
      if (call.weight_dropout > 0.0 && !call.per_position) {
        multiplier_ =
            dropout_mask(weight_.sizes(), call.weight_dropout, *call.seed, weight_.options());
        applied_ = normalised_ * multiplier_;
      }
    }
    if (call.key_padding_mask) mask_ = call.key_padding_mask->contiguous();
    const bool per_position = !shared_ || (call.weight_dropout > 0.0 && call.per_position);
    tile_rows_ = tile_rows(x.size(1), weight.size(-1), backward && per_position);
    cut_tiles();
  }

  template <class S>
  ConvArgs<S> args() const {
    ConvArgs<S> args{};
    args.batch = x_.size(0);
    args.time = x_.size(1);
    args.channels = x_.size(2);
    args.heads = weight_.size(-2);
    args.taps = weight_.size(-1);
    const int64_t left = std::min(call_.padding, args.time + args.taps - 1);
    args.left = std::min(left, args.taps - 1);
    args.delay = left - args.left;
    args.tile_rows = tile_rows_;
    args.x = data<S>(x_);
    args.x_batch_stride = x_.stride(0);
    args.x_time_stride = x_.stride(1);
    if (shared_) {
      args.shared = data<accumulator_t<S>>(applied_);
    } else {
      args.logits = data<S>(weight_);
      args.logits_batch_stride = weight_.stride(0);
      args.logits_time_stride = weight_.stride(1);
      args.logits_head_stride = weight_.stride(2);
    }
    args.softmax = call_.weight_softmax;
    args.renorm = call_.renorm_padding;
    if (mask_.defined()) args.padded = data<uint8_t>(mask_);
    if (call_.weight_dropout > 0.0 && call_.per_position) {
      args.drop = {true, static_cast<uint64_t>(call_.seed->item<int64_t>()),
                   drop_threshold(call_.weight_dropout), 1.0 / (1.0 - call_.weight_dropout)};
    }
    return args;
  }

  // The gradient of the weight as it was given, from that of the normalised and dropped one.
  Tensor through_softmax(Tensor grad) const {
    if (multiplier_.defined()) grad = grad * multiplier_;
    return call_.weight_softmax ? at::_softmax_backward_data(grad, normalised_, -1, type_) : grad;
  }

  // Tiles that run on one thread at least, so that starting another pays.
  int64_t grain() const {
    constexpr int64_t kWorthAThread = 1 << 19;  // multiply-adds
    return kWorthAThread / (tile_rows_ * x_.size(2) * (weight_.size(-1) + 8)) + 1;
  }

  bool shared() const { return shared_; }
  at::ScalarType type() const { return type_; }
  const std::vector<ConvTile>& tiles() const { return tiles_; }

 private:
  void cut_tiles() {
    const int64_t time = x_.size(1);
    std::vector<int64_t> bounds{0, time};
    if (call_.cu_seqlens) bounds = read_boundaries(call_.op, "cu_seqlens", *call_.cu_seqlens, time);
    for (int64_t b = 0; b < x_.size(0); ++b) {
      for (size_t s = 0; s + 1 < bounds.size(); ++s) {
        for (int64_t begin = bounds[s]; begin < bounds[s + 1]; begin += tile_rows_) {
          const int64_t end = std::min(begin + tile_rows_, bounds[s + 1]);
          tiles_.push_back({b, begin, end, bounds[s], bounds[s + 1]});
        }
      }
    }
  }

  const ConvCall& call_;
  at::ScalarType type_;
  Tensor x_, weight_, normalised_, multiplier_, applied_, mask_;
  bool shared_;
  int64_t tile_rows_;
  std::vector<ConvTile> tiles_;
};

// Groups whose sums are kept apart: fixed by the problem, so that results do not depend on the
// number of threads; each of several tiles, and all together small beside x.
int64_t group_count(int64_t tiles, int64_t sums, int64_t elements) {
  const int64_t affordable = std::max<int64_t>(4, elements / (32 * std::max<int64_t>(1, sums)));
  return std::clamp<int64_t>(std::min(tiles / 4, affordable), 1, 64);
}

// [G, n] summed over the groups in order.
template <class A>
void add_groups(const Tensor& partial, const Tensor& total) {
  const A* from = data<A>(partial);
  A* to = mutable_data<A>(total);
  for (int64_t g = 0; g < partial.size(0); ++g, from += partial.size(1)) {
    for (int64_t i = 0; i < partial.size(1); ++i) to[i] += from[i];
  }
}

// One backward pass, gradients in the layout of the kernels.
template <class S>
class FusedBackward {
 public:
  using A = accumulator_t<S>;

  FusedBackward(const FusedConv& conv, const Tensor& grad_out, const Tensor& x,
                const Tensor& weight, Wanted wanted)
      : conv_(conv) {
    args_.conv = conv.args<S>();
    args_.grad_y = data<S>(grad_out);
    args_.grad_y_batch_stride = grad_out.stride(0);
    args_.grad_y_time_stride = grad_out.stride(1);
    args_.streamed = is_streamed(x.nbytes());
    const auto sums = x.options().dtype(conv.type());
    if (wanted[0]) {
      // What a delay pushes past the end has no gradient, and no kernel comes by there.
      grad_x = args_.conv.delay > 0 ? at::zeros(x.sizes(), x.options())
                                    : empty_result(x.sizes(), x.options());
    }
    if (wanted[1]) {
      grad_weight = conv.shared() ? at::zeros(weight.sizes(), sums)
                                  : empty_result(weight.sizes(), weight.options());
    }
    if (wanted[2]) grad_bias = at::zeros({x.size(2)}, sums);
    args_.grad_x = mutable_data<S>(grad_x);
    if (!conv.shared()) args_.grad_logits = mutable_data<S>(grad_weight);
  }

  void run() {
    const bool sums_weight = conv_.shared() && grad_weight.defined();
    if (sums_weight || grad_bias.defined()) {
      run_groups(sums_weight);
      return;
    }
    const auto tiles = static_cast<int64_t>(conv_.tiles().size());
    const int64_t bytes = kernel().workspace_bytes(args_);
    parallel_for(0, tiles, conv_.grain(), [&](int64_t begin, int64_t end) {
      const Workspace<char> workspace(bytes);
      kernel().run(args_, conv_.tiles().data() + begin, end - begin, workspace.data());
    });
  }

  Tensor grad_x, grad_weight, grad_bias;

 private:
  static const kernels::ConvBackwardKernels<S>& kernel() {
    return kernels::member_for<S>(kernels::conv_backward_table(kernels::active_isa()));
  }

  void run_groups(bool sums_weight) {
    const auto tiles = static_cast<int64_t>(conv_.tiles().size());
    const int64_t weights = sums_weight ? grad_weight.numel() : 0;
    const int64_t channels = grad_bias.defined() ? grad_bias.numel() : 0;
    const int64_t groups = group_count(tiles, weights + channels,
                                       args_.conv.batch * args_.conv.time * args_.conv.channels);
    const auto sums = at::TensorOptions().dtype(conv_.type());
    const Tensor of_weight = at::zeros({groups, weights}, sums);
    const Tensor of_bias = at::zeros({groups, channels}, sums);
    // The kernel lays out its workspace by which gradients are asked for.
    args_.grad_shared = sums_weight ? mutable_data<A>(of_weight) : nullptr;
    args_.grad_bias = grad_bias.defined() ? mutable_data<A>(of_bias) : nullptr;
    const int64_t bytes = kernel().workspace_bytes(args_);
    const int64_t grain =
        std::max<int64_t>(1, conv_.grain() * groups / std::max<int64_t>(1, tiles));
    parallel_for(0, groups, grain, [&](int64_t begin, int64_t end) {
      const Workspace<char> workspace(bytes);
      for (int64_t g = begin; g < end; ++g) {
        kernels::ConvBackwardArgs<S> args = args_;
        if (sums_weight) args.grad_shared += g * weights;
        if (args.grad_bias != nullptr) args.grad_bias += g * channels;
        const int64_t first = tiles * g / groups, last = tiles * (g + 1) / groups;
        kernel().run(args, conv_.tiles().data() + first, last - first, workspace.data());
      }
    });
    if (sums_weight) add_groups<A>(of_weight, grad_weight);
    if (grad_bias.defined()) add_groups<A>(of_bias, grad_bias);
  }

  const FusedConv& conv_;
  kernels::ConvBackwardArgs<S> args_{};
};

}  // namespace

Tensor conv_forward_fused(const Tensor& x, const Tensor& weight, const ConvCall& call) {
  const FusedConv conv(x, weight, call, /*backward=*/false);
  const Tensor y = empty_result(x.sizes(), x.options());
  if (y.numel() == 0) return y;
  Tensor bias;
  if (call.conv_bias) bias = call.conv_bias->to(conv.type()).contiguous();
  dispatch_kernel_type(x.scalar_type(), call.op, [&](auto tag) {
    using S = typename decltype(tag)::type;
    const auto& kernel = kernels::member_for<S>(kernels::conv_forward_table(kernels::active_isa()));
    const kernels::ConvForwardArgs<S> args{conv.args<S>(),
                                           bias.defined() ? data<accumulator_t<S>>(bias) : nullptr,
                                           mutable_data<S>(y), is_streamed(y.nbytes())};
    const int64_t bytes = kernel.workspace_bytes(args.conv);
    const auto tiles = static_cast<int64_t>(conv.tiles().size());
    parallel_for(0, tiles, conv.grain(), [&](int64_t begin, int64_t end) {
      const Workspace<char> workspace(bytes);
      kernel.run(args, conv.tiles().data() + begin, end - begin, workspace.data());
    });
  });
  return y;
}

ConvGradients conv_backward_fused(const Tensor& grad_out, const Tensor& x, const Tensor& weight,
                                  Wanted wanted, const ConvCall& call) {
  const FusedConv conv(x, weight, call, /*backward=*/true);
  const auto wanted_or_empty = [&](const Tensor& gradient) {
    return or_empty(gradient.defined() ? gradient.to(x.scalar_type()) : gradient, x);
  };
  const Tensor grad_y = with_contiguous_rows(grad_out);
  return dispatch_kernel_type(x.scalar_type(), call.op, [&](auto tag) -> ConvGradients {
    using S = typename decltype(tag)::type;
    FusedBackward<S> backward(conv, grad_y, x, weight, wanted);
    if (x.numel() > 0) {
      backward.run();
    } else if (wanted[1]) {
      backward.grad_weight.zero_();
    }
    Tensor grad_weight = backward.grad_weight;
    if (wanted[1] && conv.shared()) grad_weight = conv.through_softmax(grad_weight);
    return {wanted_or_empty(backward.grad_x), wanted_or_empty(grad_weight),
            wanted_or_empty(backward.grad_bias)};
  });
}

}  // namespace headloom
