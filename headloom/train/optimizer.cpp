#include "headloom/train/optimizer.h"

#include <ATen/ops/_foreach_add.h>
#include <ATen/ops/_foreach_mul.h>
#include <ATen/ops/_foreach_norm.h>
#include <ATen/ops/_fused_adam.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <cmath>
#include <map>
#include <unordered_set>

#include "headloom/base/check.h"
#include "headloom/base/nearest.h"

namespace headloom::train {
namespace {

constexpr const char* kWhere = "optimizer";

void check_config(const OptimizerConfig& config) {
  const std::vector<std::string> names = {"adamw", "adam"};
  const std::string nearest = nearest_name(config.name, names);
  HEADLOOM_CHECK(config.name == "adamw" || config.name == "adam", kWhere,
                 cat("one of ", join(names)), cat('"', config.name, '"'),
                 nearest.empty() ? "" : cat("Did you mean \"", nearest, "\"?"));
  for (double beta : {config.beta1, config.beta2}) {
    HEADLOOM_CHECK(beta >= 0.0 && beta < 1.0, kWhere, "beta1 and beta2 from 0 to below 1",
                   cat(beta));
  }
  HEADLOOM_CHECK(config.eps > 0.0, kWhere, "eps above 0", cat(config.eps));
  HEADLOOM_CHECK(config.weight_decay >= 0.0, kWhere, "weight_decay of 0 or more",
                 cat(config.weight_decay));
}

// The gradient, laid out as the parameter is: the fused operator walks both as plain memory.
const at::Tensor& gradient_of(const at::Tensor& parameter, const std::string& name) {
  at::Tensor& grad = parameter.mutable_grad();
  HEADLOOM_CHECK(grad.layout() == at::kStrided, kWhere, cat("a dense gradient of ", name),
                 c10::str(grad.layout()), "Create the embedding with sparse = false.");
  if (grad.strides() != parameter.strides()) grad = at::empty_like(parameter).copy_(grad);
  return grad;
}

// What step() and scale_and_clip() pass on, for the parameters that have a gradient.
struct Selection {
  std::vector<at::Tensor> parameters, gradients, first_moments, second_moments, steps;
};

template <class Group>
Selection with_gradient(const Group& group) {
  Selection chosen;
  for (size_t i = 0; i < group.parameters.size(); ++i) {
    const at::Tensor& parameter = group.parameters[i];
    if (!parameter.grad().defined()) continue;
    chosen.parameters.push_back(parameter);
    chosen.gradients.push_back(gradient_of(parameter, group.names[i]));
    chosen.first_moments.push_back(group.first_moments[i]);
    chosen.second_moments.push_back(group.second_moments[i]);
    chosen.steps.push_back(group.steps[i]);
  }
  return chosen;
}

// In at least float32, so that squares of half-precision gradients do not overflow.
double norm_of(const std::vector<at::Tensor>& gradients, at::ScalarType dtype) {
  const auto accumulate = dtype == at::kDouble ? at::kDouble : at::kFloat;
  return at::stack(at::_foreach_norm(gradients, 2, accumulate))
      .to(at::kDouble)
      .norm()
      .item<double>();
}

// The values of `given` in the order of `own`, once all names, shapes and dtypes agree.
std::vector<at::Tensor> matched(const NamedTensors& own, const NamedTensors& given) {
  constexpr const char* kAdvice = "The state is of another model or optimizer.";
  std::map<std::string, at::Tensor> left;
  for (const auto& [name, value] : given) {
    HEADLOOM_CHECK(left.emplace(name, value).second, kWhere, "every name of the state once",
                   name + " again");
  }
  std::vector<at::Tensor> values;
  for (const auto& [name, tensor] : own) {
    const auto found = left.find(name);
    HEADLOOM_CHECK(found != left.end(), kWhere, cat("a state with ", name), "none of that name",
                   kAdvice);
    const at::Tensor value = found->second;
    HEADLOOM_CHECK(value.sizes() == tensor.sizes() && value.scalar_type() == tensor.scalar_type(),
                   kWhere, cat(tensor.scalar_type(), " of shape ", tensor.sizes(), " as ", name),
                   cat(value.scalar_type(), " of shape ", value.sizes()), kAdvice);
    values.push_back(value);
    left.erase(found);
  }
  HEADLOOM_CHECK(left.empty(), kWhere, cat("a state of ", own.size(), " tensors"),
                 cat("also ", left.begin()->first), kAdvice);
  return values;
}

}  // namespace

Optimizer::Optimizer(const OptimizerConfig& config, const torch::nn::Module& model)
    : config_(config) {
  check_config(config);
  const at::NoGradGuard no_grad;
  std::unordered_set<const at::TensorImpl*> seen;
  for (const auto& item : model.named_parameters()) {
    const at::Tensor& parameter = item.value();
    if (!parameter.requires_grad() || !seen.insert(parameter.unsafeGetTensorImpl()).second) {
      continue;
    }
    add(item.key(), parameter);
  }
}

void Optimizer::add(const std::string& name, const at::Tensor& parameter) {
  HEADLOOM_CHECK(parameter.is_floating_point() && parameter.is_non_overlapping_and_dense(), kWhere,
                 cat("dense real values in parameter ", name),
                 cat(parameter.scalar_type(), " with strides ", parameter.strides()));
  Group& group = group_of(parameter);
  group.names.push_back(name);
  group.parameters.push_back(parameter);
  group.first_moments.push_back(at::zeros_like(parameter));
  group.second_moments.push_back(at::zeros_like(parameter));
  group.steps.push_back(at::zeros({}, parameter.options().dtype(at::kFloat)));
}

Optimizer::Group& Optimizer::group_of(const at::Tensor& parameter) {
  const bool decays = parameter.dim() >= 2;
  for (Group& group : groups_) {
    if (group.decays == decays && group.device == parameter.device() &&
        group.dtype == parameter.scalar_type()) {
      return group;
    }
  }
  groups_.push_back({decays, parameter.device(), parameter.scalar_type(), {}, {}, {}, {}, {}});
  return groups_.back();
}

void Optimizer::zero_grad() {
  // Dropped, not zeroed: a parameter that the next batch does not reach is then left alone.
  for (Group& group : groups_) {
    for (at::Tensor& parameter : group.parameters) parameter.mutable_grad().reset();
  }
}

void Optimizer::step(double lr) {
  const at::NoGradGuard no_grad;
  const auto update = [&](const auto&... arguments) {
    if (config_.name == "adam") {
      at::_fused_adam_(arguments...);
    } else {
      at::_fused_adamw_(arguments...);
    }
  };
  for (const Group& group : groups_) {
    const Selection chosen = with_gradient(group);
    if (chosen.parameters.empty()) continue;
    at::_foreach_add_(chosen.steps, 1);
    const at::TensorList no_maxima;
    update(chosen.parameters, chosen.gradients, chosen.first_moments, chosen.second_moments,
           no_maxima, chosen.steps, lr, config_.beta1, config_.beta2,
           group.decays ? config_.weight_decay : 0.0, config_.eps, /*amsgrad=*/false,
           /*maximize=*/false);
  }
}

double Optimizer::scale_and_clip(double factor, double clip) {
  const at::NoGradGuard no_grad;
  double squares = 0.0;
  std::vector<std::vector<at::Tensor>> gradients;
  for (const Group& group : groups_) {
    std::vector<at::Tensor> grads = with_gradient(group).gradients;
    if (grads.empty()) continue;
    squares += std::pow(norm_of(grads, group.dtype), 2);
    gradients.push_back(std::move(grads));
  }
  const double norm = std::abs(factor) * std::sqrt(squares);
  const bool clips = clip > 0.0 && std::isfinite(norm) && norm > clip;
  const double scale = clips ? factor * (clip / norm) : factor;
  if (scale == 1.0) return norm;
  for (const std::vector<at::Tensor>& grads : gradients) at::_foreach_mul_(grads, scale);
  return norm;
}

NamedTensors Optimizer::state() const {
  NamedTensors state;
  for (const Group& group : groups_) {
    for (size_t i = 0; i < group.names.size(); ++i) {
      state.emplace_back(group.names[i] + ".step", group.steps[i]);
      state.emplace_back(group.names[i] + ".first_moment", group.first_moments[i]);
      state.emplace_back(group.names[i] + ".second_moment", group.second_moments[i]);
    }
  }
  return state;
}

void Optimizer::load(const NamedTensors& state) {
  const at::NoGradGuard no_grad;
  const NamedTensors own = this->state();
  const std::vector<at::Tensor> values = matched(own, state);
  for (size_t i = 0; i < own.size(); ++i) own[i].second.copy_(values[i]);
}

}  // namespace headloom::train
