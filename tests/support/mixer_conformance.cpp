#include "tests/support/mixer_conformance.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>

#include "headloom/base/check.h"
#include "headloom/base/nearest.h"
#include "tests/support/closeness.h"
#include "tests/support/poison.h"

namespace headloom::testing {
namespace {

using at::Tensor;

class Collector {
 public:
  Collector(std::string check, const Mixer& mixer) : check_(std::move(check)), mixer_(mixer) {}
  void add(const std::string& tensor, const std::optional<std::string>& text,
           const std::string& where) {
    if (text)
      failures_.push_back(
          {check_, "mixer " + mixer_.name, mixer_.id, tensor, where + ": " + *text});
  }
  void guard(const std::string& where, const std::function<void()>& body) {
    try {
      body();
    } catch (const std::exception& error) {
      add("the call", std::string("threw: ") + error.what(), where);
    }
  }
  void refused(const std::string& where, const std::function<void()>& call) {
    std::string message;
    try {
      call();
    } catch (const std::exception& error) {
      message = error.what();
    }
    for (const std::string& word : {mixer_.name, std::string("expected"), std::string("found")}) {
      if (message.find(word) == std::string::npos) {
        return add("message", cat("lacks \"", word, "\": \"", message, '"'), where);
      }
    }
  }
  Failures done() { return std::move(failures_); }

 private:
  std::string check_;
  const Mixer& mixer_;
  Failures failures_;
};

std::shared_ptr<TokenMixer> build(const Mixer& mixer, bool causal, double dropout = 0.0,
                                  at::ScalarType type = at::kDouble) {
  at::manual_seed(7);
  MixerConfig config;
  config.dim = mixer.dim;
  config.heads = mixer.heads;
  config.causal = causal;
  config.dropout = dropout;
  auto built = make_mixer(mixer.name, config, mixer.options);
  // Zero biases would hide a bias that is left out.
  const at::NoGradGuard off;
  for (const auto& entry : built->named_parameters()) {
    entry.value().add_(0.1 * normal(entry.key(), entry.value().sizes()));
  }
  built->to(test_device(), type);
  built->eval();
  return built;
}

Tensor input(const Mixer& mixer, int64_t batch, int64_t length, at::ScalarType type = at::kDouble) {
  return normal(cat(mixer.id, "/x"), {batch, length, mixer.dim}).to(test_device(), type);
}

std::vector<bool> forms(const Mixer& mixer) {
  std::vector<bool> causal;
  if (mixer.causal) causal.push_back(true);
  if (mixer.bidirectional) causal.push_back(false);
  return causal;
}

std::string form(bool causal) {
  return causal ? "causal" : "bidirectional";
}

Tensor in_steps(TokenMixer& mixer, const Tensor& x, const std::vector<int64_t>& pieces,
                Collector& found) {
  const auto state = mixer.new_state(x.size(0));
  std::vector<Tensor> outputs;
  int64_t seen = 0;
  for (const int64_t piece : pieces) {
    outputs.push_back(mixer.step(x.narrow(1, seen, piece), *state));
    seen += piece;
    if (state->length() != seen) {
      found.add("state", cat("length ", state->length(), ", expected ", seen), "after a step");
    }
    if (state->bytes() <= 0) found.add("state", cat("holds ", state->bytes(), " bytes"), "bytes");
  }
  return at::cat(outputs, 1);
}

void check_steps(Collector& found, const Mixer& mixer, at::ScalarType type) {
  const auto built = build(mixer, true, 0.0, type);
  const at::NoGradGuard off;
  const std::vector<std::vector<int64_t>> plans{
      {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1},
      {21},
      {1, 4, 1, 1, 7, 2, 5},
      {16, 1, 1, 1, 1, 1},
      {5, 16}};
  const Tensor x = input(mixer, 3, 21, type);
  const Tensor whole = built->forward(x, {});
  for (const auto& plan : plans) {
    std::vector<std::string> words;
    for (const int64_t piece : plan) words.push_back(std::to_string(piece));
    const std::string where = cat(type, ", steps of ", headloom::join(words));
    found.guard(where, [&] {
      found.add("out", differs_by_more_than_rounding(in_steps(*built, x, plan, found), whole),
                where);
    });
  }
}

void check_reorder(Collector& found, const Mixer& mixer) {
  const auto built = build(mixer, true);
  const at::NoGradGuard off;
  const Tensor x = input(mixer, 3, 13);
  const Tensor index = at::tensor({2, 0, 0, 1}, at::kLong).to(x.device());
  const auto state = built->new_state(3);
  built->step(x.narrow(1, 0, 4), *state);
  built->step(x.narrow(1, 4, 1), *state);
  state->reorder(index);
  const Tensor rest = normal(mixer.id + "/rest", {4, 8, mixer.dim}).to(x.device());
  std::vector<Tensor> outputs{built->step(rest.narrow(1, 0, 1), *state)};
  outputs.push_back(built->step(rest.narrow(1, 1, 7), *state));
  const Tensor sequence = at::cat({x.narrow(1, 0, 5).index_select(0, index), rest}, 1);
  found.add("out",
            differs_by_more_than_rounding(at::cat(outputs, 1),
                                          built->forward(sequence, {}).narrow(1, 5, 8)),
            "after reorder to rows 2, 0, 0, 1");
}

}  // namespace

Failures check_decoding(const Mixer& mixer) {
  Collector found("decoding", mixer);
  for (const at::ScalarType type : {at::kDouble, at::kFloat}) {
    found.guard(cat(type), [&] { check_steps(found, mixer, type); });
  }
  found.guard("reorder", [&] { check_reorder(found, mixer); });
  return found.done();
}

Failures check_mixer_cross(const Mixer& mixer) {
  Collector found("cross", mixer);
  found.guard("cross mixing", [&] {
    const auto built = build(mixer, !mixer.bidirectional);
    const at::NoGradGuard off;
    const Tensor x = input(mixer, 2, 5);
    const Tensor memory = normal(mixer.id + "/memory", {2, 9, mixer.dim}).to(x.device());
    const Tensor padding = at::zeros({2, 9}, at::TensorOptions(x.device()).dtype(at::kBool));
    padding[1].narrow(0, 6, 3).fill_(true);
    const Tensor whole = built->cross(x, memory, padding);
    found.add("out", is_not_finite(whole), "cross()");
    const Tensor other = memory.masked_fill(padding.unsqueeze(-1), 30.0);
    found.add("out", differs_in_bits(built->cross(x, other, padding), whole),
              "other values at padded positions of the memory");
    const Tensor alone =
        built->cross(x.narrow(0, 1, 1), memory.narrow(0, 1, 1).narrow(1, 0, 6), {});
    found.add("out", differs_by_more_than_rounding(whole.narrow(0, 1, 1), alone),
              "against the memory without its padding");

    const auto state = built->new_cross_state(memory, padding);
    if (state->length() != 9 || state->bytes() <= 0) {
      found.add("state", cat("length ", state->length(), ", ", state->bytes(), " bytes"),
                "9 tokens");
    }
    const auto in_steps = [&](const Tensor& rows) {
      return at::cat({built->cross_step(rows.narrow(1, 0, 1), *state),
                      built->cross_step(rows.narrow(1, 1, 4), *state)},
                     1);
    };
    found.add("out", differs_by_more_than_rounding(in_steps(x), whole), "in steps");
    const Tensor index = at::tensor({1, 0, 1}, at::kLong).to(x.device());
    state->reorder(index);
    found.add("out",
              differs_by_more_than_rounding(in_steps(x.index_select(0, index)),
                                            whole.index_select(0, index)),
              "after reorder to rows 1, 0, 1");
  });
  return found.done();
}

Failures check_mixer_padding(const Mixer& mixer) {
  Collector found("padding", mixer);
  for (const bool causal : forms(mixer)) {
    found.guard(form(causal), [&] {
      const auto built = build(mixer, causal);
      const at::NoGradGuard off;
      const Tensor x = input(mixer, 2, 11);
      Masks masks;
      masks.key_padding_mask = at::zeros({2, 11}, at::TensorOptions(x.device()).dtype(at::kBool));
      masks.key_padding_mask[0].narrow(0, 7, 4).fill_(true);
      masks.key_padding_mask[1].narrow(0, 10, 1).fill_(true);
      const Tensor padded = built->forward(x, masks);
      const Tensor other =
          built->forward(x.masked_fill(masks.key_padding_mask.unsqueeze(-1), 30.0), masks);
      for (const auto& [row, length] : {std::pair{0, 7}, std::pair{1, 10}}) {
        const Tensor kept = padded[row].narrow(0, 0, length);
        found.add("out", differs_in_bits(other[row].narrow(0, 0, length), kept),
                  cat(form(causal), ", other values at padded positions"));
        const Tensor alone = built->forward(x.narrow(0, row, 1).narrow(1, 0, length), {});
        found.add("out", differs_by_more_than_rounding(kept, alone[0]),
                  cat(form(causal), ", against the sequence without its padding"));
      }
    });
  }
  return found.done();
}

Failures check_mixer_packing(const Mixer& mixer) {
  Collector found("packing", mixer);
  for (const bool causal : forms(mixer)) {
    found.guard(form(causal), [&] {
      const auto built = build(mixer, causal);
      const at::NoGradGuard off;
      const std::vector<int64_t> bounds{0, 4, 4, 5, 14};
      const Tensor x = input(mixer, 1, 14);
      Masks masks;
      masks.cu_seqlens = at::tensor(bounds, at::kLong).to(x.device());
      const Tensor packed = built->forward(x, masks);
      for (size_t s = 0; s + 1 < bounds.size(); ++s) {
        const int64_t begin = bounds[s], length = bounds[s + 1] - bounds[s];
        found.add("out",
                  differs_by_more_than_rounding(packed.narrow(1, begin, length),
                                                built->forward(x.narrow(1, begin, length), {})),
                  cat(form(causal), ", sequence ", s));
      }
    });
  }
  return found.done();
}

Failures check_parameters(const Mixer& mixer) {
  Collector found("parameters", mixer);
  for (const bool causal : forms(mixer)) {
    found.guard(form(causal), [&] {
      const auto built = build(mixer, causal);
      std::vector<std::string> names;
      for (const auto& entry : built->named_parameters()) names.push_back(entry.key());
      for (const auto& entry : built->named_buffers()) names.push_back(entry.key());
      std::vector<std::string> expected = mixer.parameters;
      std::sort(names.begin(), names.end());
      std::sort(expected.begin(), expected.end());
      if (names != expected) {
        found.add("state_dict",
                  cat("names ", headloom::join(names), "; expected ", headloom::join(expected)),
                  "names");
      }
      const Tensor x = input(mixer, 2, 9).requires_grad_(true);
      const at::AutoGradMode on(true);
      const Tensor out = built->forward(x, {});
      out.backward(normal(mixer.id + "/grad", out.sizes()).to(out));
      found.add("grad_x", is_not_finite(x.grad()), form(causal));
      double scale = 0.0;
      for (const Tensor& parameter : built->parameters()) {
        if (parameter.grad().defined()) scale = std::max(scale, magnitude(parameter.grad()));
      }
      for (const auto& entry : built->named_parameters()) {
        const Tensor& gradient = entry.value().grad();
        if (!gradient.defined()) {
          found.add(entry.key(), std::string("no gradient"), form(causal));
          continue;
        }
        found.add(entry.key(), is_not_finite(gradient), form(causal));
        const bool idle = std::count(mixer.idle.begin(), mixer.idle.end(), entry.key()) > 0;
        const bool zero = !differs_by_more_than_rounding(gradient, at::zeros_like(gradient), scale);
        if (zero != idle) {
          found.add(entry.key(), std::string(zero ? "zero gradient" : "a gradient, expected zero"),
                    form(causal));
        }
      }
    });
  }
  return found.done();
}

Failures check_forward(const Mixer& mixer) {
  Collector found("forward", mixer);
  for (const bool causal : forms(mixer)) {
    for (const at::ScalarType type : {at::kDouble, at::kFloat, at::kBFloat16}) {
      for (const int64_t length : {0, 1, 2, 17}) {
        const std::string where = cat(form(causal), ", ", type, ", length ", length);
        found.guard(where, [&] {
          const auto built = build(mixer, causal, 0.0, type);
          const at::NoGradGuard off;
          const Tensor x = input(mixer, 2, length, type);
          const Tensor before = x.clone();
          const auto run = [&](Poison::Pattern pattern) {
            const Poison poison(pattern);
            return built->forward(x, {});
          };
          const Tensor out = run(Poison::Pattern::kNaN);
          found.add("out", differs_in_bits(run(Poison::Pattern::kHuge), out), where + ", again");
          found.add("out", is_not_finite(out), where);
          found.add("x", differs_in_bits(x, before), where + ", modified");
          if (out.sizes() != x.sizes() || out.scalar_type() != type) {
            found.add("out", cat("shape ", out.sizes(), ", ", out.scalar_type()), where);
          }
        });
      }
    }
  }
  found.guard("flops", [&] {
    const auto built = build(mixer, forms(mixer).at(0));
    if (!(built->flops(64) > 0 && built->flops(128) > built->flops(64))) {
      found.add("flops", cat(built->flops(64), " for 64, ", built->flops(128), " for 128 tokens"),
                "growth");
    }
  });
  return found.done();
}

Failures check_mixer_dropout(const Mixer& mixer) {
  Collector found("dropout", mixer);
  for (const bool causal : forms(mixer)) {
    found.guard(form(causal), [&] {
      const auto plain = build(mixer, causal), dropping = build(mixer, causal, 0.4);
      const at::NoGradGuard off;
      const Tensor x = input(mixer, 2, 16);
      const auto run = [&](int64_t seed) {
        at::manual_seed(seed);
        return dropping->forward(x, {});
      };
      const Tensor expected = plain->forward(x, {});
      found.add("out", differs_in_bits(run(1), expected), "in evaluation");
      dropping->train();
      const Tensor first = run(1);
      found.add("out", differs_in_bits(run(1), first), "the same seed again");
      if (mixer.dropout == !differs_in_bits(first, expected)) {
        found.add("out", std::string(mixer.dropout ? "training drops nothing" : "training drops"),
                  form(causal));
      }
      if (mixer.dropout && !differs_in_bits(run(2), first)) {
        found.add("out", std::string("another seed gives the same output"), form(causal));
      }
    });
  }
  return found.done();
}

Failures check_mixer_causality(const Mixer& mixer) {
  Collector found("causality", mixer);
  found.guard("float64", [&] {
    const auto built = build(mixer, true);
    const at::NoGradGuard off;
    const Tensor x = input(mixer, 2, 18);
    const Tensor before = built->forward(x, {});
    for (const int64_t from : {1, 7, 8, 16, 17}) {
      const Tensor changed = x.clone();
      changed.narrow(1, from, 18 - from).add_(1.0);
      found.add("out",
                differs_in_bits(built->forward(changed, {}).narrow(1, 0, from),
                                before.narrow(1, 0, from)),
                cat("other tokens from ", from));
    }
  });
  return found.done();
}

Failures check_mixer_refusals(const Mixer& mixer) {
  Collector found("refusals", mixer);
  if (mixer.bidirectional) {
    found.refused("decoding with a bidirectional mixer",
                  [&] { build(mixer, false)->new_state(2); });
  }
  if (!mixer.causal) found.refused("a causal mixer", [&] { build(mixer, true); });
  if (!mixer.bidirectional) found.refused("a bidirectional mixer", [&] { build(mixer, false); });
  if (!mixer.cross) {
    found.refused("cross attention", [&] {
      const auto built = build(mixer, !mixer.bidirectional);
      // Of another length, for mixers that look only at a memory as long as x.
      built->cross(input(mixer, 2, 8), input(mixer, 2, 7), {});
    });
  }
  Mixer unknown = mixer;
  unknown.options["no_such_option"] = true;
  found.refused("an unknown option", [&] { build(unknown, forms(mixer).at(0)); });
  return found.done();
}

}  // namespace headloom::testing
