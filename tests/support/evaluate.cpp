#include "tests/support/evaluate.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>

#include <ostream>

#include "headloom/base/check.h"
#include "tests/support/closeness.h"

namespace headloom::testing {

using at::Tensor;

std::ostream& operator<<(std::ostream& stream, const Failure& failure) {
  return stream << failure.op << ", case " << failure.case_id << ", " << failure.check << " of "
                << failure.tensor << ": " << failure.text;
}

std::vector<Tensor> outputs_of(const Function& function, const Arguments& arguments) {
  const at::NoGradGuard off;
  return function(arguments);
}

std::vector<std::string> names_of_differentiable(const std::vector<Input>& inputs) {
  std::vector<std::string> names;
  for (const Input& input : inputs) {
    if (input.differentiable) names.push_back(input.name);
  }
  return names;
}

Result evaluate(const Function& function, const std::vector<Input>& inputs,
                const Arguments& arguments, const std::vector<Tensor>& grad_outputs) {
  const at::AutoGradMode on(true);
  Result result;
  result.names = names_of_differentiable(inputs);
  Arguments leaves = arguments;
  for (const std::string& name : result.names) {
    leaves.set(name, arguments[name].detach().requires_grad_(true));
    result.differentiated.push_back(leaves[name]);
  }
  result.outputs = function(leaves);
  std::vector<Tensor> outputs, grads;
  for (size_t i = 0; i < result.outputs.size(); ++i) {
    if (!result.outputs[i].requires_grad()) continue;
    outputs.push_back(result.outputs[i]);
    grads.push_back(grad_outputs.at(i));
  }
  if (result.names.empty()) return result;
  HEADLOOM_CHECK(!outputs.empty(), "evaluate", "an output that takes part in autograd", "none");
  result.gradients =
      torch::autograd::grad(outputs, result.differentiated, grads, /*retain_graph=*/std::nullopt,
                            /*create_graph=*/false, /*allow_unused=*/true);
  for (size_t i = 0; i < result.gradients.size(); ++i) {
    if (!result.gradients[i].defined()) {
      result.gradients[i] = at::zeros_like(result.differentiated[i]);
    }
  }
  return result;
}

std::vector<Tensor> random_like(const std::vector<Tensor>& outputs, const std::string& salt) {
  std::vector<Tensor> random;
  for (size_t i = 0; i < outputs.size(); ++i) {
    random.push_back(normal(cat(salt, "/grad_output", i), outputs[i].sizes()).to(outputs[i]));
  }
  return random;
}

std::vector<Tensor> to_type(const std::vector<Tensor>& tensors, at::ScalarType type) {
  std::vector<Tensor> converted;
  for (const Tensor& tensor : tensors) converted.push_back(tensor.to(type));
  return converted;
}

std::vector<std::string> tensor_names(const Operator& op, const Result& result) {
  std::vector<std::string> names = op.outputs;
  names.resize(result.outputs.size(), "output");
  for (size_t i = 0; i < result.gradients.size(); ++i) names.push_back("grad_" + result.names[i]);
  return names;
}

std::vector<Tensor> all_tensors(const Result& result) {
  std::vector<Tensor> all;
  for (const Tensor& output : result.outputs) all.push_back(output.detach());
  all.insert(all.end(), result.gradients.begin(), result.gradients.end());
  return all;
}

double gradient_scale(const Result& result) {
  double scale = 0.0;
  for (const Tensor& gradient : result.gradients) scale = std::max(scale, magnitude(gradient));
  return scale;
}

void Collector::add(const std::string& tensor, const std::string& text) {
  failures_.push_back({check_, op_.name, case_, tensor, text});
}

void Collector::add(const std::string& tensor, const std::optional<std::string>& text,
                    const std::string& where) {
  if (text) add(tensor, where + ": " + *text);
}

void Collector::guard(const std::string& where, const std::function<void()>& body) {
  try {
    body();
  } catch (const std::exception& error) {
    // torch appends a backtrace.
    const std::string message = error.what();
    add("the call", where + ": threw: " + message.substr(0, message.find("\nException raised")));
  }
}

void Collector::same_bits(const Result& found, const Result& expected, const std::string& where) {
  const std::vector<Tensor> left = all_tensors(found), right = all_tensors(expected);
  const std::vector<std::string> names = tensor_names(op_, expected);
  for (size_t i = 0; i < right.size(); ++i) {
    add(names[i], differs_in_bits(left.at(i), right[i]), where);
  }
}

void Collector::same_within_rounding(const Result& found, const Result& exact,
                                     const std::string& where) {
  const std::vector<Tensor> left = all_tensors(found), right = all_tensors(exact);
  const std::vector<std::string> names = tensor_names(op_, exact);
  const double scale = gradient_scale(exact);
  for (size_t i = 0; i < right.size(); ++i) {
    const bool is_gradient = i >= exact.outputs.size();
    add(names[i], differs_by_more_than_rounding(left.at(i), right[i], is_gradient ? scale : 0.0),
        where);
  }
}

}  // namespace headloom::testing
