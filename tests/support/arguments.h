#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "headloom/base/options.h"

// How a case of the conformance suite states its arguments, and how an operator sees them.
namespace headloom::testing {

enum class Kind { kFloating, kMask, kBoundaries, kSeed };

// One tensor argument. The builders below make the usual kinds; the members say what the suite may
// do with it.
struct Input {
  std::string name;
  Kind kind = Kind::kFloating;
  std::vector<int64_t> shape;
  bool differentiable = true;
  int64_t time = -1;      // axis of positions, -1 when there is none
  std::string padded_by;  // the mask [B, time] that hides positions of this argument
  std::string packed_by;  // the boundaries that cut this argument along `time`
  // float64, bool or int64 on the CPU; standard normal numbers when absent.
  std::function<at::Tensor()> values;

  Input padded(std::string mask) const;
  Input packed(std::string boundaries) const;
  Input fixed() const;  // takes no gradient
  Input filled(std::function<at::Tensor()> with) const;
};

// Floating point, without positions: weights, biases.
Input plain(std::string name, std::vector<int64_t> shape);
// Floating point, with positions along `time`.
Input tokens(std::string name, std::vector<int64_t> shape, int64_t time);
// bool [B, T]; each string is a row, 'x' where a position is padding: {"...xx", "x.x.."}.
Input padding(std::string name, std::vector<std::string> rows);
Input boundaries(std::string name, std::vector<int64_t> values);
Input seed(int64_t value, std::string name = "seed");

// The arguments of one call: tensors and options, by name.
class Arguments {
 public:
  // Refuses a name that is not there.
  const at::Tensor& operator[](const std::string& name) const;
  std::optional<at::Tensor> optional(const std::string& name) const;
  at::Tensor or_undefined(const std::string& name) const;
  bool has(const std::string& name) const { return find(name) != nullptr; }

  bool flag(const std::string& name, bool fallback = false) const;
  double number(const std::string& name, double fallback = 0.0) const;
  std::optional<double> optional_number(const std::string& name) const;
  int64_t integer(const std::string& name, int64_t fallback = 0) const;
  std::string text(const std::string& name, const std::string& fallback = "") const;

  void set(const std::string& name, at::Tensor tensor);
  void erase(const std::string& name);

  std::vector<std::pair<std::string, at::Tensor>> tensors;
  Options options;

 private:
  const at::Tensor* find(const std::string& name) const;
};

// Where the suite runs: HEADLOOM_TEST_DEVICE, the processor by default.
at::Device test_device();

// Standard normal float64 numbers that depend on the name and the shape alone.
at::Tensor normal(const std::string& name, at::IntArrayRef shape);

// Arguments for the inputs, floating ones rounded to `type`. `salt` keeps cases apart.
Arguments make_arguments(const std::vector<Input>& inputs, const Options& options,
                         const std::string& salt, at::ScalarType type);

// The same numbers with every floating tensor in `type`; every tensor on `device`.
Arguments in_type(const Arguments& arguments, at::ScalarType type);
Arguments on_device(const Arguments& arguments, at::Device device);

}  // namespace headloom::testing
