// Turns cases into tests.
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <sstream>

#include "headloom/base/check.h"
#include "tests/support/conformance.h"
#include "tests/support/mixer_conformance.h"

namespace headloom::testing {
namespace {

bool always(const Operator&, const Case&) {
  return true;
}

bool any_input(const Case& c, bool (*is)(const Input&)) {
  return std::any_of(c.inputs.begin(), c.inputs.end(), is);
}

bool takes_gradients(const Operator&, const Case& c) {
  return any_input(c, [](const Input& input) { return input.differentiable; });
}

bool has_padding(const Operator&, const Case& c) {
  return any_input(c, [](const Input& input) { return !input.padded_by.empty(); });
}

bool is_packed(const Operator&, const Case& c) {
  return any_input(c, [](const Input& input) { return !input.packed_by.empty(); });
}

bool has_dropout(const Operator& op, const Case& c) {
  return !op.dropout_option.empty() && c.options.count(op.dropout_option) > 0;
}

// Sequences of a packed call draw their own dropout masks.
bool packs_without_dropout(const Operator& op, const Case& c) {
  return is_packed(op, c) && !has_dropout(op, c);
}

// Cases are small: a second thread would only be waited for. check_determinism() brings it in.
class Test : public ::testing::Test {
 public:
  explicit Test(std::function<Failures()> check) : check_(std::move(check)) {}
  void SetUp() override { at::set_num_threads(1); }
  void TearDown() override { at::set_num_threads(threads_); }
  void TestBody() override {
    for (const Failure& failure : check_()) ADD_FAILURE() << failure;
  }

 private:
  std::function<Failures()> check_;
  int threads_ = at::get_num_threads();
};

void add(const std::string& op, const std::string& test, std::function<Failures()> check) {
  ::testing::RegisterTest(op.c_str(), test.c_str(), nullptr, nullptr, __FILE__, __LINE__,
                          [check = std::move(check)]() -> Test* { return new Test(check); });
}

}  // namespace

const std::vector<Check>& case_checks() {
  static const std::vector<Check> checks{
      {"reference", check_reference, always},
      {"halves", check_halves, always},
      {"differences", check_differences, takes_gradients},
      {"lone_gradients", check_lone_gradients, takes_gradients},
      {"double_backward", check_double_backward, takes_gradients},
      {"strides", check_strides, always},
      {"padding", check_padding, has_padding},
      {"nothing_to_attend", check_nothing_to_attend,
       [](const Operator&, const Case& c) { return static_cast<bool>(c.nothing_to_attend); }},
      {"packing", check_packing, packs_without_dropout},
      {"causality", check_causality, [](const Operator&, const Case& c) { return c.causal; }},
      {"poison", check_poison, always},
      {"determinism", check_determinism, always},
      {"purity", check_purity, always},
      {"shapes", check_shapes, always},
      {"autocast", check_autocast,
       [](const Operator& op, const Case&) { return op.autocast.has_value(); }},
      {"dropout", check_dropout, has_dropout},
  };
  return checks;
}

bool join(const Operator& given) {
  const auto op = std::make_shared<const Operator>(given);
  for (const Case& c : op->cases) {
    for (const Check& check : case_checks()) {
      if (!check.applies(*op, c)) continue;
      const std::string name = check.name + "_" + c.id + (c.slow ? "_Slow" : "");
      add(op->name, name, [op, &c, &check] { return check.run(*op, c); });
    }
  }
  for (const Case& c : op->large) {
    add(op->name, "memory_" + c.id + "_Slow", [op, &c] { return check_memory(*op, c); });
  }
  if (!op->golden.empty()) add(op->name, "golden", [op] { return check_golden(*op); });
  if (op->of_length) add(op->name, "lengths", [op] { return check_lengths(*op); });
  if (!op->refusals.empty()) add(op->name, "refusals", [op] { return check_refusals(*op); });
  if (op->dropout_multipliers) {
    add(op->name, "dropout_multipliers", [op] { return check_dropout_multipliers(*op); });
  }
  return true;
}

namespace {

std::vector<std::string>& joined() {
  static std::vector<std::string> names;
  return names;
}

}  // namespace

bool join(const Mixer& mixer) {
  joined().push_back(mixer.name);
  const auto test = [&](const char* name, Failures (*check)(const Mixer&)) {
    add("mixer_" + mixer.id, name, [check, mixer] { return check(mixer); });
  };
  if (mixer.causal) {
    test("decoding", check_decoding);
    test("causality", check_mixer_causality);
  }
  if (mixer.cross) test("cross", check_mixer_cross);
  test("padding", check_mixer_padding);
  test("packing", check_mixer_packing);
  test("parameters", check_parameters);
  test("forward", check_forward);
  test("dropout", check_mixer_dropout);
  test("refusals", check_mixer_refusals);
  return true;
}

const std::vector<std::string>& joined_mixers() {
  return joined();
}

}  // namespace headloom::testing
