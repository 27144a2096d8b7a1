#pragma once

#include "tests/support/conformance.h"

// What the checks of the suite share.
namespace headloom::testing {

struct Result {
  std::vector<at::Tensor> outputs;
  std::vector<at::Tensor> gradients;  // of the differentiable inputs, in their order; zeros where
                                      // autograd has none
  std::vector<std::string> names;     // of the differentiable inputs
  std::vector<at::Tensor> differentiated;  // their values
};

// Outputs alone.
std::vector<at::Tensor> outputs_of(const Function& function, const Arguments& arguments);

// Outputs and gradients of sum <grad_outputs[i], outputs[i]>.
Result evaluate(const Function& function, const std::vector<Input>& inputs,
                const Arguments& arguments, const std::vector<at::Tensor>& grad_outputs);

// Random numbers in the shape and dtype of the outputs.
std::vector<at::Tensor> random_like(const std::vector<at::Tensor>& outputs,
                                    const std::string& salt);
std::vector<at::Tensor> to_type(const std::vector<at::Tensor>& tensors, at::ScalarType type);

std::vector<std::string> names_of_differentiable(const std::vector<Input>& inputs);

// What the two results' tensors are called, and pairs of them.
std::vector<std::string> tensor_names(const Operator& op, const Result& result);
std::vector<at::Tensor> all_tensors(const Result& result);

// The largest magnitude among the gradients: they are sums of terms of that size.
double gradient_scale(const Result& result);

// Collects the failures of one check of one case.
class Collector {
 public:
  Collector(std::string check, const Operator& op, const Case& c)
      : check_(std::move(check)), op_(op), case_(c.id) {}
  void add(const std::string& tensor, const std::string& text);
  void add(const std::string& tensor, const std::optional<std::string>& text,
           const std::string& where);
  // Runs `body`; what it throws is a failure.
  void guard(const std::string& where, const std::function<void()>& body);
  Failures done() { return std::move(failures_); }

  // Tensor by tensor.
  void same_bits(const Result& found, const Result& expected, const std::string& where);
  // `exact` is the oracle in float64.
  void same_within_rounding(const Result& found, const Result& exact, const std::string& where);

 private:
  std::string check_;
  const Operator& op_;
  std::string case_;
  Failures failures_;
};

}  // namespace headloom::testing
