#include "headloom/mechanisms/symmetric/symmetric.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "headloom/mechanisms/symmetric/symmetric_dispatch.h"
#include "tests/support/mixer_conformance.h"

namespace headloom::testing {
namespace {

using at::Tensor;

SymmetricOptions options_of(const Arguments& a) {
  return {a.optional("k"),       a.optional("bias"),       a.optional("key_padding_mask"),
          a.flag("causal"),      a.optional("cu_seqlens"), a.optional_number("scale"),
          a.number("dropout_p"), a.optional("seed"),       a.flag("symmetrize")};
}

std::vector<Tensor> run(const Arguments& a) {
  return {symmetric_attention(a["q"], a["v"], a.optional("pairwise"), options_of(a))};
}

std::vector<Tensor> reference(const Arguments& a) {
  const SymmetricOptions o = options_of(a);
  return {symmetric_composite(
      {a["q"], a["v"], a.or_undefined("pairwise"), a.or_undefined("k"), a.or_undefined("bias")},
      {o.k, o.bias, o.key_padding_mask, o.causal, o.cu_seqlens, o.scale, o.dropout_p, o.seed,
       o.symmetrize})};
}

// Sizes of a case; Tk = 0: no k of its own; Dv = 0 means D.
struct Sizes {
  int64_t B = 2, Hq = 2, H = 2, T = 5, Tk = 0, D = 4, Dv = 0;
  bool pairwise = true;
};

std::vector<Input> inputs(const Sizes& s, std::vector<Input> more = {}) {
  const auto marked = [&](Input input) {
    for (const Input& other : more) {
      const bool hides_keys = other.name == "key_padding_mask" && (input.name != "q" || s.Tk == 0);
      if (hides_keys && input.name != "q") input = input.padded(other.name);
      if (other.name == "cu_seqlens") input = input.packed(other.name);
    }
    return input;
  };
  std::vector<Input> all{marked(tokens("q", {s.B, s.Hq, s.T, s.D}, 2)),
                         marked(tokens("v", {s.B, s.H, s.Tk ? s.Tk : s.T, s.Dv ? s.Dv : s.D}, 2))};
  if (s.Tk) all.push_back(marked(tokens("k", {s.B, s.Hq, s.Tk, s.D}, 2)));
  if (s.pairwise) all.push_back(plain("pairwise", {s.H, s.D, s.D}));
  bool packed = false;
  for (const Input& input : more) packed |= input.name == "cu_seqlens";
  for (Input& input : more) {
    if (input.name == "key_padding_mask" && packed) input = input.packed("cu_seqlens");
    all.push_back(input);
  }
  return all;
}

Case make(const std::string& id, std::vector<Input> arguments, Options options = {}) {
  Case c{.id = id, .inputs = std::move(arguments), .options = std::move(options)};
  c.causal = c.options.count("causal") > 0;
  c.output_time = 2;
  return c;
}

Tensor all_padding(const Arguments& a) {
  return a["key_padding_mask"].all(1).view({-1, 1, 1, 1});
}

std::vector<Case> dead_row_cases() {
  Case holes = make("padding", inputs({}, {padding("key_padding_mask", {"x..x.", "xxxxx"})}));
  holes.nothing_to_attend = all_padding;
  Case plain_holes =
      make("symmetric_padding",
           inputs({.pairwise = false}, {padding("key_padding_mask", {"x..x.", "xxxxx"})}));
  plain_holes.nothing_to_attend = all_padding;
  Case causal_holes =
      make("causal_padding", inputs({}, {padding("key_padding_mask", {"xx.x.", "xxxxx"})}),
           {{"causal", true}});
  causal_holes.nothing_to_attend = [](const Arguments& a) {
    const Tensor visible = (~a["key_padding_mask"]).cumsum(1);  // [B, T]
    return (visible == 0).unsqueeze(1).unsqueeze(-1);
  };
  Case fewer_keys = make("fewer_keys", inputs({.T = 7, .Tk = 4}), {{"causal", true}});
  fewer_keys.nothing_to_attend = [](const Arguments& a) {
    return (at::arange(7, at::TensorOptions().device(a["q"].device())) < 3).view({1, 1, 7, 1});
  };
  return {holes, plain_holes, causal_holes, fewer_keys};
}

std::vector<Case> cases() {
  const Input bounds = boundaries("cu_seqlens", {0, 4, 4, 5, 11});
  const Sizes packed{.B = 1, .T = 11};
  std::vector<Case> all{
      make("pairwise", inputs({})),
      make("symmetric", inputs({.Dv = 3, .pairwise = false})),
      make("constrained", inputs({}), {{"symmetrize", true}}),
      make("causal", inputs({.Dv = 2}), {{"causal", true}, {"scale", 0.3}}),
      make("symmetric_causal", inputs({.pairwise = false}), {{"causal", true}}),
      make("shared_heads", inputs({.Hq = 1, .H = 3})),
      make("symmetric_shared_heads", inputs({.Hq = 2, .H = 4, .pairwise = false})),
      make("cross", inputs({.T = 4, .Tk = 7, .Dv = 6})),
      make("cross_shared_heads", inputs({.Hq = 1, .H = 2, .T = 3, .Tk = 6}), {{"causal", true}}),
      make("no_batch", inputs({.B = 0})),
      make("bias", inputs({}, {plain("bias", {2, 2, 5, 5})})),
      make("bias_per_head_causal", inputs({}, {plain("bias", {2, 1, 5})}), {{"causal", true}}),
      make("symmetric_bias", inputs({.pairwise = false}, {plain("bias", {5, 5})})),
      make("packed", inputs(packed, {bounds})),
      make("packed_causal_padding",
           inputs(packed, {bounds, padding("key_padding_mask", {".x..x.x...x"})}),
           {{"causal", true}}),
      make("dropout", inputs({}, {seed(11)}), {{"dropout_p", 0.3}}),
      make("dropout_packed", inputs(packed, {bounds, seed(4)}), {{"dropout_p", 0.2}}),
      make("several_tiles", inputs({.B = 1, .T = 70, .D = 8})),
      make("half_tiles", inputs({.B = 1, .T = 70, .D = 8, .Dv = 6, .pairwise = false})),
      make("half_tiles_constrained", inputs({.B = 1, .Hq = 1, .T = 130, .D = 4}),
           {{"symmetrize", true}}),
      make("half_tiles_dropout", inputs({.B = 1, .T = 67, .D = 4, .pairwise = false}, {seed(5)}),
           {{"dropout_p", 0.4}}),
      make("half_tiles_packed",
           inputs({.B = 1, .T = 150, .D = 4, .pairwise = false},
                  {boundaries("cu_seqlens", {0, 70, 150}),
                   padding("key_padding_mask",
                           {std::string(60, '.') + "xx..x" + std::string(80, '.') + "x..xx"})})),
  };
  for (Case& c : dead_row_cases()) all.push_back(std::move(c));
  return all;
}

Tensor dropout_multipliers(double p, int64_t number) {
  const Tensor zero = at::zeros({4, 4, 32, 8}), one = at::eye(32).expand({4, 4, 32, 32});
  SymmetricOptions options;
  options.dropout_p = p;
  options.seed = at::scalar_tensor(number, at::kLong);
  return symmetric_attention(zero, one, std::nullopt, options) * 32.0;
}

// A call that differs from a good one by what `change` does to it.
Refusal refused(const std::string& id, std::function<void(Arguments&)> change,
                std::vector<std::string> says) {
  const auto call = [change] {
    Arguments a = make_arguments(inputs({}), {}, "refusal", at::kFloat);
    change(a);
    run(a);
  };
  return {id, call, std::move(says)};
}

void pack(Arguments& a, std::vector<int64_t> bounds) {
  for (const char* name : {"q", "v"}) a.set(name, a[name].narrow(0, 0, 1));
  a.set("cu_seqlens", at::tensor(bounds, at::kLong));
}

std::vector<Refusal> refusals() {
  const auto set = [](const char* name, Tensor value) {
    return [name, value](Arguments& a) { a.set(name, value); };
  };
  return {
      refused("three_axes", set("q", at::ones({2, 5, 4})),
              {"q of shape [B, Hq, T, D]", "[2, 5, 4]"}),
      refused("other_length", set("v", at::ones({2, 2, 6, 4})),
              {"v of shape [B, H, T, Dv]", "T = 5 as in q"}),
      refused("other_dtype", [](Arguments& a) { a.set("v", a["v"].to(at::kDouble)); },
              {"v of the dtype of q", "Double"}),
      refused("coefficients_shape", set("pairwise", at::ones({2, 4, 3})),
              {"pairwise of shape [H, D, D]", "[2, 4, 3]"}),
      refused("coefficients_heads", set("pairwise", at::ones({3, 4, 4})),
              {"pairwise of shape [H, D, D]", "H = 2 as in v"}),
      refused("heads",
              [](Arguments& a) {
                a.set("v", at::ones({2, 3, 5, 4}));
                a.erase("pairwise");
              },
              {"the heads of q to divide those of v", "Hq = 2, H = 3"}),
      refused("key_width", set("k", at::ones({2, 2, 5, 3})), {"k of shape", "D = 4 as in q"}),
      refused("mask_dtype", set("key_padding_mask", at::ones({2, 5})),
              {"key_padding_mask of dtype bool", "Float"}),
      refused("bias_shape", set("bias", at::ones({4, 5, 5})),
              {"bias to broadcast to [B, H, T, Tk]", "[4, 5, 5]"}),
      refused("bias_dtype", set("bias", at::ones({5, 5}, at::kDouble)), {"bias of the dtype of q"}),
      refused("probability", [](Arguments& a) { a.options["dropout_p"] = 1.0; },
              {"dropout_p in [0, 1)", "1"}),
      refused("symmetrize_nothing",
              [](Arguments& a) {
                a.erase("pairwise");
                a.options["symmetrize"] = true;
              },
              {"pairwise with symmetrize", "none"}),
      refused("packed_batch", set("cu_seqlens", at::tensor({0, 5}, at::kLong)),
              {"B = 1 with cu_seqlens", "B = 2", "Concatenate"}),
      refused("packed_bias",
              [](Arguments& a) {
                pack(a, {0, 5});
                a.set("bias", at::ones({5, 5}));
              },
              {"no bias with cu_seqlens"}),
      refused("packed_keys",
              [](Arguments& a) {
                pack(a, {0, 5});
                a.set("k", at::ones({1, 2, 5, 4}));
              },
              {"no k with cu_seqlens"}),
      refused("boundaries_end",
              [](Arguments& a) {
                pack(a, {0, 4});
              },
              {"cu_seqlens to start at 0 and end at the packed length 5", "last 4"}),
  };
}

Operator symmetric() {
  Operator op;
  op.name = "symmetric_attention";
  op.run = run;
  op.reference = reference;
  op.cases = cases();
  op.of_length = [](int64_t n) {
    return make("",
                inputs({.B = 1, .Hq = 1, .H = 2, .T = n, .D = 3, .Dv = 2, .pairwise = n % 2 == 0}));
  };
  op.refusals = refusals();
  op.golden = "symmetric.txt";
  op.padding_may_be_nan = false;
  op.dropout_option = "dropout_p";
  op.dropout_multipliers = dropout_multipliers;
  const Sizes large{.B = 1, .Hq = 1, .H = 1, .T = 16384, .D = 16};
  Sizes plain_large = large;
  plain_large.pairwise = false;
  op.large = {make("pairwise", inputs(large)), make("half_tiles", inputs(plain_large)),
              make("dropout", inputs(large, {seed(1)}), {{"dropout_p", 0.1}, {"causal", true}})};
  return op;
}

const bool kJoined = join(symmetric());

Mixer mixer(const std::string& id, Options options, std::vector<std::string> more) {
  Mixer one{.id = "symmetric_" + id,
            .name = "symmetric",
            .options = std::move(options),
            .parameters = {"q_proj.weight", "q_proj.bias", "v_proj.weight", "v_proj.bias",
                           "out_proj.weight", "out_proj.bias"},
            .cross = true};
  for (const std::string& name : more) one.parameters.push_back(name);
  return one;
}

const bool kMixersJoined = [] {
  join(mixer("plain", {{"form", "symmetric"}}, {}));
  join(mixer("pairwise", {}, {"pairwise"}));
  join(mixer("constrained", {{"form", "constrained"}, {"initial", "noise"}},
             {"pairwise", "pairwise_initial"}));
  join(mixer("low_rank",
             {{"form", "low_rank"},
              {"initial", "noise"},
              {"rank", int64_t{2}},
              {"decay", "none"},
              {"query_heads", int64_t{1}}},
             {"diagonal", "left", "right"}));
  join(mixer("inputs_cache", {{"cache", "inputs"}, {"initial", "identity"}},
             {"pairwise", "pairwise_initial"}));
  return true;
}();

}  // namespace
}  // namespace headloom::testing
