#include "headloom/mechanisms/symmetric/symmetric_module.h"

#include <torch/nn/init.h>

#include <cmath>

#include "headloom/base/check.h"
#include "headloom/mechanisms/symmetric/symmetric_reference.h"
#include "headloom/mechanisms/symmetric/symmetric_state.h"
#include "headloom/tensor/gradients.h"

namespace headloom {
namespace {

using at::Tensor;

constexpr const char* kWhere = "mixer symmetric";

const RegisterMechanism kRegister({
    "symmetric",
    "attention whose queries are its keys, with learned coefficients between them",
    "Courtois, Ostendorff, Hennig and Rehm, Symmetric Dot-Product Attention for Efficient Training "
    "of BERT Language Models, Findings of ACL 2024",
    "form (\"pairwise\"): \"symmetric\", \"pairwise\", \"constrained\" or \"low_rank\"\n"
    "rank (8): of the coefficients beside their diagonal, in the form low_rank\n"
    "initial (\"normal\"): coefficients at the start: \"normal\", \"identity\" or \"noise\"\n"
    "noise (0.02): around the identity, in \"noise\"\n"
    "decay (\"zero\" for normal, else \"initial\"): where weight decay pulls the coefficients, or "
    "\"none\"\n"
    "query_heads (heads): projections that the heads share in groups\n"
    "bias (true): whether the projections have biases\n"
    "cache (\"projections\"): what a decoder keeps of each token, or \"inputs\"",
    [](const MixerConfig& config, OptionReader& options) {
      return std::make_shared<SymmetricMixer>(config, options);
    },
});

}  // namespace

Tensor SymmetricMixer::Coefficient::value() const {
  const Tensor shaped = parameter.view(shape);
  return initial.defined() ? shaped + initial : shaped;
}

void SymmetricMixer::Coefficient::assign(const Tensor& value) {
  const at::NoGradGuard no_grad;
  parameter.view(shape).copy_(initial.defined() ? value - initial : value);
}

SymmetricMixer::SymmetricMixer(const MixerConfig& config, OptionReader& options)
    : config_(config), width_(config.dim / config.heads) {
  query_heads_ = options.integer("query_heads", config.heads);
  HEADLOOM_CHECK(query_heads_ >= 1 && config.heads % query_heads_ == 0, kWhere,
                 cat("query_heads that divides ", config.heads), cat(query_heads_));
  const bool bias = options.boolean("bias", true);
  caches_inputs_ = options.choice("cache", "projections", {"projections", "inputs"}) == "inputs";
  const auto projection = [&](const char* name, int64_t outputs) {
    Linear linear(torch::nn::LinearOptions(config.dim, outputs).bias(bias));
    torch::nn::init::xavier_uniform_(linear->weight);
    if (bias) torch::nn::init::zeros_(linear->bias);
    return register_module(name, linear);
  };
  q_proj_ = projection("q_proj", query_heads_ * width_);
  v_proj_ = projection("v_proj", config.dim);
  out_proj_ = projection("out_proj", config.dim);
  add_coefficients(options);
}

void SymmetricMixer::add_coefficients(OptionReader& options) {
  form_ = options.choice("form", "pairwise", {"symmetric", "pairwise", "constrained", "low_rank"});
  const std::string initial = options.choice("initial", "normal", {"normal", "identity", "noise"});
  const double noise = options.number("noise", 0.02);
  const int64_t rank = options.integer("rank", 8);
  decay_ = options.choice("decay", initial == "normal" ? "zero" : "initial",
                          {"zero", "initial", "none"});
  HEADLOOM_CHECK(noise >= 0.0, kWhere, "noise of 0 or more", cat(noise));
  HEADLOOM_CHECK(rank >= 1, kWhere, "rank of 1 or more", cat(rank));
  const int64_t H = config_.heads, D = width_;
  const double deviation = initial == "normal" ? 1.0 : initial == "noise" ? noise : 0.0;
  if (form_ == "pairwise" || form_ == "constrained") {
    Tensor start = at::randn({H, D, D}) * deviation;
    if (initial != "normal") start = start + at::eye(D);
    add_coefficient(pairwise_, "pairwise", start);
  } else if (form_ == "low_rank") {
    // rank * (deviation / sqrt(rank))^2 is the variance of an element of U U'^T. With the identity
    // alone U' is zero and U is not, so that U' learns from the first step.
    const double spread = std::pow(static_cast<double>(rank), -0.25);
    const double factor = deviation > 0.0 ? std::sqrt(deviation) : 1.0;
    add_coefficient(diagonal_, "diagonal", at::full({H, D}, initial == "normal" ? 0.0 : 1.0));
    add_coefficient(left_, "left", at::randn({H, D, rank}) * (spread * factor));
    add_coefficient(right_, "right",
                    at::randn({H, D, rank}) * (deviation > 0.0 ? spread * factor : 0.0));
  }
}

void SymmetricMixer::add_coefficient(Coefficient& coefficient, const char* name,
                                     const Tensor& start) {
  coefficient.shape = start.sizes().vec();
  if (decay_ == "initial") coefficient.initial = register_buffer(cat(name, "_initial"), start);
  Tensor first = decay_ == "initial" ? at::zeros_like(start) : start;
  if (decay_ == "none") first = first.flatten();
  coefficient.parameter = register_parameter(name, first);
}

Tensor SymmetricMixer::raw_coefficients() const {
  if (form_ == "symmetric") return {};
  if (form_ != "low_rank") return pairwise_.value();
  return at::diag_embed(diagonal_.value()) + at::matmul(left_.value(), right_.value().mT());
}

Tensor SymmetricMixer::coefficients() const {
  const Tensor raw = raw_coefficients();
  return form_ == "constrained" ? (raw + raw.mT()) * 0.5 : raw;
}

OrdinaryProjections SymmetricMixer::to_ordinary() const {
  const at::NoGradGuard no_grad;
  return ordinary_projections(q_proj_->weight, q_proj_->bias, coefficients(), config_.heads);
}

Tensor SymmetricMixer::from_ordinary(const OrdinaryProjections& ordinary) {
  HEADLOOM_CHECK(form_ == "pairwise" && query_heads_ == config_.heads, kWhere,
                 "form \"pairwise\" with a projection for each head, to import ordinary attention",
                 cat("form \"", form_, "\" with ", query_heads_, " of ", config_.heads));
  HEADLOOM_CHECK(ordinary.q_weight.sizes() == q_proj_->weight.sizes(), kWhere,
                 cat("q_weight of shape ", q_proj_->weight.sizes()),
                 cat("shape ", ordinary.q_weight.sizes()));
  HEADLOOM_CHECK(!ordinary.q_bias.defined() || q_proj_->bias.defined(), kWhere,
                 "no q_bias where projections have none", "a q_bias");
  const PairwiseFit fit = nearest_pairwise(ordinary.q_weight, ordinary.q_bias, ordinary.k_weight,
                                           ordinary.k_bias, config_.heads);
  const at::NoGradGuard no_grad;
  q_proj_->weight.copy_(fit.weight);
  if (q_proj_->bias.defined()) q_proj_->bias.copy_(fit.bias);
  pairwise_.assign(fit.pairwise);
  return fit.residual;
}

Tensor SymmetricMixer::split_heads(const Tensor& x, int64_t heads) const {
  return x.view({x.size(0), x.size(1), heads, width_}).transpose(1, 2);
}

Tensor SymmetricMixer::merge_heads(const Tensor& x) const {
  return x.transpose(1, 2).reshape({x.size(0), x.size(2), config_.dim});
}

Tensor SymmetricMixer::attend(const Tensor& q, const Tensor& v, SymmetricOptions options) const {
  options.symmetrize = form_ == "constrained";
  return symmetric_attention(q, v, as_optional(raw_coefficients()), options);
}

int64_t SymmetricMixer::query_width() const {
  HEADLOOM_CHECK(form_ != "symmetric", kWhere,
                 "coefficients between queries and keys, to align these",
                 "form \"symmetric\", whose queries are its keys",
                 "Use mixer.form = \"pairwise\", or no [alignment].");
  return width_;
}

void SymmetricMixer::leave(const Tensor& q, const Tensor& k, QueryKeys pass) {
  if (!records(is_training())) return;
  pass.q = fold_queries(q, coefficients(), config_.heads);
  pass.k = fold_queries(k, {}, config_.heads);
  note(is_training(), std::move(pass));
}

Tensor SymmetricMixer::forward(const Tensor& x, const Masks& masks) {
  SymmetricOptions options;
  options.key_padding_mask = as_optional(masks.key_padding_mask);
  options.cu_seqlens = as_optional(masks.cu_seqlens);
  options.causal = config_.causal;
  options.dropout_p = dropout();
  const Tensor q = split_heads(q_proj_(x), query_heads_);
  leave(q, q, {{}, {}, masks.key_padding_mask, masks.key_padding_mask, masks.cu_seqlens});
  return out_proj_(merge_heads(attend(q, split_heads(v_proj_(x), config_.heads), options)));
}

Tensor SymmetricMixer::attend_memory(const Tensor& x, const Tensor& k, const Tensor& v,
                                     const Tensor& padding_mask) {
  SymmetricOptions options;
  options.k = k;
  options.key_padding_mask = as_optional(padding_mask);
  options.dropout_p = dropout();
  const Tensor q = split_heads(q_proj_(x), query_heads_);
  leave(q, k, {{}, {}, {}, padding_mask, {}});
  return out_proj_(merge_heads(attend(q, v, options)));
}

Tensor SymmetricMixer::cross(const Tensor& x, const Tensor& memory,
                             const Tensor& memory_padding_mask) {
  return attend_memory(x, split_heads(q_proj_(memory), query_heads_),
                       split_heads(v_proj_(memory), config_.heads), memory_padding_mask);
}

std::unique_ptr<MixerState> SymmetricMixer::new_cross_state(const Tensor& memory,
                                                            const Tensor& memory_padding_mask) {
  auto state = std::make_unique<SymmetricState>(2, memory_padding_mask);
  state->append(
      {split_heads(q_proj_(memory), query_heads_), split_heads(v_proj_(memory), config_.heads)});
  return state;
}

Tensor SymmetricMixer::cross_step(const Tensor& x, const MixerState& state) {
  const auto* seen = dynamic_cast<const SymmetricState*>(&state);
  HEADLOOM_CHECK(seen, kWhere, "a state of its own new_cross_state()", "another mixer's state");
  return attend_memory(x, seen->kept(0), seen->kept(1), seen->padding_mask());
}

std::unique_ptr<MixerState> SymmetricMixer::new_state(int64_t) const {
  HEADLOOM_CHECK(config_.causal, kWhere, "a causal mixer to decode with", "a bidirectional one");
  return std::make_unique<SymmetricState>(caches_inputs_ ? 1 : 2);
}

Tensor SymmetricMixer::step(const Tensor& x, MixerState& state) {
  auto& seen = dynamic_cast<SymmetricState&>(state);
  if (caches_inputs_) {
    seen.append({x.unsqueeze(1)});
    return step_on_inputs(x, seen.kept(0));
  }
  const Tensor q = split_heads(q_proj_(x), query_heads_);
  seen.append({q, split_heads(v_proj_(x), config_.heads)});
  SymmetricOptions options;
  options.k = seen.kept(0);
  options.causal = x.size(1) > 1;  // one query sees everything so far
  return out_proj_(merge_heads(attend(q, seen.kept(1), options)));
}

// q' A (W x_j + b) is q' A W x_j and a term that the softmax over j does not see; the mean of W_v
// x_j
// + b_v is W_v times the mean of x_j, and b_v, because weights sum to 1.
Tensor SymmetricMixer::step_on_inputs(const Tensor& x, const Tensor& inputs) {
  const int64_t H = config_.heads, C = config_.dim;
  const Tensor folded =
      fold_queries(split_heads(q_proj_(x), query_heads_), coefficients(), H);  // [B, H, n, D]
  const Tensor weight = q_proj_->weight.view({query_heads_, width_, C});
  const Tensor absorbed =
      at::matmul(folded, weight.repeat_interleave(H / query_heads_, 0));  // [B, H, n, C]
  const Tensor tokens = inputs.expand({inputs.size(0), H, inputs.size(2), C});
  SymmetricOptions options;
  options.k = tokens;
  options.causal = x.size(1) > 1;
  options.scale = 1.0 / std::sqrt(static_cast<double>(width_));
  const Tensor mean = symmetric_attention(absorbed, tokens, std::nullopt, options);  // [B, H, n, C]
  Tensor mixed = at::matmul(mean, v_proj_->weight.view({H, width_, C}).mT());        // [B, H, n, D]
  if (v_proj_->bias.defined()) mixed = mixed + v_proj_->bias.view({H, 1, width_});
  return out_proj_(merge_heads(mixed));
}

double SymmetricMixer::flops(int64_t length) const {
  const double T = static_cast<double>(length), C = static_cast<double>(config_.dim);
  const double shared = static_cast<double>(query_heads_ * width_);
  const double pairs = config_.causal ? T * (T + 1) / 2 : T * T;
  const double folding = form_ == "symmetric" ? 0.0 : 2 * T * C * static_cast<double>(width_);
  return 4 * T * C * C + 2 * T * C * shared + folding + 4 * pairs * C;
}

}  // namespace headloom
