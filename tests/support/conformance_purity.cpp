// Checks of an operator as a well-behaved function: layouts, stale memory, repeatability, arguments
// left alone, shape functions, autocast, memory.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/autocast_mode.h>

#include <algorithm>
#include <optional>

#include "headloom/base/check.h"
#include "tests/support/closeness.h"
#include "tests/support/evaluate.h"
#include "tests/support/memory.h"
#include "tests/support/poison.h"

namespace headloom::testing {
namespace {

using at::Tensor;
using Layout = std::function<Tensor(const Tensor&)>;

// Equal tensors in memory of another form. Gaps hold numbers that would show.
Tensor transposed(const Tensor& x, int64_t a, int64_t b) {
  return x.transpose(a, b).contiguous().transpose(a, b);
}

Tensor gapped(const Tensor& x) {
  std::vector<int64_t> sizes = x.sizes().vec();
  sizes.back() = 2 * sizes.back() + 1;
  const Tensor inside = at::full(sizes, 77.0, x.options()).slice(-1, 1, sizes.back(), 2);
  return inside.copy_(x);
}

Tensor offset(const Tensor& x) {
  std::vector<int64_t> sizes = x.sizes().vec();
  for (int64_t& size : sizes) size += 3;
  Tensor inside = at::full(sizes, 77.0, x.options());
  for (int64_t axis = 0; axis < x.dim(); ++axis) inside = inside.narrow(axis, 1, x.size(axis));
  return inside.copy_(x);
}

Tensor misaligned(const Tensor& x) {
  const Tensor inside = at::full({x.numel() + 1}, 77.0, x.options()).narrow(0, 1, x.numel());
  return inside.view(x.sizes()).copy_(x);
}

Tensor expanded(const Tensor& x) {
  return x.narrow(0, 0, std::min<int64_t>(1, x.size(0))).expand(x.sizes());
}

std::vector<std::pair<std::string, Layout>> layouts() {
  const auto needs = [](int64_t axes, Layout layout) -> Layout {
    return [axes, layout](const Tensor& x) { return x.dim() < axes ? x : layout(x); };
  };
  return {
      {"last two axes transposed", needs(2, [](const Tensor& x) { return transposed(x, -1, -2); })},
      {"axes 1 and 2 transposed", needs(3, [](const Tensor& x) { return transposed(x, 1, 2); })},
      {"first and last axis transposed",
       needs(2, [](const Tensor& x) { return transposed(x, 0, -1); })},
      {"every second element", needs(1, gapped)},
      {"inside a larger tensor", needs(1, offset)},
      {"one element off alignment", needs(1, misaligned)},
  };
}

Arguments in_layout(const Arguments& arguments, const Layout& layout) {
  Arguments changed = arguments;
  for (auto& [name, tensor] : changed.tensors) tensor = layout(tensor);
  return changed;
}

std::vector<Tensor> in_layout(const std::vector<Tensor>& tensors, const Layout& layout) {
  std::vector<Tensor> changed;
  for (const Tensor& tensor : tensors) changed.push_back(layout(tensor));
  return changed;
}

}  // namespace

Failures check_strides(const Operator& op, const Case& c) {
  Collector found("strides", op, c);
  for (const at::ScalarType type : {at::kDouble, at::kFloat, at::kBFloat16}) {
    if (std::find(op.types.begin(), op.types.end(), type) == op.types.end()) continue;
    found.guard(cat(type), [&] {
      const Arguments arguments = make_arguments(c.inputs, c.options, c.id, type);
      const auto grads = random_like(outputs_of(op.run, arguments), c.id);
      const Result plain = evaluate(op.run, c.inputs, arguments, grads);
      for (const auto& [name, layout] : layouts()) {
        found.guard(name, [&, &name = name, &layout = layout] {
          const Result result =
              evaluate(op.run, c.inputs, in_layout(arguments, layout), in_layout(grads, layout));
          found.same_within_rounding(result, plain, cat(type, ", ", name));
        });
      }
      // Equal along the first axis, with a stride of 0.
      Arguments repeated = arguments;
      for (const Input& input : c.inputs) {
        if (input.kind != Kind::kFloating || input.shape.empty()) continue;
        repeated.set(input.name, expanded(arguments[input.name]));
      }
      const auto sums = in_layout(
          grads, [](const Tensor& x) { return at::ones({}, x.options()).expand(x.sizes()); });
      const auto dense = [](const Tensor& x) { return x.contiguous(); };
      found.same_within_rounding(
          evaluate(op.run, c.inputs, repeated, sums),
          evaluate(op.run, c.inputs, in_layout(repeated, dense), in_layout(sums, dense)),
          cat(type, ", expanded"));
    });
  }
  return found.done();
}

Failures check_poison(const Operator& op, const Case& c) {
  Collector found("poison", op, c);
  for (const at::ScalarType type : op.types) {
    found.guard(cat(type), [&] {
      const Arguments arguments = make_arguments(c.inputs, c.options, c.id, type);
      const auto grads = random_like(outputs_of(op.run, arguments), c.id);
      std::vector<Result> results;
      for (const auto pattern : {Poison::Pattern::kNaN, Poison::Pattern::kHuge}) {
        const Poison poison(pattern);
        results.push_back(evaluate(op.run, c.inputs, arguments, grads));
      }
      found.same_bits(results[1], results[0], cat(type, ", other stale memory"));
      const auto tensors = all_tensors(results[0]);
      const auto names = tensor_names(op, results[0]);
      for (size_t i = 0; i < names.size(); ++i) {
        found.add(names[i], is_not_finite(tensors[i]), cat(type));
      }
    });
  }
  return found.done();
}

namespace {

class Threads {
 public:
  explicit Threads(int count) : before_(at::get_num_threads()) { at::set_num_threads(count); }
  ~Threads() { at::set_num_threads(before_); }

 private:
  int before_;
};

class Deterministic {
 public:
  explicit Deterministic(bool on) : before_(at::globalContext().deterministicAlgorithms()) {
    at::globalContext().setDeterministicAlgorithms(on, /*warn_only=*/false);
  }
  ~Deterministic() { at::globalContext().setDeterministicAlgorithms(before_, false); }

 private:
  bool before_;
};

}  // namespace

Failures check_determinism(const Operator& op, const Case& c) {
  Collector found("determinism", op, c);
  for (const at::ScalarType type : op.types) {
    const Arguments arguments = make_arguments(c.inputs, c.options, c.id, type);
    std::optional<Result> alone;
    for (const auto& [threads, flag] :
         {std::pair{1, true}, std::pair{2, true}, std::pair{2, false}}) {
      const std::string where =
          cat(type, ", threads ", threads, ", deterministic flag ", flag ? "on" : "off");
      found.guard(where, [&, threads = threads, flag = flag] {
        const Threads scope(threads);
        const Deterministic mode(flag);
        const auto grads = random_like(outputs_of(op.run, arguments), c.id);
        const Result first = evaluate(op.run, c.inputs, arguments, grads);
        found.same_bits(evaluate(op.run, c.inputs, arguments, grads), first, where);
        if (!alone) alone = first;
        found.same_within_rounding(first, *alone, where + " against one thread");
      });
    }
  }
  return found.done();
}

Failures check_purity(const Operator& op, const Case& c) {
  Collector found("purity", op, c);
  for (const at::ScalarType type : op.types) {
    found.guard(cat(type), [&] {
      const Arguments arguments = make_arguments(c.inputs, c.options, c.id, type);
      std::vector<Tensor> before, grads_before;
      for (const auto& entry : arguments.tensors) before.push_back(entry.second.clone());
      const auto grads = random_like(outputs_of(op.run, arguments), c.id);
      for (const Tensor& grad : grads) grads_before.push_back(grad.clone());
      const Result result = evaluate(op.run, c.inputs, arguments, grads);
      for (size_t i = 0; i < before.size(); ++i) {
        const auto& [name, tensor] = arguments.tensors[i];
        found.add(name, differs_in_bits(tensor, before[i]), cat(type, ", modified by the call"));
        for (const Tensor& output : result.outputs) {
          if (output.numel() > 0 && output.is_alias_of(tensor)) {
            found.add(name, "an output shares its memory");
          }
        }
      }
      for (size_t i = 0; i < grads.size(); ++i) {
        found.add(cat("grad_output", i), differs_in_bits(grads[i], grads_before[i]),
                  cat(type, ", modified by the call"));
      }
    });
  }
  return found.done();
}

Failures check_shapes(const Operator& op, const Case& c) {
  Collector found("shapes", op, c);
  auto forms = layouts();
  forms.emplace_back("contiguous", [](const Tensor& x) { return x; });
  for (const at::ScalarType type : {at::kDouble, at::kBFloat16}) {
    if (std::find(op.types.begin(), op.types.end(), type) == op.types.end()) continue;
    for (const auto& [name, layout] : forms) {
      found.guard(name, [&, &name = name, &layout = layout] {
        const Arguments arguments =
            in_layout(make_arguments(c.inputs, c.options, c.id, type), layout);
        const auto real = outputs_of(op.run, arguments);
        const auto shape = outputs_of(op.run, on_device(arguments, at::kMeta));
        for (size_t i = 0; i < real.size(); ++i) {
          const auto text = [](const Tensor& x) {
            return cat(x.sizes(), " with strides ", x.strides(), ", ", x.scalar_type());
          };
          if (!shape.at(i).is_meta()) found.add(op.outputs.at(i), "the shape function computes");
          if (real[i].numel() > 0 && text(real[i]) != text(shape[i])) {
            found.add(op.outputs.at(i), cat(name, ": the kernel gives ", text(real[i]),
                                            ", the shape function ", text(shape[i])));
          }
          if (real[i].sizes() != shape[i].sizes()) {
            found.add(op.outputs.at(i), cat(name, ": the kernel gives ", real[i].sizes(),
                                            ", the shape function ", shape[i].sizes()));
          }
        }
      });
    }
  }
  return found.done();
}

namespace {

class Autocast {
 public:
  explicit Autocast(at::Device device) : type_(device.type()) {
    at::autocast::set_autocast_dtype(type_, at::kBFloat16);
    at::autocast::set_autocast_enabled(type_, true);
  }
  ~Autocast() {
    at::autocast::set_autocast_enabled(type_, false);
    at::autocast::clear_cache();
  }

 private:
  at::DeviceType type_;
};

}  // namespace

Failures check_autocast(const Operator& op, const Case& c) {
  Collector found("autocast", op, c);
  found.guard("bfloat16", [&] {
    const Arguments given = make_arguments(c.inputs, c.options, c.id, *op.autocast);
    const Arguments wide = in_type(given, at::kFloat);
    const auto grads = random_like(outputs_of(op.run, given), c.id);
    const Result expected = evaluate(op.run, c.inputs, given, grads);
    const Result result = [&] {
      const Autocast on(test_device());
      return evaluate(op.run, c.inputs, wide, grads);
    }();
    for (size_t i = 0; i < result.outputs.size(); ++i) {
      found.add(op.outputs.at(i), differs_in_bits(result.outputs[i], expected.outputs.at(i)),
                "against the call in that type");
    }
    for (size_t i = 0; i < result.names.size(); ++i) {
      found.add("grad_" + result.names[i],
                differs_in_bits(result.gradients[i], expected.gradients[i].to(at::kFloat)),
                "against the call in that type");
    }
  });
  return found.done();
}

Failures check_memory(const Operator& op, const Case& c) {
  Collector found("memory", op, c);
  found.guard("float32", [&] {
    const Arguments arguments = make_arguments(c.inputs, c.options, c.id, at::kFloat);
    std::vector<Tensor> grads;
    for (const Tensor& shape : outputs_of(op.run, on_device(arguments, at::kMeta))) {
      grads.push_back(normal(c.id + "/grad_output", shape.sizes()).to(test_device(), at::kFloat));
    }
    int64_t bytes = 0;
    for (const auto& entry : arguments.tensors) bytes += entry.second.nbytes();
    for (const Tensor& grad : grads) bytes += grad.nbytes();
    // Code, thread stacks and tiles that do not grow with the length.
    constexpr double kFixed = 32.0 * 1024 * 1024;
    const double bound = op.memory_factor * static_cast<double>(bytes) + kFixed;
    const auto peak = static_cast<double>(
        peak_extra_bytes([&] { evaluate(op.run, c.inputs, arguments, grads); }));
    if (peak > bound) {
      found.add("memory", cat("peak of ", peak / 1048576, " MiB > ", bound / 1048576,
                              " MiB for arguments and outputs of ", bytes / 1048576.0, " MiB"));
    }
  });
  return found.done();
}

}  // namespace headloom::testing
