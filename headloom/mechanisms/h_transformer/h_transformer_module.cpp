#include "headloom/mechanisms/h_transformer/h_transformer_module.h"

#include <ATen/ATen.h>
#include <torch/nn/init.h>

#include <cmath>

#include "headloom/base/check.h"
#include "headloom/mechanisms/h_transformer/h_transformer_decoding.h"
#include "headloom/mechanisms/h_transformer/h_transformer_dispatch.h"
#include "headloom/mechanisms/h_transformer/h_transformer_kernels.h"
#include "headloom/tensor/gradients.h"

namespace headloom {
namespace {

using at::Tensor;

constexpr const char* kWhere = "mixer h_transformer";

const RegisterMechanism kRegister({
    "h_transformer",
    "hierarchical attention: near tokens exactly, far ones in groups, linear in the length",
    "Zhu and Soricut, H-Transformer-1D, ACL 2021",
    "block_size (16): even, 2 to 256\n"
    "query_mode (\"coarse\"): far keys are scored against the query's group, or \"fine\": against "
    "the query\n"
    "center_keys (false): leave out the mean of the keys\n"
    "relative_bias (true): a learned bias for each distance, shared by the levels\n"
    "bias (false): whether the projections have biases\n"
    "init (\"paper\"): initial values as the authors', or \"xavier\" as dot_product",
    [](const MixerConfig& config, OptionReader& options) {
      return std::make_shared<HTransformerMixer>(config, options);
    },
});

// Normal with the given deviation after it is cut at two of its own, as the authors' library has
// it.
void fill_truncated_normal(const Tensor& x, double deviation) {
  const at::NoGradGuard no_grad;
  constexpr double kDeviationWhenCut = 0.87962566103423978;
  const double end = std::erf(2.0 / std::sqrt(2.0));
  at::Tensor filled = x;
  filled.uniform_(-end, end).erfinv_().mul_(std::sqrt(2.0) * deviation / kDeviationWhenCut);
}

// Pairs of a query and a key that are scored, masked quadrants left out.
double scored_pairs(int64_t length, int64_t block_size, bool causal, bool fine) {
  const double size = static_cast<double>(block_size);
  if (length <= 2 * block_size) {
    const double tokens = static_cast<double>(length);
    return causal ? tokens * (tokens + 1) / 2 : tokens * tokens;
  }
  double pairs = 0;
  for (int l = 0; l < kernels::h_attention_levels(length, block_size); ++l) {
    const double blocks = static_cast<double>(length >> l) / size;
    const double sides = (causal ? 1 : 2) * std::max(0.0, blocks - 1) * size * size;
    if (l == 0) {
      pairs += sides + blocks * size * (causal ? (size + 1) / 2 : size);
    } else {
      pairs += 0.75 * sides * (fine ? static_cast<double>(int64_t{1} << l) : 1.0);
    }
  }
  return pairs;
}

}  // namespace

HTransformerMixer::HTransformerMixer(const MixerConfig& config, OptionReader& options)
    : config_(config) {
  block_size_ = options.integer("block_size", 16);
  HEADLOOM_CHECK(block_size_ >= 2 && block_size_ <= kMaxBlockSize && block_size_ % 2 == 0, kWhere,
                 cat("an even block_size of 2 to ", kMaxBlockSize), cat(block_size_));
  query_mode_ = options.choice("query_mode", "coarse", {"coarse", "fine"});
  center_keys_ = options.boolean("center_keys", false);
  const bool bias = options.boolean("bias", false);
  const bool as_paper = options.choice("init", "paper", {"paper", "xavier"}) == "paper";
  q_proj_ = projection("q_proj", bias, as_paper);
  k_proj_ = projection("k_proj", bias && !(center_keys_ && config.causal), as_paper);
  v_proj_ = projection("v_proj", bias, as_paper);
  out_proj_ = projection("out_proj", bias, as_paper);
  if (options.boolean("relative_bias", true)) {
    relative_bias_ =
        register_parameter("relative_bias", at::zeros({config.heads, 4 * block_size_ - 1}));
    if (as_paper) torch::nn::init::normal_(relative_bias_, 0.0, 0.1);
  }
}

Linear HTransformerMixer::projection(const char* name, bool bias, bool as_paper) {
  Linear linear(torch::nn::LinearOptions(config_.dim, config_.dim).bias(bias));
  if (as_paper) {
    fill_truncated_normal(linear->weight, 1.0 / std::sqrt(static_cast<double>(config_.dim)));
  } else {
    torch::nn::init::xavier_uniform_(linear->weight);
  }
  if (bias) torch::nn::init::zeros_(linear->bias);
  return register_module(name, linear);
}

Tensor HTransformerMixer::split_heads(const Tensor& x) const {
  return x.view({x.size(0), x.size(1), config_.heads, config_.dim / config_.heads}).transpose(1, 2);
}

Tensor HTransformerMixer::merge_heads(const Tensor& x) const {
  return x.transpose(1, 2).reshape({x.size(0), x.size(2), config_.dim});
}

HAttentionOptions HTransformerMixer::attention() const {
  HAttentionOptions options;
  options.block_size = block_size_;
  options.bias = as_optional(relative_bias_);
  options.dropout_p = is_training() ? config_.dropout : 0.0;
  options.query_mode = query_mode_;
  return options;
}

Tensor HTransformerMixer::forward(const Tensor& x, const Masks& masks) {
  HAttentionOptions options = attention();
  options.causal = config_.causal;
  options.center_keys = center_keys_ && !config_.causal;
  options.key_padding_mask = as_optional(masks.key_padding_mask);
  options.cu_seqlens = as_optional(masks.cu_seqlens);
  const Tensor q = split_heads(q_proj_(x)), k = split_heads(k_proj_(x));
  note(is_training(), {q, k, masks.key_padding_mask, masks.key_padding_mask, masks.cu_seqlens});
  const Tensor mixed = h_attention(q, k, split_heads(v_proj_(x)), options);
  return out_proj_(merge_heads(mixed));
}

Tensor HTransformerMixer::cross(const Tensor& x, const Tensor& memory,
                                const Tensor& memory_padding_mask) {
  HEADLOOM_CHECK(x.size(1) == memory.size(1), kWhere, cat("a memory of ", x.size(1), " tokens"),
                 cat(memory.size(1)),
                 "Levels need equal lengths; use dot_product for cross attention of others.");
  HAttentionOptions options = attention();
  options.center_keys = center_keys_;
  if (memory_padding_mask.defined()) {
    options.key_padding_mask = memory_padding_mask;
    options.query_padding_mask = at::zeros_like(memory_padding_mask);
  }
  const Tensor q = split_heads(q_proj_(x)), k = split_heads(k_proj_(memory));
  note(is_training(), {q, k, {}, memory_padding_mask, {}});
  const Tensor mixed = h_attention(q, k, split_heads(v_proj_(memory)), options);
  return out_proj_(merge_heads(mixed));
}

std::unique_ptr<MixerState> HTransformerMixer::new_state(int64_t) const {
  HEADLOOM_CHECK(config_.causal, kWhere, "a causal mixer to decode with", "a bidirectional one");
  HAttentionOptions options = attention();
  options.dropout_p = 0.0;
  return std::make_unique<HAttentionState>(options);
}

Tensor HTransformerMixer::step(const Tensor& x, MixerState& state) {
  auto* seen = dynamic_cast<HAttentionState*>(&state);
  HEADLOOM_CHECK(seen, kWhere, "a state of its own new_state()", "another mixer's state");
  return out_proj_(merge_heads(
      seen->step(split_heads(q_proj_(x)), split_heads(k_proj_(x)), split_heads(v_proj_(x)))));
}

double HTransformerMixer::flops(int64_t length) const {
  const double tokens = static_cast<double>(length), width = static_cast<double>(config_.dim);
  const double pairs = scored_pairs(length, block_size_, config_.causal, query_mode_ == "fine");
  return 8 * tokens * width * width + 4 * pairs * width;
}

}  // namespace headloom
