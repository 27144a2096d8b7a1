// Checks against the oracle: values, gradients, precisions, lengths, golden values.
#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>

#include "headloom/base/check.h"
#include "tests/support/closeness.h"
#include "tests/support/evaluate.h"
#include "tests/support/golden.h"
#include "tests/support/jacobian.h"

namespace headloom::testing {
namespace {

using at::Tensor;

// Runs the oracle in float64 on the very numbers that the operator got.
Result exact_result(const Operator& op, const Case& c, const Arguments& arguments,
                    const std::vector<Tensor>& grad_outputs) {
  return evaluate(op.reference, c.inputs, in_type(arguments, at::kDouble),
                  to_type(grad_outputs, at::kDouble));
}

bool has(const std::vector<at::ScalarType>& types, at::ScalarType type) {
  return std::find(types.begin(), types.end(), type) != types.end();
}

void compare_in(Collector& found, const Operator& op, const Case& c, at::ScalarType type) {
  found.guard(cat(type), [&] {
    const Arguments arguments = make_arguments(c.inputs, c.options, c.id, type);
    const auto grads = random_like(outputs_of(op.run, arguments), c.id);
    const Result exact = exact_result(op, c, arguments, grads);
    const Result result = evaluate(op.run, c.inputs, arguments, grads);
    for (const Tensor& tensor : all_tensors(result)) {
      if (tensor.scalar_type() != type) {
        found.add("dtype", cat("found ", tensor.scalar_type(), ", expected ", type));
      }
    }
    found.same_within_rounding(result, exact, cat(type));
    const std::vector<Tensor> plain = outputs_of(op.run, arguments);
    for (size_t i = 0; i < plain.size(); ++i) {
      found.add(op.outputs.at(i),
                differs_by_more_than_rounding(plain[i], exact.outputs.at(i).detach()),
                cat(type, " without autograd"));
    }
  });
}

}  // namespace

Failures check_reference(const Operator& op, const Case& c) {
  Collector found("reference", op, c);
  for (const at::ScalarType type : {at::kDouble, at::kFloat}) {
    if (has(op.types, type)) compare_in(found, op, c, type);
  }
  return found.done();
}

Failures check_halves(const Operator& op, const Case& c) {
  Collector found("halves", op, c);
  for (const at::ScalarType type : {at::kBFloat16, at::kHalf}) {
    if (!has(op.types, type)) continue;
    found.guard(cat(type), [&] {
      const Arguments arguments = make_arguments(c.inputs, c.options, c.id, type);
      const auto grads = random_like(outputs_of(op.run, arguments), c.id);
      const Result exact = exact_result(op, c, arguments, grads);
      const Result reference = evaluate(op.reference, c.inputs, arguments, grads);
      const Result result = evaluate(op.run, c.inputs, arguments, grads);
      const auto tensors = all_tensors(result), references = all_tensors(reference),
                 exacts = all_tensors(exact);
      const auto names = tensor_names(op, exact);
      for (size_t i = 0; i < exacts.size(); ++i) {
        const double scale = i < exact.outputs.size() ? 0.0 : gradient_scale(exact);
        found.add(names[i], worse_than_reference(tensors.at(i), references.at(i), exacts[i], scale),
                  cat(type));
      }
    });
  }
  return found.done();
}

Failures check_differences(const Operator& op, const Case& c) {
  Collector found("differences", op, c);
  found.guard("float64", [&] {
    const Arguments arguments = make_arguments(c.inputs, c.options, c.id, at::kDouble);
    const auto grads = random_like(outputs_of(op.run, arguments), c.id);
    const Result result = evaluate(op.run, c.inputs, arguments, grads);
    for (size_t i = 0; i < result.names.size(); ++i) {
      const std::string& name = result.names[i];
      const auto value = [&](const Tensor& x) {
        Arguments changed = arguments;
        changed.set(name, x);
        const std::vector<Tensor> outputs = outputs_of(op.run, changed);
        double sum = 0.0;
        for (size_t o = 0; o < outputs.size(); ++o) {
          sum += (outputs[o] * grads[o]).sum().item<double>();
        }
        return sum;
      };
      found.add("grad_" + name,
                differs_from_differences(value, arguments[name], result.gradients[i], c.id + name),
                "float64");
    }
  });
  return found.done();
}

Failures check_lone_gradients(const Operator& op, const Case& c) {
  Collector found("lone_gradients", op, c);
  found.guard("float64", [&] {
    const Arguments arguments = make_arguments(c.inputs, c.options, c.id, at::kDouble);
    const auto grads = random_like(outputs_of(op.run, arguments), c.id);
    const Result together = evaluate(op.run, c.inputs, arguments, grads);
    for (size_t i = 0; i < together.names.size(); ++i) {
      std::vector<Input> inputs = c.inputs;
      for (Input& input : inputs) input.differentiable = input.name == together.names[i];
      const Result alone = evaluate(op.run, inputs, arguments, grads);
      found.add("grad_" + together.names[i],
                differs_by_more_than_rounding(alone.gradients.at(0), together.gradients[i],
                                              gradient_scale(together)),
                "the only input that requires a gradient");
    }
  });
  return found.done();
}

namespace {

// s = sum <directions[i], gradient i of <grad_output, op>>, and what it is a function of.
struct SecondOrder {
  const Operator& op;
  const Case& c;
  std::vector<Tensor> directions;

  Tensor value(const Arguments& arguments, const std::vector<Tensor>& grads, bool create_graph,
               std::vector<Tensor> leaves) const {
    std::vector<Tensor> outputs, used;
    const std::vector<Tensor> all = op.run(arguments);
    for (size_t i = 0; i < all.size(); ++i) {
      if (!all[i].requires_grad()) continue;
      outputs.push_back(all[i]);
      used.push_back(grads[i]);
    }
    const auto first = torch::autograd::grad(outputs, leaves, used, std::nullopt, create_graph,
                                             /*allow_unused=*/true);
    Tensor sum = at::zeros({}, leaves[0].options().requires_grad(false));
    for (size_t i = 0; i < first.size(); ++i) {
      if (first[i].defined()) sum = sum + (first[i] * directions[i]).sum();
    }
    return sum;
  }
};

void check_second_derivatives(Collector& found, const Operator& op, const Case& c) {
  const at::AutoGradMode on(true);
  Arguments arguments = make_arguments(c.inputs, c.options, c.id, at::kDouble);
  std::vector<Tensor> grads = random_like(outputs_of(op.run, arguments), c.id);
  const std::vector<std::string> names = names_of_differentiable(c.inputs);
  SecondOrder second{op, c, {}};
  std::vector<Tensor> leaves;
  for (const std::string& name : names) {
    arguments.set(name, arguments[name].requires_grad_(true));
    leaves.push_back(arguments[name]);
    second.directions.push_back(
        normal(c.id + name + "/second", arguments[name].sizes()).to(arguments[name].device()));
  }
  std::vector<Tensor> variables = leaves;
  for (Tensor& grad : grads) {
    grad.requires_grad_(true);
    variables.push_back(grad);
  }
  const Tensor sum = second.value(arguments, grads, /*create_graph=*/true, leaves);
  if (!sum.requires_grad()) return found.add("gradients", "do not take part in autograd again");
  const auto analytic =
      torch::autograd::grad({sum}, variables, {}, std::nullopt, false, /*allow_unused=*/true);
  for (size_t i = 0; i < variables.size(); ++i) {
    const bool is_input = i < names.size();
    const std::string name = is_input ? names[i] : cat("grad_output", i - names.size());
    const auto value = [&](const Tensor& x) {
      Arguments changed = arguments;
      std::vector<Tensor> changed_grads = grads, changed_leaves = leaves;
      for (Tensor& grad : changed_grads) grad = grad.detach();
      if (is_input) {
        changed_leaves[i] = x.detach().requires_grad_(true);
        changed.set(name, changed_leaves[i]);
      } else {
        changed_grads[i - names.size()] = x;
      }
      return second.value(changed, changed_grads, false, changed_leaves).item<double>();
    };
    const Tensor& derivative = analytic[i];
    const Tensor at_x = variables[i].detach();
    found.add("second derivative by " + name,
              differs_from_differences(value, at_x,
                                       derivative.defined() ? derivative : at::zeros_like(at_x),
                                       c.id + name + "/second", /*elements=*/8),
              "float64");
  }
}

// The message of what the call throws, empty when it does not.
std::string thrown_by(const std::function<void()>& call) {
  try {
    call();
  } catch (const std::exception& error) {
    return error.what();
  }
  return "";
}

std::optional<std::string> lacks(const std::string& message, std::vector<std::string> words) {
  if (message.empty()) return "was not refused";
  for (const std::string& word : words) {
    if (message.find(word) == std::string::npos) {
      return cat("the message lacks \"", word, "\": ", message);
    }
  }
  return std::nullopt;
}

}  // namespace

Failures check_double_backward(const Operator& op, const Case& c) {
  Collector found("double_backward", op, c);
  if (op.double_backward == DoubleBackward::kWorks) {
    found.guard("float64", [&] { check_second_derivatives(found, op, c); });
    return found.done();
  }
  Collector ignored("double_backward", op, c);
  const std::string message = thrown_by([&] { check_second_derivatives(ignored, op, c); });
  found.add("second derivative", lacks(message, {op.name, "expected", "found"}), "refusal");
  return found.done();
}

Failures check_refusals(const Operator& op) {
  Failures all;
  for (const Refusal& refusal : op.refusals) {
    Collector found("refusal", op, Case{refusal.id, {}});
    std::vector<std::string> words{op.name, "expected", "found"};
    words.insert(words.end(), refusal.says.begin(), refusal.says.end());
    found.add("message", lacks(thrown_by(refusal.call), words), "refusal");
    for (Failure& failure : found.done()) all.push_back(std::move(failure));
  }
  return all;
}

Failures check_lengths(const Operator& op) {
  Failures all;
  for (const int64_t length :
       {0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 67, 127, 128, 129}) {
    Case c = op.of_length(length);
    c.id = cat("length_", length);
    Collector found("lengths", op, c);
    compare_in(found, op, c, at::kDouble);
    for (Failure& failure : found.done()) all.push_back(std::move(failure));
  }
  return all;
}

Failures check_golden(const Operator& op) {
  Failures all;
  for (const Golden& golden : read_golden(op.golden)) {
    Case c{golden.id, golden.inputs, golden.arguments.options};
    Collector found("golden", op, c);
    for (const bool reference : {true, false}) {
      const std::string who = reference ? "reference" : "operator";
      found.guard(who, [&] {
        const Result result = evaluate(reference ? op.reference : op.run, c.inputs,
                                       golden.arguments, golden.grad_outputs);
        const auto tensors = all_tensors(result);
        const auto names = tensor_names(op, result);
        for (const auto& [name, expected] : golden.expected) {
          const auto at = std::find(names.begin(), names.end(), name);
          HEADLOOM_CHECK(at != names.end(), op.golden, "expectations of results", name);
          found.add(name, differs_from_golden(tensors[at - names.begin()], expected), who);
        }
      });
    }
    for (Failure& failure : found.done()) all.push_back(std::move(failure));
  }
  return all;
}

}  // namespace headloom::testing
