// Checks of what may influence what: masks, packing, causality, dropout.
#include <ATen/ATen.h>

#include <cmath>

#include "headloom/base/check.h"
#include "tests/support/closeness.h"
#include "tests/support/evaluate.h"

namespace headloom::testing {
namespace {

using at::Tensor;

const Input& input_named(const Case& c, const std::string& name) {
  for (const Input& input : c.inputs) {
    if (input.name == name) return input;
  }
  fail("conformance case " + c.id, "an input named " + name, "none");
}

// The mask [B, T] in the axes of `input`: B first, T at its axis of positions.
Tensor mask_of(const Input& input, const Arguments& arguments) {
  const Tensor& mask = arguments[input.padded_by];
  std::vector<int64_t> sizes(input.shape.size(), 1);
  sizes[0] = mask.size(0);
  sizes[input.time] = mask.size(1);
  return mask.view(sizes);
}

Arguments with_padding_filled(const Case& c, const Arguments& arguments, double value) {
  Arguments changed = arguments;
  for (const Input& input : c.inputs) {
    if (input.padded_by.empty()) continue;
    changed.set(input.name, arguments[input.name].masked_fill(mask_of(input, arguments), value));
  }
  return changed;
}

void zero_gradient_at_padding(Collector& found, const Case& c, const Arguments& arguments,
                              const Result& result) {
  for (size_t i = 0; i < result.names.size(); ++i) {
    const Input& input = input_named(c, result.names[i]);
    if (input.padded_by.empty()) continue;
    const Tensor keep = ~mask_of(input, arguments);
    found.add("grad_" + input.name, is_not_zero(result.gradients[i].masked_fill(keep, 0.0)),
              "padded positions");
  }
}

}  // namespace

Failures check_padding(const Operator& op, const Case& c) {
  Collector found("padding", op, c);
  for (const at::ScalarType type : op.types) {
    found.guard(cat(type), [&] {
      const Arguments arguments = make_arguments(c.inputs, c.options, c.id, type);
      const auto grads = random_like(outputs_of(op.run, arguments), c.id);
      const Result plain = evaluate(op.run, c.inputs, arguments, grads);
      zero_gradient_at_padding(found, c, arguments, plain);
      std::vector<double> garbage{1000.0};
      if (op.padding_may_be_nan) garbage.push_back(std::nan(""));
      for (const double value : garbage) {
        const Arguments changed = with_padding_filled(c, arguments, value);
        const Result result = evaluate(op.run, c.inputs, changed, grads);
        found.same_bits(result, plain, cat(type, " with ", value, " at padded positions"));
      }
    });
  }
  found.guard("no padding", [&] {
    Arguments masked = make_arguments(c.inputs, c.options, c.id, at::kDouble);
    Arguments without = masked;
    for (const Input& input : c.inputs) {
      if (input.padded_by.empty() || !without.has(input.padded_by)) continue;
      masked.set(input.padded_by, at::zeros_like(masked[input.padded_by]));
      without.erase(input.padded_by);
    }
    const auto grads = random_like(outputs_of(op.run, without), c.id);
    found.same_within_rounding(evaluate(op.run, c.inputs, masked, grads),
                               evaluate(op.run, c.inputs, without, grads),
                               "a mask that hides nothing against no mask");
  });
  return found.done();
}

Failures check_nothing_to_attend(const Operator& op, const Case& c) {
  Collector found("nothing_to_attend", op, c);
  for (const at::ScalarType type : op.types) {
    found.guard(cat(type), [&] {
      const Arguments arguments = make_arguments(c.inputs, c.options, c.id, type);
      const auto outputs = outputs_of(op.run, arguments);
      const Tensor dead = c.nothing_to_attend(arguments);
      HEADLOOM_CHECK(dead.any().item<bool>(), "conformance case " + c.id,
                     "a position with nothing to attend", "none");
      std::vector<Tensor> grads = random_like(outputs, c.id);
      for (size_t i = 0; i < outputs.size(); ++i) {
        found.add(op.outputs.at(i), is_not_zero(outputs[i].masked_fill(~dead, 0.0)),
                  cat(type, " where there is nothing to attend"));
        grads[i] = grads[i].masked_fill(~dead, 0.0);
      }
      const Result result = evaluate(op.run, c.inputs, arguments, grads);
      for (size_t i = 0; i < result.names.size(); ++i) {
        found.add("grad_" + result.names[i], is_not_zero(result.gradients[i]),
                  cat(type, " through outputs with nothing to attend"));
      }
    });
  }
  return found.done();
}

namespace {

std::vector<int64_t> values_of(const Tensor& boundaries) {
  const Tensor cpu = boundaries.to(at::kCPU, at::kLong).contiguous();
  return {cpu.const_data_ptr<int64_t>(), cpu.const_data_ptr<int64_t>() + cpu.numel()};
}

// Sequence s of a packed call as a call of its own; differentiable, so that gradients flow back
// into the packed arguments.
Arguments sequence(const Case& c, const Arguments& arguments, size_t s) {
  Arguments one = arguments;
  for (const Input& input : c.inputs) {
    if (input.packed_by.empty()) continue;
    const std::vector<int64_t> bounds = values_of(arguments[input.packed_by]);
    one.set(input.name,
            arguments[input.name].narrow(input.time, bounds[s], bounds[s + 1] - bounds[s]));
  }
  for (const Input& input : c.inputs) {
    if (input.kind == Kind::kBoundaries) one.erase(input.name);
  }
  return one;
}

Function one_call_a_sequence(const Operator& op, const Case& c) {
  return [&op, &c](const Arguments& arguments) {
    size_t sequences = 0;
    for (const Input& input : c.inputs) {
      if (!input.packed_by.empty()) sequences = arguments[input.packed_by].numel() - 1;
    }
    std::vector<std::vector<Tensor>> parts;
    for (size_t s = 0; s < sequences; ++s) {
      const auto outputs = op.run(sequence(c, arguments, s));
      parts.resize(outputs.size());
      for (size_t i = 0; i < outputs.size(); ++i) parts[i].push_back(outputs[i]);
    }
    std::vector<Tensor> whole;
    for (const auto& part : parts) whole.push_back(at::cat(part, c.output_time));
    return whole;
  };
}

}  // namespace

Failures check_packing(const Operator& op, const Case& c) {
  Collector found("packing", op, c);
  for (const at::ScalarType type : {at::kDouble, at::kFloat}) {
    found.guard(cat(type), [&] {
      Arguments arguments = make_arguments(c.inputs, c.options, c.id, type);
      const auto grads = random_like(outputs_of(op.run, arguments), c.id);
      const Result separate = evaluate(one_call_a_sequence(op, c), c.inputs, arguments, grads);
      const Result packed = evaluate(op.run, c.inputs, arguments, grads);
      found.same_within_rounding(packed, separate, cat(type, ", packed against separate calls"));
      for (const Input& input : c.inputs) {
        if (input.kind == Kind::kBoundaries) {
          arguments.set(input.name, arguments[input.name].to(at::kInt));
        }
      }
      found.same_bits(evaluate(op.run, c.inputs, arguments, grads), packed,
                      cat(type, ", int32 boundaries"));
    });
  }
  return found.done();
}

namespace {

// Random numbers in the last `count` positions of every floating input.
Arguments with_new_end(const Case& c, const Arguments& arguments, int64_t count) {
  Arguments changed = arguments;
  for (const Input& input : c.inputs) {
    if (input.time < 0 || input.kind != Kind::kFloating) continue;
    const Tensor copy = arguments[input.name].clone();
    const int64_t newest = std::min(count, copy.size(input.time));
    const Tensor end = copy.narrow(input.time, copy.size(input.time) - newest, newest);
    end.copy_(normal(c.id + input.name + "/end", end.sizes()));
    changed.set(input.name, copy);
  }
  return changed;
}

void check_end(Collector& found, const Operator& op, const Case& c, at::ScalarType type,
               int64_t count) {
  const Arguments arguments = make_arguments(c.inputs, c.options, c.id, type);
  const auto before = outputs_of(op.run, arguments);
  const auto after = outputs_of(op.run, with_new_end(c, arguments, count));
  std::vector<Tensor> grads = random_like(before, c.id);
  const std::string where = cat(type, ", another end of ", count, " positions");
  for (size_t i = 0; i < before.size(); ++i) {
    const int64_t kept = std::max<int64_t>(0, before[i].size(c.output_time) - count);
    found.add(op.outputs.at(i),
              differs_in_bits(after[i].narrow(c.output_time, 0, kept),
                              before[i].narrow(c.output_time, 0, kept)),
              where);
    grads[i].narrow(c.output_time, kept, grads[i].size(c.output_time) - kept).zero_();
  }
  const Result result = evaluate(op.run, c.inputs, arguments, grads);
  for (size_t i = 0; i < result.names.size(); ++i) {
    const Input& input = input_named(c, result.names[i]);
    if (input.time < 0) continue;
    const int64_t newest = std::min(count, result.gradients[i].size(input.time));
    const int64_t kept = result.gradients[i].size(input.time) - newest;
    found.add("grad_" + input.name,
              is_not_zero(result.gradients[i].narrow(input.time, kept, newest)),
              where + ", gradient of the earlier outputs");
  }
}

}  // namespace

Failures check_causality(const Operator& op, const Case& c) {
  Collector found("causality", op, c);
  for (const at::ScalarType type : {at::kDouble, at::kFloat, at::kBFloat16}) {
    if (std::find(op.types.begin(), op.types.end(), type) == op.types.end()) continue;
    for (const int64_t count : {1, 2, 3, 5}) {
      found.guard(cat(type), [&] { check_end(found, op, c, type, count); });
    }
  }
  return found.done();
}

Failures check_dropout(const Operator& op, const Case& c) {
  Collector found("dropout", op, c);
  found.guard("float32", [&] {
    const Arguments arguments = make_arguments(c.inputs, c.options, c.id, at::kFloat);
    const auto grads = random_like(outputs_of(op.run, arguments), c.id);
    const Result result = evaluate(op.run, c.inputs, arguments, grads);
    found.same_bits(evaluate(op.run, c.inputs, arguments, grads), result, "the same seed again");

    Arguments other = arguments;
    for (const Input& input : c.inputs) {
      if (input.kind == Kind::kSeed) other.set(input.name, arguments[input.name] + 1);
    }
    const Result reseeded = evaluate(op.run, c.inputs, other, grads);
    if (!differs_in_bits(reseeded.outputs.at(0), result.outputs.at(0))) {
      found.add(op.outputs[0], "another seed gives the same output");
    }
    Arguments none = arguments, zero = arguments;
    none.options.erase(op.dropout_option);
    zero.options[op.dropout_option] = 0.0;
    for (const Input& input : c.inputs) {
      if (input.kind == Kind::kSeed) none.erase(input.name);
    }
    const Result without = evaluate(op.run, c.inputs, none, grads);
    found.same_bits(evaluate(op.run, c.inputs, zero, grads), without, "probability 0");
    if (!differs_in_bits(without.outputs.at(0), result.outputs.at(0))) {
      found.add(op.outputs[0], "dropout changes nothing");
    }
  });
  return found.done();
}

namespace {

// Whether the mean of `count` draws of deviation `deviation` is too far from its expectation.
std::optional<std::string> unlikely(const char* what, double mean, double expected,
                                    double deviation, double count) {
  const double bound = sigmas() * deviation / std::sqrt(count);
  if (std::abs(mean - expected) <= bound) return std::nullopt;
  return cat(what, " is ", mean, ", expected ", expected, " +- ", bound);
}

}  // namespace

Failures check_dropout_multipliers(const Operator& op) {
  Collector found("dropout_multipliers", op, Case{"all", {}});
  for (const double p : {0.1, 0.5, 0.9}) {
    found.guard(cat("p = ", p), [&] {
      const std::string where = cat("p = ", p);
      Tensor sum;
      constexpr int64_t kSeeds = 16;
      Tensor previous;
      for (int64_t seed = 0; seed < kSeeds; ++seed) {
        const Tensor multipliers = op.dropout_multipliers(p, 1000 + seed).to(at::kDouble);
        const Tensor kept = (multipliers != 0).to(at::kDouble);
        found.add("multipliers",
                  differs_by_more_than_rounding(multipliers.to(at::kFloat), kept / (1 - p)), where);
        if (previous.defined()) {
          const Tensor product = (kept - (1 - p)) * (previous - (1 - p));
          found.add("multipliers",
                    unlikely("the correlation of neighbouring seeds", product.mean().item<double>(),
                             0.0, p * (1 - p), static_cast<double>(kept.numel())),
                    where);
        }
        previous = kept;
        sum = sum.defined() ? sum + kept : kept;
      }
      const double deviation = std::sqrt(p * (1 - p));
      const auto count = static_cast<double>(sum.numel() * kSeeds);
      found.add(
          "multipliers",
          unlikely("the share kept", sum.mean().item<double>() / kSeeds, 1 - p, deviation, count),
          where);
    });
  }
  return found.done();
}

}  // namespace headloom::testing
