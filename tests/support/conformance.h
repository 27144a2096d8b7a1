#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <iosfwd>
#include <optional>
#include <string>
#include <vector>

#include "tests/support/arguments.h"

// The suite that every operator joins by stating its cases:
//
//   Operator my_operator() {
//     Operator op;
//     op.name = "my_operator";
//     op.run = [](const Arguments& a) { return std::vector{my_operator(a["x"], a["w"])}; };
//     op.reference = [](const Arguments& a) { return std::vector{my_reference(a["x"], a["w"])}; };
//     op.cases = {{.id = "causal", .inputs = {tokens("x", {2, 5, 3}, 1), plain("w", {3})},
//                  .causal = true}};
//     return op;
//   }
//   const bool kJoined = join(my_operator());
//
// registers the tests <operator>.<check>_<case>. What a case says about itself decides which checks
// apply to it. Each check is also a function that returns what it found, so that the suite can be
// tested with operators that are wrong on purpose.
namespace headloom::testing {

using Function = std::function<std::vector<at::Tensor>(const Arguments&)>;

struct Case {
  std::string id;
  std::vector<Input> inputs;
  Options options = {};
  // Positions from the end of `output_time` see no position that is closer to the end of `time` of
  // any input: the last position of every input is the newest.
  bool causal = false;
  // Axis of positions in every output; -1 when there is none.
  int64_t output_time = -1;
  // bool, broadcasts to every output: true where there is nothing to attend, so that the output and
  // every gradient through it are zero.
  std::function<at::Tensor(const Arguments&)> nothing_to_attend = {};
  // Too slow for the fast tier.
  bool slow = false;
};

// A call that must be refused.
struct Refusal {
  std::string id;
  std::function<void()> call;
  std::vector<std::string> says = {};  // besides the operator's name, "expected" and "found"
};

enum class DoubleBackward { kWorks, kRefused };

struct Operator {
  std::string name;
  Function run;        // through torch's dispatcher
  Function reference;  // the oracle
  std::vector<Case> cases;
  std::vector<std::string> outputs = {"out"};
  // A case of the given length; the suite runs 0, 1, odd lengths, powers of two and neighbours.
  std::function<Case(int64_t)> of_length = {};
  std::vector<Refusal> refusals = {};
  // File in tests/golden, see golden.h.
  std::string golden = "";
  std::vector<at::ScalarType> types = {at::kDouble, at::kFloat, at::kBFloat16, at::kHalf};
  DoubleBackward double_backward = DoubleBackward::kWorks;
  // Whether NaN at a padded position of an input is harmless; finite garbage always must be.
  bool padding_may_be_nan = true;
  // The option that holds the dropout probability, and a call on `seed` whose result holds the
  // multiplier, 0 or 1 / (1 - p), of each droppable element.
  std::string dropout_option = "";
  std::function<at::Tensor(double p, int64_t seed)> dropout_multipliers = {};
  // Type of the output under autocast to bfloat16 from float32; nothing: no autocast rule.
  std::optional<at::ScalarType> autocast = at::kBFloat16;
  // A case whose forward and backward must fit in memory_factor times the bytes of its arguments
  // and outputs, in float32; slow tier.
  std::vector<Case> large = {};
  double memory_factor = 8.0;
};

struct Failure {
  std::string check, op, case_id, tensor, text;
};
using Failures = std::vector<Failure>;
std::ostream& operator<<(std::ostream& stream, const Failure& failure);

struct Check {
  std::string name;
  Failures (*run)(const Operator&, const Case&);
  bool (*applies)(const Operator&, const Case&);
};

// The checks of one case: reference, halves, gradients, differences, double_backward, strides,
// padding, nothing_to_attend, packing, causality, poison, determinism, purity, shapes, autocast,
// dropout.
const std::vector<Check>& case_checks();

// The output and, in float64 and float32, every gradient equal the reference's.
Failures check_reference(const Operator& op, const Case& c);
// bfloat16 and float16: error at most twice that of the reference in that precision.
Failures check_halves(const Operator& op, const Case& c);
// Gradients by central differences.
Failures check_differences(const Operator& op, const Case& c);
// Each input's gradient alone equals that of all together.
Failures check_lone_gradients(const Operator& op, const Case& c);
// Second derivatives by central differences of the gradient, or a refusal that says so.
Failures check_double_backward(const Operator& op, const Case& c);
// Transposed, offset, gapped, misaligned and expanded arguments and output gradients.
Failures check_strides(const Operator& op, const Case& c);
// What stands at a padded position changes nothing and gets zero gradient.
Failures check_padding(const Operator& op, const Case& c);
Failures check_nothing_to_attend(const Operator& op, const Case& c);
// A packed call equals one call a sequence.
Failures check_packing(const Operator& op, const Case& c);
Failures check_causality(const Operator& op, const Case& c);
// Nothing is read before it is written.
Failures check_poison(const Operator& op, const Case& c);
// The same bits twice, with one and two threads, with and without torch's deterministic flag; the
// numbers of threads agree but for rounding.
Failures check_determinism(const Operator& op, const Case& c);
// Arguments are left as they were.
Failures check_purity(const Operator& op, const Case& c);
// The shape function agrees with the kernel: sizes, strides, dtype.
Failures check_shapes(const Operator& op, const Case& c);
Failures check_autocast(const Operator& op, const Case& c);
// Probability 0 is no dropout, the seed decides.
Failures check_dropout(const Operator& op, const Case& c);

// Of the operator as a whole.
Failures check_golden(const Operator& op);
Failures check_lengths(const Operator& op);
Failures check_dropout_multipliers(const Operator& op);
Failures check_refusals(const Operator& op);
Failures check_memory(const Operator& op, const Case& c);

// Registers a test for each check and case that apply.
bool join(const Operator& op);

}  // namespace headloom::testing
