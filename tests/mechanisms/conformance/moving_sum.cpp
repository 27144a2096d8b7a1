#include "tests/mechanisms/conformance/moving_sum.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <memory>

#include "headloom/base/check.h"
#include "headloom/tensor/contract.h"
#include "headloom/tensor/dropout.h"
#include "headloom/tensor/gradients.h"

namespace headloom::testing {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr const char* kOp = "moving_sum";

struct Call {
  double decay = 0.5;
  double dropout_p = 0.0;
  Tensor mask, boundaries, seed;
  Fault fault = Fault::kNone;
  bool twice = false;

  bool has(Fault other) const { return fault == other; }
};

int64_t calls = 0;

// [0, ..] where each sequence starts.
std::vector<int64_t> starts(const Call& call, int64_t length) {
  if (!call.boundaries.defined() || call.has(Fault::kSequencesRunOn)) return {0, length};
  return read_boundaries(kOp, "cu_seqlens", call.boundaries, length);
}

Tensor multipliers(const Tensor& x, const Call& call, bool backward) {
  Tensor seed = call.seed;
  double p = call.dropout_p;
  if (call.has(Fault::kSeedIgnored)) seed = at::zeros_like(seed);
  if (backward && call.has(Fault::kOtherMaskBackward)) seed = seed + 1;
  if (call.has(Fault::kKeepsTooMany)) p *= 0.98;
  const Tensor drawn = dropout_mask(x.sizes(), p, seed, x.options());
  if (call.has(Fault::kNotScaled)) return (drawn != 0).to(x.scalar_type());
  return call.has(Fault::kKeepsTooMany) ? (drawn != 0).to(x.scalar_type()) / (1 - call.dropout_p)
                                        : drawn;
}

Tensor hidden(const Tensor& x, const Call& call) {
  if (!call.mask.defined() || call.has(Fault::kMaskIgnored)) return x;
  const Tensor padded = call.mask.unsqueeze(-1);
  if (call.has(Fault::kMaskMultiplies)) return x * (~padded).to(x.scalar_type());
  if (call.has(Fault::kModifiesInput)) x.detach().masked_fill_(padded, 0.0);
  return x.masked_fill(padded, 0.0);
}

Tensor shown(const Tensor& x, const Call& call) {
  const Tensor kept = hidden(x, call);
  return call.dropout_p > 0.0 ? kept * multipliers(x, call, false) : kept;
}

Tensor accumulated(const Tensor& x, const Call& call) {
  if (call.has(Fault::kFloatSums)) return x.to(at::kFloat);
  return x.scalar_type() == at::kDouble ? x : x.to(at::kFloat);
}

// The oracle.
Tensor composite(const Tensor& x, const Tensor& gain, const Call& call) {
  const Tensor u = shown(x, call);
  const std::vector<int64_t> bounds = starts(call, x.size(1));
  std::vector<Tensor> sums;
  Tensor sum;
  for (int64_t t = 0; t < x.size(1); ++t) {
    const bool first = std::find(bounds.begin(), bounds.end(), t) != bounds.end();
    sum = first ? u.select(1, t) : call.decay * sum + u.select(1, t);
    sums.push_back(sum);
  }
  return sums.empty() ? u * gain : at::stack(sums, 1) * gain;
}

Tensor pretend_contiguous(const Tensor& x) {
  const auto enough = static_cast<size_t>((x.storage_offset() + x.numel()) * x.element_size());
  if (x.storage().nbytes() < enough) return x;
  return at::as_strided(x, x.sizes(), at::empty(x.sizes(), at::kMeta).strides());
}

// s of all positions, in the precision of accumulation.
Tensor sums_of(const Tensor& given, const Call& call) {
  const Tensor x = call.has(Fault::kAssumesContiguous) ? pretend_contiguous(given) : given;
  const Tensor u = accumulated(shown(x, call), call);
  const std::vector<int64_t> bounds = starts(call, u.size(1));
  const Tensor sums = at::empty(u.sizes(), u.options());
  Tensor state = at::zeros({u.size(0), u.size(2)}, u.options());
  if (call.has(Fault::kStaleBuffer) && u.size(2) > 0 && u.size(0) > 0) {
    const std::unique_ptr<double[]> raw(new double[512]);
    asm volatile("" : : "r"(raw.get()) : "memory");
    state[-1].fill_(raw[300]);
  }
  for (int64_t t = 0; t < u.size(1); ++t) {
    if (t > 0 && std::find(bounds.begin(), bounds.end(), t) != bounds.end()) state.zero_();
    state = state * call.decay + u.select(1, t);
    sums.select(1, t).copy_(state);
  }
  return sums;
}

Tensor forward(const Tensor& x, const Tensor& gain, const Call& call) {
  Tensor sums = sums_of(x, call);
  const int64_t T = x.size(1);
  if (call.has(Fault::kFutureLeaks) && T > 1) {
    sums.narrow(1, 0, T - 1).add_(x.narrow(1, 1, T - 1), 1e-4);
  }
  if (call.has(Fault::kRandom)) sums = sums * (1.0 + 1e-6 * static_cast<double>(++calls % 2));
  if (call.has(Fault::kOddLengthWrong) && T > 16 && T % 4 != 0) sums.select(1, T - 1).mul_(1.001);
  const bool half = x.scalar_type() == at::kHalf || x.scalar_type() == at::kBFloat16;
  if (call.has(Fault::kCoarseHalves) && half) sums = sums * 1.05;
  if (call.has(Fault::kQuadraticMemory)) at::zeros({T, T}, x.options()).sum();
  const Tensor out = at::empty(x.sizes(), x.options());
  const Tensor result = (sums * gain).to(x.scalar_type());
  if (!call.has(Fault::kUnwritten) || out.numel() == 0) return out.copy_(result);
  out.view({-1})
      .narrow(0, 0, out.numel() - 1)
      .copy_(result.reshape({-1}).narrow(0, 0, out.numel() - 1));
  return out;
}

variable_list backward(const Tensor& grad, const Tensor& x, const Tensor& gain, const Call& call,
                       bool x_wanted) {
  const Tensor wide = accumulated(grad, call) * gain;
  const std::vector<int64_t> bounds = starts(call, x.size(1));
  const Tensor grad_u = at::empty(x.sizes(), wide.options());
  Tensor state = at::zeros({x.size(0), x.size(2)}, wide.options());
  for (int64_t t = x.size(1) - 1; t >= 0; --t) {
    const bool last = std::find(bounds.begin(), bounds.end(), t + 1) != bounds.end();
    if (last) state.zero_();
    const bool misses = call.has(Fault::kGradientTermMissing) && t == x.size(1) - 1;
    state = state * call.decay + (misses ? 0.0 * wide.select(1, t) : wide.select(1, t));
    grad_u.select(1, t).copy_(state);
  }
  if (call.has(Fault::kFutureGradientLeaks)) grad_u.add_(grad_u.sum(1, true), 1e-5);
  Tensor grad_x = grad_u;
  if (call.dropout_p > 0.0) grad_x = grad_x * multipliers(x, call, true);
  const bool masked =
      call.mask.defined() && !call.has(Fault::kMaskIgnored) && !call.has(Fault::kPaddedGradient);
  if (masked) grad_x = grad_x.masked_fill(call.mask.unsqueeze(-1), 0.0);
  Tensor grad_gain = (accumulated(grad, call) * sums_of(x, call)).sum(at::IntArrayRef{0, 1});
  if (call.has(Fault::kGradientScaled)) grad_gain = grad_gain * 1.001;
  if (call.has(Fault::kGradientAlone) && !x_wanted) grad_gain = at::zeros_like(grad_gain);
  return {grad_x.to(x.scalar_type()), grad_gain.to(gain.scalar_type())};
}

struct MovingSum : torch::autograd::Function<MovingSum> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& gain,
                        const Call& call) {
    ctx->save_for_backward({x, gain, call.mask, call.boundaries, call.seed});
    ctx->saved_data["decay"] = call.decay;
    ctx->saved_data["dropout_p"] = call.dropout_p;
    ctx->saved_data["fault"] = static_cast<int64_t>(call.fault);
    ctx->saved_data["twice"] = call.twice;
    const at::NoGradGuard off;
    return testing::forward(x, gain, call);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const variable_list saved = ctx->get_saved_variables();
    const Call call{ctx->saved_data["decay"].toDouble(),
                    ctx->saved_data["dropout_p"].toDouble(),
                    saved[2],
                    saved[3],
                    saved[4],
                    static_cast<Fault>(ctx->saved_data["fault"].toInt()),
                    ctx->saved_data["twice"].toBool()};
    const bool x_wanted = ctx->needs_input_grad(0);
    if (!needs_graph({grads[0], saved[0], saved[1]})) {
      variable_list found = testing::backward(grads[0], saved[0], saved[1], call, x_wanted);
      return {found[0], found[1], Tensor()};
    }
    HEADLOOM_CHECK(call.twice, kOp, "a first derivative", "a second");
    const double factor = call.has(Fault::kWrongSecondDerivative) ? 1.001 : 1.0;
    const auto found =
        gradients_of([&](const std::vector<Tensor>& in) { return composite(in[0], in[1], call); },
                     {saved[0], saved[1]}, {true, true}, grads[0] * factor, /*create_graph=*/true);
    return {found[0] / factor, found[1] / (factor * factor), Tensor()};
  }
};

Call call_of(const Arguments& a, Fault fault, bool twice) {
  Call call;
  call.decay = a.number("decay", 0.5);
  call.dropout_p = a.number("dropout_p");
  call.mask = a.or_undefined("key_padding_mask");
  call.boundaries = a.or_undefined("cu_seqlens");
  call.seed = a.or_undefined("seed");
  call.fault = fault;
  call.twice = twice;
  return call;
}

std::vector<Tensor> run(const Arguments& a, Fault fault, bool twice) {
  const Tensor &x = a["x"], &gain = a["gain"];
  if (fault != Fault::kRefusesNothing) {
    Contract args(kOp);
    args.floating("x", x, {"B", "T", "C"}).same("gain", gain, {"C"});
  }
  if (x.is_meta()) {
    const auto type = fault == Fault::kWrongShape ? at::kFloat : x.scalar_type();
    return {at::empty(x.sizes(), x.options().dtype(type))};
  }
  if (fault == Fault::kReturnsInput) return {x.view(x.sizes())};
  return {MovingSum::apply(x, gain, call_of(a, fault, twice))};
}

std::vector<Case> cases() {
  const Input gain = plain("gain", {3});
  const Input x = tokens("x", {2, 9, 3}, 1);
  const Input mask = padding("key_padding_mask", {"xx...x.xx", "........."});
  const auto unseen = [](const Arguments& a) {
    return ((~a["key_padding_mask"]).cumsum(1) == 0).unsqueeze(-1);
  };
  const Input packed = tokens("x", {1, 11, 3}, 1).packed("cu_seqlens");
  return {
      {.id = "plain", .inputs = {x, gain}, .causal = true, .output_time = 1},
      {.id = "padding",
       .inputs = {x.padded("key_padding_mask"), gain, mask},
       .options = {{"decay", 0.9}},
       .causal = true,
       .output_time = 1,
       .nothing_to_attend = unseen},
      {.id = "packed",
       .inputs = {packed, gain, boundaries("cu_seqlens", {0, 4, 4, 5, 11})},
       .causal = true,
       .output_time = 1},
      {.id = "dropout",
       .inputs = {x, gain, seed(5)},
       .options = {{"dropout_p", 0.4}},
       .causal = true,
       .output_time = 1},
  };
}

}  // namespace

Operator moving_sum(Fault fault) {
  Operator op;
  op.name = kOp;
  op.run = [fault](const Arguments& a) { return run(a, fault, false); };
  op.reference = [](const Arguments& a) {
    return std::vector{composite(a["x"], a["gain"], call_of(a, Fault::kNone, false))};
  };
  op.cases = cases();
  op.of_length = [](int64_t length) {
    return Case{.id = "", .inputs = {tokens("x", {2, length, 3}, 1), plain("gain", {3})}};
  };
  op.double_backward = DoubleBackward::kRefused;
  op.autocast = std::nullopt;
  op.golden = "moving_sum.txt";
  op.dropout_option = "dropout_p";
  op.dropout_multipliers = [fault](double p, int64_t number) {
    Arguments a = make_arguments(
        {tokens("x", {4, 64, 8}, 1).filled([] {
           return at::ones({4, 64, 8}, at::kDouble);
         }),
         plain("gain", {8}).filled([] { return at::ones({8}, at::kDouble); }), seed(number)},
        {{"decay", 0.0}, {"dropout_p", p}}, "", at::kDouble);
    return run(a, fault, false)[0];
  };
  op.refusals = {{"wide_gain",
                  [fault] {
                    Arguments a;
                    a.set("x", at::ones({2, 3, 1}));
                    a.set("gain", at::ones({4}));
                    run(a, fault, false);
                  },
                  {"gain of shape [C]", "[4]"}}};
  op.large = {{.id = "long", .inputs = {tokens("x", {1, 4096, 2}, 1), plain("gain", {2})}}};
  return op;
}

Operator moving_sum_twice(Fault fault) {
  Operator op = moving_sum(fault);
  op.run = [fault](const Arguments& a) { return run(a, fault, true); };
  op.double_backward = DoubleBackward::kWorks;
  return op;
}

}  // namespace headloom::testing
