#include "headloom/mechanisms/dot_product/dot_product_module.h"

#include <torch/nn/init.h>

#include <cmath>

#include "headloom/base/check.h"
#include "headloom/mechanisms/dot_product/dot_product.h"
#include "headloom/tensor/gradients.h"

namespace headloom {
namespace {

using at::Tensor;

// Keys and values so far, [B, H, capacity, D]; the capacity doubles, so that a step writes in
// place.
class KeyValueState : public MixerState {
 public:
  void append(const Tensor& k, const Tensor& v) {
    const int64_t needed = length_ + k.size(2);
    if (!keys_.defined() || needed > keys_.size(2)) grow(k, std::max<int64_t>(16, 2 * needed));
    keys_.narrow(2, length_, k.size(2)).copy_(k);
    values_.narrow(2, length_, v.size(2)).copy_(v);
    length_ = needed;
  }
  Tensor keys() const { return keys_.narrow(2, 0, length_); }
  Tensor values() const { return values_.narrow(2, 0, length_); }

  void reorder(const Tensor& index) override {
    if (!keys_.defined()) return;
    keys_ = keys_.index_select(0, index);
    values_ = values_.index_select(0, index);
  }
  int64_t length() const override { return length_; }
  int64_t bytes() const override {
    return keys_.defined() ? static_cast<int64_t>(keys_.nbytes() + values_.nbytes()) : 0;
  }

 private:
  void grow(const Tensor& like, int64_t capacity) {
    const std::vector<int64_t> sizes{like.size(0), like.size(1), capacity, like.size(3)};
    const Tensor keys = at::empty(sizes, like.options());
    const Tensor values = at::empty(sizes, like.options());
    if (length_ > 0) {
      keys.narrow(2, 0, length_).copy_(this->keys());
      values.narrow(2, 0, length_).copy_(this->values());
    }
    keys_ = keys;
    values_ = values;
  }

  Tensor keys_, values_;
  int64_t length_ = 0;
};

// Keys and values of a memory, made once.
class MemoryState : public MixerState {
 public:
  MemoryState(const Tensor& keys, const Tensor& values, const Tensor& padding_mask)
      : keys(keys), values(values), padding_mask(padding_mask) {}
  void reorder(const Tensor& index) override {
    keys = keys.index_select(0, index);
    values = values.index_select(0, index);
    if (padding_mask.defined()) padding_mask = padding_mask.index_select(0, index);
  }
  int64_t length() const override { return keys.size(2); }
  int64_t bytes() const override {
    return static_cast<int64_t>(keys.nbytes() + values.nbytes() +
                                (padding_mask.defined() ? padding_mask.nbytes() : 0));
  }

  Tensor keys, values, padding_mask;  // [B, H, S, D] twice, [B, S] or undefined
};

const RegisterMechanism kRegister({
    "dot_product",
    "scaled dot-product attention, the baseline",
    "Vaswani et al., Attention Is All You Need, NeurIPS 2017",
    "bias (true): whether the projections have biases\n"
    "logit_scale (1): a factor on the logits, beside 1 / sqrt(head width)\n"
    "width (model.dim): of all heads together",
    [](const MixerConfig& config, OptionReader& options) {
      return std::make_shared<DotProductMixer>(config, options);
    },
});

}  // namespace

DotProductMixer::DotProductMixer(const MixerConfig& config, OptionReader& options)
    : config_(config), width_(options.integer("width", config.dim)) {
  HEADLOOM_CHECK(width_ >= 1 && width_ % config.heads == 0, "mixer dot_product",
                 cat("a width that is a multiple of the ", config.heads, " heads"), cat(width_));
  const bool bias = options.boolean("bias", true);
  const double factor = options.number("logit_scale", 1.0);
  HEADLOOM_CHECK(std::isfinite(factor) && factor > 0.0, "mixer dot_product",
                 "a finite logit_scale above 0", cat(factor));
  scale_ = factor / std::sqrt(static_cast<double>(width_ / config.heads));
  const auto projection = [&](const char* name, int64_t in, int64_t out) {
    Linear linear(torch::nn::LinearOptions(in, out).bias(bias));
    torch::nn::init::xavier_uniform_(linear->weight);
    if (bias) torch::nn::init::zeros_(linear->bias);
    return register_module(name, linear);
  };
  q_proj_ = projection("q_proj", config.dim, width_);
  k_proj_ = projection("k_proj", config.dim, width_);
  v_proj_ = projection("v_proj", config.dim, width_);
  out_proj_ = projection("out_proj", width_, config.dim);
}

Tensor DotProductMixer::split_heads(const Tensor& x) const {
  return x.view({x.size(0), x.size(1), config_.heads, width_ / config_.heads}).transpose(1, 2);
}

Tensor DotProductMixer::merge_heads(const Tensor& x) const {
  return x.transpose(1, 2).reshape({x.size(0), x.size(2), width_});
}

Tensor DotProductMixer::forward(const Tensor& x, const Masks& masks) {
  DotProductOptions options;
  options.scale = scale_;
  options.key_padding_mask = as_optional(masks.key_padding_mask);
  options.cu_seqlens_q = options.cu_seqlens_k = as_optional(masks.cu_seqlens);
  options.causal = config_.causal;
  options.dropout_p = dropout();
  const Tensor q = split_heads(q_proj_(x)), k = split_heads(k_proj_(x));
  note(is_training(), {q, k, masks.key_padding_mask, masks.key_padding_mask, masks.cu_seqlens});
  const Tensor mixed = dot_product_attention(q, k, split_heads(v_proj_(x)), options);
  return out_proj_(merge_heads(mixed));
}

Tensor DotProductMixer::attend_memory(const Tensor& x, const Tensor& keys, const Tensor& values,
                                      const Tensor& padding_mask) {
  DotProductOptions options;
  options.scale = scale_;
  options.key_padding_mask = as_optional(padding_mask);
  options.dropout_p = dropout();
  const Tensor q = split_heads(q_proj_(x));
  note(is_training(), {q, keys, {}, padding_mask, {}});
  return out_proj_(merge_heads(dot_product_attention(q, keys, values, options)));
}

Tensor DotProductMixer::cross(const Tensor& x, const Tensor& memory,
                              const Tensor& memory_padding_mask) {
  return attend_memory(x, split_heads(k_proj_(memory)), split_heads(v_proj_(memory)),
                       memory_padding_mask);
}

std::unique_ptr<MixerState> DotProductMixer::new_cross_state(const Tensor& memory,
                                                             const Tensor& memory_padding_mask) {
  return std::make_unique<MemoryState>(split_heads(k_proj_(memory)), split_heads(v_proj_(memory)),
                                       memory_padding_mask);
}

Tensor DotProductMixer::cross_step(const Tensor& x, const MixerState& state) {
  const auto* seen = dynamic_cast<const MemoryState*>(&state);
  HEADLOOM_CHECK(seen, "mixer dot_product", "a state of its own new_cross_state()",
                 "another mixer's state");
  return attend_memory(x, seen->keys, seen->values, seen->padding_mask);
}

std::unique_ptr<MixerState> DotProductMixer::new_state(int64_t) const {
  HEADLOOM_CHECK(config_.causal, "mixer dot_product", "a causal mixer to decode with",
                 "a bidirectional one");
  return std::make_unique<KeyValueState>();
}

Tensor DotProductMixer::step(const Tensor& x, MixerState& state) {
  auto& seen = dynamic_cast<KeyValueState&>(state);
  seen.append(split_heads(k_proj_(x)), split_heads(v_proj_(x)));
  DotProductOptions options;
  options.scale = scale_;
  options.causal = x.size(1) > 1;  // one query sees everything so far
  const Tensor mixed =
      dot_product_attention(split_heads(q_proj_(x)), seen.keys(), seen.values(), options);
  return out_proj_(merge_heads(mixed));
}

double DotProductMixer::flops(int64_t length) const {
  const double tokens = static_cast<double>(length), width = static_cast<double>(width_);
  const double pairs = config_.causal ? tokens * (tokens + 1) / 2 : tokens * tokens;
  return 8 * tokens * static_cast<double>(config_.dim) * width + 4 * pairs * width;
}

}  // namespace headloom
