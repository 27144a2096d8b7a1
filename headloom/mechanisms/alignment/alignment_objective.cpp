#include "headloom/mechanisms/alignment/alignment_objective.h"

#include <torch/csrc/autograd/custom_function.h>
#include <torch/nn/functional.h>
#include <torch/nn/init.h>

#include <cmath>

#include "headloom/base/check.h"
#include "headloom/base/nearest.h"
#include "headloom/mechanisms/linear.h"
#include "headloom/tensor/contract.h"
#include "headloom/tensor/dispatch.h"
#include "headloom/tensor/gradients.h"

namespace headloom {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct Reversal : torch::autograd::Function<Reversal> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, double factor) {
    ctx->saved_data["factor"] = factor;
    return x.view_as(x);
  }
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    return {grads[0] * -ctx->saved_data["factor"].toDouble(), Tensor()};
  }
};

Tensor unit(const Tensor& x) {
  return x / (x.norm(2, -1, /*keepdim=*/true) + 1e-6);
}

// Weights [B, 1, T] of the points, 1 / (points that take part).
Tensor weights(const Tensor& x, const Tensor& mask) {
  if (!mask.defined()) {
    return at::full({x.size(0), 1, x.size(2)}, 1.0 / std::max<int64_t>(1, x.size(2)), x.options());
  }
  const Tensor kept = mask.logical_not().to(x.scalar_type());
  return (kept / kept.sum(1, /*keepdim=*/true).clamp_min(1)).unsqueeze(1);
}

void check_choice(const char* key, const std::string& value,
                  const std::vector<std::string>& allowed) {
  const bool known = std::find(allowed.begin(), allowed.end(), value) != allowed.end();
  HEADLOOM_CHECK(known, "alignment", cat(key, " among ", join(allowed)), cat('"', value, '"'));
}

void check_above_zero(const char* key, double value) {
  HEADLOOM_CHECK(value > 0.0 && std::isfinite(value), "alignment", cat(key, " above 0"),
                 cat(value));
}

}  // namespace

void check_config(const AlignmentConfig& config) {
  check_choice(
      "form", config.form,
      {"none", "adversarial", "optimal_transport", "conditional_transport", "discrepancy"});
  check_choice("schedule", config.schedule, {"constant", "ramp"});
  check_choice("reduction", config.reduction, {"mean", "sum_heads"});
  check_choice("activation", config.activation, {"relu", "leaky_relu", "tanh"});
  check_choice("highway", config.highway, {"paper", "shared"});
  check_choice("cost", config.cost, {"cosine", "euclidean"});
  check_choice("gradient", config.gradient, {"envelope", "implicit"});
  check_above_zero("temperature", config.temperature);
  check_above_zero("eps", config.eps);
  check_above_zero("bandwidth", config.bandwidth);
  check_above_zero("hidden", static_cast<double>(config.hidden));
  check_above_zero("ramp_steps", static_cast<double>(config.ramp_steps));
}

Tensor reverse_gradient(const Tensor& x, double factor) {
  return Reversal::apply(x, factor);
}

AlignmentNetworks::AlignmentNetworks(const AlignmentConfig& config, int64_t width)
    : config_(config) {
  const auto linear = [&](const char* name, int64_t in, int64_t out) {
    torch::nn::Linear made(in, out);
    torch::nn::init::normal_(made->weight, 0.0, 0.02);
    torch::nn::init::zeros_(made->bias);
    return register_module(name, made);
  };
  const bool transport = config.form == "conditional_transport";
  if (!transport && config.form != "adversarial") return;
  if (config.highway == "paper") gate_ = linear("gate", width, width);
  transform_ = linear("transform", width, width);
  critic_in_ = linear("critic_in", width, config.hidden);
  critic_out_ = linear("critic_out", config.hidden, transport ? config.hidden : 1);
  if (!transport) return;
  navigator_in_ = linear("navigator_in", width, config.hidden);
  navigator_out_ = linear("navigator_out", config.hidden, config.hidden);
  if (config.learn_temperature) {
    log_temperature_ = register_parameter("log_temperature",
                                          at::full({}, std::log(config.temperature), at::kFloat));
  }
}

std::pair<Tensor, Tensor> AlignmentNetworks::parameters_of(const torch::nn::Linear& linear,
                                                           bool reversed) const {
  if (!reversed) return {linear->weight, linear->bias};
  return {reverse_gradient(linear->weight, config_.reversal),
          reverse_gradient(linear->bias, config_.reversal)};
}

Tensor AlignmentNetworks::affine(const torch::nn::Linear& linear, const Tensor& x,
                                 bool reversed) const {
  const auto [weight, bias] = parameters_of(linear, reversed);
  return headloom::linear(x, weight, bias);
}

Tensor AlignmentNetworks::activate(const Tensor& x) const {
  if (config_.activation == "tanh") return x.tanh();
  return config_.activation == "relu" ? x.relu() : at::leaky_relu(x, 0.1);
}

// The first layers of all networks are one product: the points are read once.
AlignmentNetworks::Features AlignmentNetworks::features(const Tensor& x) const {
  std::vector<Tensor> weights, biases;
  std::vector<int64_t> widths;
  const auto join = [&](const torch::nn::Linear& linear, bool reversed) {
    if (!linear) return;
    const auto [weight, bias] = parameters_of(linear, reversed);
    weights.push_back(weight);
    biases.push_back(bias);
    widths.push_back(weight.size(0));
  };
  join(transform_, true);
  join(gate_, true);
  join(navigator_in_, config_.reverse_navigator);
  const std::vector<Tensor> first =
      headloom::linear(x, at::cat(weights), at::cat(biases)).split_with_sizes(widths, -1);
  const Tensor highway = at::lerp(x, first[0].relu(), (gate_ ? first[1] : first[0]).sigmoid());
  Features found;
  found.adversary = affine(critic_out_, activate(affine(critic_in_, highway, true)), true);
  if (!navigator_in_) return found;
  found.adversary = unit(found.adversary);
  found.navigator = affine(navigator_out_, activate(first.back()), config_.reverse_navigator);
  if (config_.unit_navigator) found.navigator = unit(found.navigator);
  return found;
}

// V = mean log D(q) + mean log(1 - D(k)), from logits.
Tensor AlignmentNetworks::adversarial(const Tensor& q, const Tensor& k, const Tensor& query_mask,
                                      const Tensor& key_mask) {
  const Tensor of_q = features(config_.detach_queries ? q.detach() : q).adversary.squeeze(3);
  const Tensor of_k = features(k).adversary.squeeze(3);  // [B, H, Tk]
  return -(weights(q, query_mask) * at::softplus(-of_q)).sum(2) -
         (weights(k, key_mask) * at::softplus(of_k)).sum(2);
}

Tensor AlignmentNetworks::transport(const Tensor& q, const Tensor& k, const Tensor& query_mask,
                                    const Tensor& key_mask) {
  const Features both = features(at::cat({q, k}, 2));  // [B, H, Tq + Tk, h]
  const std::vector<int64_t> sizes{q.size(2), k.size(2)};
  const auto points = both.adversary.split_with_sizes(sizes, 2);
  const auto places = both.navigator.split_with_sizes(sizes, 2);
  TransportOptions options;
  options.temperature = log_temperature_.defined() ? 1.0 : config_.temperature;
  options.rho = config_.rho;
  options.cost = config_.cost;
  options.query_mask = as_optional(query_mask);
  options.key_mask = as_optional(key_mask);
  const Tensor u = log_temperature_.defined()
                       ? places[0] * (-log_temperature_).exp().to(places[0].scalar_type())
                       : places[0];
  return conditional_transport(u, places[1], points[0], points[1], options);
}

Tensor AlignmentNetworks::forward(const Tensor& q, const Tensor& k, const Tensor& query_mask,
                                  const Tensor& key_mask) {
  if (config_.form == "adversarial") return adversarial(q, k, query_mask, key_mask);
  if (config_.form == "conditional_transport") return transport(q, k, query_mask, key_mask);
  if (config_.form == "discrepancy") {
    return maximum_mean_discrepancy(
        q, k, {config_.bandwidth, as_optional(query_mask), as_optional(key_mask)});
  }
  SinkhornDivergenceOptions options;
  options.eps = config_.eps;
  options.cost = "half_squared";
  options.debiased = config_.debiased;
  options.sharp = true;
  options.max_iter = config_.max_iter;
  options.gradient = config_.gradient;
  options.query_mask = as_optional(query_mask);
  options.key_mask = as_optional(key_mask);
  return sinkhorn_divergence(unit(q), unit(k), options);
}

AlignmentObjective::AlignmentObjective(const AlignmentConfig& config,
                                       const std::vector<int64_t>& widths)
    : config_(config) {
  check_config(config);
  for (size_t i = 0; i < widths.size(); ++i) {
    layers_.push_back(
        register_module(cat("layer", i), std::make_shared<AlignmentNetworks>(config, widths[i])));
  }
}

Tensor AlignmentObjective::of_pass(AlignmentNetworks& layer, const QueryKeys& given) const {
  QueryKeys pass = given;
  // The networks are in float32: what autocast made half comes back.
  for (Tensor* points : {&pass.q, &pass.k}) *points = points->to(accumulation_type(*points));
  const Tensor nothing;
  const auto reduce = [&](const Tensor& values) {  // [B, H]
    return config_.reduction == "mean" ? values.mean() : values.sum(1).mean();
  };
  if (!pass.cu_seqlens.defined()) {
    return reduce(layer.forward(pass.q, pass.k, config_.masks ? pass.query_padding : nothing,
                                config_.masks ? pass.key_padding : nothing));
  }
  const auto bounds = read_boundaries("alignment", "cu_seqlens", pass.cu_seqlens, pass.q.size(2));
  std::vector<Tensor> values;
  for (size_t s = 0; s + 1 < bounds.size(); ++s) {
    const int64_t begin = bounds[s], count = bounds[s + 1] - begin;
    if (count == 0) continue;
    const auto part = [&](const Tensor& mask) {
      return config_.masks && mask.defined() ? mask.narrow(1, begin, count) : nothing;
    };
    values.push_back(
        reduce(layer.forward(pass.q.narrow(2, begin, count), pass.k.narrow(2, begin, count),
                             part(pass.query_padding), part(pass.key_padding))));
  }
  return values.empty() ? pass.q.sum() * 0 : at::stack(values).mean();
}

Tensor AlignmentObjective::forward(const std::vector<std::vector<QueryKeys>>& passes) {
  HEADLOOM_CHECK(passes.size() == layers_.size(), "alignment",
                 cat("the passes of ", layers_.size(), " layers"), cat(passes.size()));
  std::vector<Tensor> values;
  for (size_t i = 0; i < passes.size(); ++i) {
    for (const QueryKeys& pass : passes[i]) values.push_back(of_pass(*layers_[i], pass));
  }
  return values.empty() ? at::zeros({}) : at::stack(values).mean();
}

double AlignmentObjective::weight(int64_t step) const {
  if (config_.schedule == "constant") return config_.weight;
  const double part = static_cast<double>(step) / static_cast<double>(config_.ramp_steps);
  return config_.weight * (2.0 / (1.0 + std::exp(-10.0 * part)) - 1.0);
}

}  // namespace headloom
