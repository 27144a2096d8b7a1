#include "headloom/mechanisms/dot_product/dot_product.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>

#include <cmath>

#include "headloom/base/check.h"
#include "headloom/mechanisms/dot_product/dot_product_dispatch.h"
#include "tests/support/mixer_conformance.h"

namespace headloom::testing {
namespace {

using at::Tensor;
using ::testing::HasSubstr;

DotProductOptions options_of(const Arguments& a) {
  return {a.optional("bias"),         a.optional("key_padding_mask"), a.flag("causal"),
          a.optional_number("scale"), a.number("dropout_p"),          a.optional("seed"),
          a.optional("cu_seqlens_q"), a.optional("cu_seqlens_k")};
}

std::vector<Tensor> run(const Arguments& a) {
  return {dot_product_attention(a["q"], a["k"], a["v"], options_of(a))};
}

std::vector<Tensor> reference(const Arguments& a) {
  const DotProductOptions o = options_of(a);
  return {dot_product_composite(a["q"], a["k"], a["v"],
                                {o.bias, o.key_padding_mask, o.causal, o.scale, o.dropout_p, o.seed,
                                 o.cu_seqlens_q, o.cu_seqlens_k})};
}

// Sizes of a case; Dv = 0 means D.
struct Sizes {
  int64_t B = 2, H = 3, Tq = 5, Tk = 5, D = 4, Dv = 0;
};

std::vector<Input> inputs(const Sizes& s, std::vector<Input> more = {}) {
  const auto marked = [&more](Input input, const std::string& cut) {
    for (const Input& other : more) {
      if (other.name == "key_padding_mask" && input.name != "q") input = input.padded(other.name);
      if (other.name == cut) input = input.packed(cut);
    }
    return input;
  };
  std::vector<Input> all{
      marked(tokens("q", {s.B, s.H, s.Tq, s.D}, 2), "cu_seqlens_q"),
      marked(tokens("k", {s.B, s.H, s.Tk, s.D}, 2), "cu_seqlens_k"),
      marked(tokens("v", {s.B, s.H, s.Tk, s.Dv ? s.Dv : s.D}, 2), "cu_seqlens_k")};
  for (Input& input : more) {
    if (input.name == "key_padding_mask" && !all[2].packed_by.empty()) {
      input = input.packed("cu_seqlens_k");
    }
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

// Queries [1, 1, Tq, 1] of a causal call that come before every key.
Tensor before_all_keys(const Arguments& a) {
  const int64_t Tq = a["q"].size(2), Tk = a["k"].size(2);
  return (at::arange(Tq, at::TensorOptions().device(a["q"].device())) + (Tk - Tq) < 0)
      .view({1, 1, Tq, 1});
}

// Rows of the batch [B, 1, 1, 1] whose keys are all padding.
Tensor all_padding(const Arguments& a) {
  return a["key_padding_mask"].all(1).view({-1, 1, 1, 1});
}

std::vector<Case> dead_row_cases() {
  Case fewer_keys = make("fewer_keys", inputs({.Tq = 7, .Tk = 4}), {{"causal", true}});
  fewer_keys.nothing_to_attend = before_all_keys;
  Case holes = make("padding", inputs({}, {padding("key_padding_mask", {"x..x.", "xxxxx"})}));
  holes.nothing_to_attend = all_padding;
  Case causal_holes =
      make("causal_padding",
           inputs({.B = 3}, {padding("key_padding_mask", {"xx.x.", "...xx", "xxxxx"})}),
           {{"causal", true}});
  causal_holes.nothing_to_attend = [](const Arguments& a) {
    const Tensor visible = (~a["key_padding_mask"]).cumsum(1);  // [B, T]
    return (visible == 0).unsqueeze(1).unsqueeze(-1);
  };
  Case cross = make("cross_padding", inputs({.Tq = 3, .Tk = 6, .Dv = 2},
                                            {padding("key_padding_mask", {"xxxxxx", ".x.xx."})}));
  cross.nothing_to_attend = all_padding;
  Case no_keys = make("no_keys", inputs({.Tq = 3, .Tk = 0}));
  no_keys.nothing_to_attend = [](const Arguments& a) {
    return at::ones({1, 1, 1, 1}, a["q"].options().dtype(at::kBool));
  };
  Case packed = make("packed_without_keys",
                     inputs({.B = 1, .Tq = 5, .Tk = 6}, {boundaries("cu_seqlens_q", {0, 2, 5}),
                                                         boundaries("cu_seqlens_k", {0, 0, 6})}));
  packed.nothing_to_attend = [](const Arguments& a) {
    return (at::arange(5, at::TensorOptions().device(a["q"].device())) < 2).view({1, 1, 5, 1});
  };
  return {fewer_keys, holes, causal_holes, cross, no_keys, packed};
}

std::vector<Case> cases() {
  const Input cu_q = boundaries("cu_seqlens_q", {0, 3, 3, 4, 11});
  const Input cu_k = boundaries("cu_seqlens_k", {0, 4, 6, 7, 13});
  const Input cu_same = boundaries("cu_seqlens_q", {0, 4, 4, 5, 11});
  Input cu_same_k = cu_same;
  cu_same_k.name = "cu_seqlens_k";
  const Sizes cross{.Tq = 4, .Tk = 7, .Dv = 6};
  const Sizes packed{.B = 1, .Tq = 11, .Tk = 13};
  std::vector<Case> all{
      make("self", inputs({})),
      make("causal", inputs({}), {{"causal", true}}),
      make("cross", inputs(cross), {{"scale", 0.3}}),
      make("causal_cross", inputs({.Tq = 3, .Tk = 7}), {{"causal", true}}),
      make("no_batch", inputs({.B = 0})),
      make("no_heads_of_memory", inputs({.Tq = 0, .Tk = 4})),
      make("bias", inputs({}, {plain("bias", {2, 3, 5, 5})})),
      make("bias_per_head", inputs(cross, {plain("bias", {3, 1, 7})})),
      make("bias_fixed", inputs({}, {plain("bias", {5, 5}).fixed()}), {{"causal", true}}),
      make("bias_causal_padding",
           inputs({},
                  {plain("bias", {1, 3, 5, 1}), padding("key_padding_mask", {".x..x", "..xx."})}),
           {{"causal", true}}),
      make("packed", inputs(packed, {cu_q, cu_k})),
      make("packed_padding",
           inputs(packed, {cu_q, cu_k, padding("key_padding_mask", {".x..x.x.....x"})})),
      make("packed_causal", inputs({.B = 1, .Tq = 11, .Tk = 11}, {cu_same, cu_same_k}),
           {{"causal", true}}),
      make("dropout", inputs({}, {seed(11)}), {{"dropout_p", 0.3}}),
      make("dropout_causal_padding",
           inputs({}, {seed(3), padding("key_padding_mask", {".x...", "..x.x"})}),
           {{"dropout_p", 0.5}, {"causal", true}}),
      make("dropout_packed", inputs({.B = 1, .Tq = 11, .Tk = 11}, {cu_same, cu_same_k, seed(4)}),
           {{"dropout_p", 0.2}}),
      make("several_tiles", inputs({.B = 1, .H = 2, .Tq = 70, .Tk = 70, .D = 16, .Dv = 8}),
           {{"causal", true}}),
  };
  for (Case& c : dead_row_cases()) all.push_back(std::move(c));
  return all;
}

Tensor dropout_multipliers(double p, int64_t number) {
  const Tensor zero = at::zeros({4, 4, 32, 8}), one = at::eye(32).expand({4, 4, 32, 32});
  DotProductOptions options;
  options.dropout_p = p;
  options.seed = at::scalar_tensor(number, at::kLong);
  return dot_product_attention(zero, zero, one, options) * 32.0;
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

std::vector<Refusal> refusals() {
  const auto bounds = [](std::vector<int64_t> values) { return at::tensor(values, at::kLong); };
  const auto pack = [bounds](Arguments& a, std::vector<int64_t> q, std::vector<int64_t> k) {
    for (const char* name : {"q", "k", "v"}) a.set(name, a[name].narrow(0, 0, 1));
    a.set("cu_seqlens_q", bounds(q));
    a.set("cu_seqlens_k", bounds(k));
  };
  return {
      refused("three_axes",
              [](Arguments& a) {
                a.set("q", at::ones({2, 5, 4}));
              },
              {"q of shape [B, H, Tq, D]", "[2, 5, 4]"}),
      refused("other_width",
              [](Arguments& a) {
                a.set("k", at::ones({2, 3, 5, 6}));
              },
              {"k of shape", "D = 4 as in q", "[2, 3, 5, 6]"}),
      refused("other_length",
              [](Arguments& a) {
                a.set("v", at::ones({2, 3, 6, 4}));
              },
              {"v of shape", "Tk = 5 as in k"}),
      refused("other_dtype", [](Arguments& a) { a.set("v", a["v"].to(at::kDouble)); },
              {"v of the dtype of q", "Double"}),
      refused("integers", [](Arguments& a) { a.set("q", a["q"].to(at::kLong)); },
              {"float64, float32, bfloat16 or float16", "Long"}),
      refused("mask_dtype",
              [](Arguments& a) {
                a.set("key_padding_mask", at::ones({2, 5}));
              },
              {"key_padding_mask of dtype bool", "Float"}),
      refused("mask_shape",
              [](Arguments& a) {
                a.set("key_padding_mask", at::zeros({2, 4}, at::kBool));
              },
              {"key_padding_mask of shape [B, Tk]", "[2, 4]"}),
      refused("bias_shape",
              [](Arguments& a) {
                a.set("bias", at::ones({4, 5, 5}));
              },
              {"bias to broadcast to [B, H, Tq, Tk]", "[4, 5, 5]"}),
      refused("bias_dtype",
              [](Arguments& a) {
                a.set("bias", at::ones({5, 5}, at::kDouble));
              },
              {"bias of the dtype of q"}),
      refused("probability", [](Arguments& a) { a.options["dropout_p"] = 1.0; },
              {"dropout_p in [0, 1)", "1"}),
      refused("seed_dtype",
              [](Arguments& a) {
                a.options["dropout_p"] = 0.5;
                a.set("seed", at::ones({1}));
              },
              {"0-dim int64"}),
      refused("one_boundary",
              [&, bounds](Arguments& a) {
                a.set("cu_seqlens_q", bounds({0, 5}));
              },
              {"both of cu_seqlens_q and cu_seqlens_k"}),
      refused("packed_batch",
              [bounds](Arguments& a) {
                a.set("cu_seqlens_q", bounds({0, 5}));
                a.set("cu_seqlens_k", bounds({0, 5}));
              },
              {"B = 1 with cu_seqlens", "B = 2", "Concatenate"}),
      refused("packed_bias",
              [pack](Arguments& a) {
                pack(a, {0, 5}, {0, 5});
                a.set("bias", at::ones({5, 5}));
              },
              {"no bias with cu_seqlens"}),
      refused("boundaries_end",
              [pack](Arguments& a) {
                pack(a, {0, 4}, {0, 5});
              },
              {"cu_seqlens_q to start at 0 and end at the packed length 5", "last 4"}),
      refused("boundaries_fall",
              [pack](Arguments& a) {
                pack(a, {0, 4, 2, 5}, {0, 1, 2, 5});
              },
              {"cu_seqlens_q never to decrease", "4 followed by 2"}),
      refused("boundaries_count",
              [pack](Arguments& a) {
                pack(a, {0, 2, 5}, {0, 5});
              },
              {"cu_seqlens_k for 2 sequences", "1"}),
      refused("boundaries_dtype",
              [pack](Arguments& a) {
                pack(a, {0, 5}, {0, 5});
                a.set("cu_seqlens_q", at::ones({2}));
              },
              {"cu_seqlens_q of shape [S + 1] and dtype int32 or int64"}),
  };
}

Operator dot_product() {
  Operator op;
  op.name = "dot_product_attention";
  op.run = run;
  op.reference = reference;
  op.cases = cases();
  op.of_length = [](int64_t n) {
    return make("", inputs({.B = 1, .H = 2, .Tq = n, .Tk = n, .D = 3, .Dv = n % 2 ? 3 : 2}),
                {{"causal", true}});
  };
  op.refusals = refusals();
  op.golden = "dot_product.txt";
  op.padding_may_be_nan = false;
  op.dropout_option = "dropout_p";
  op.dropout_multipliers = dropout_multipliers;
  const Sizes large{.B = 1, .H = 1, .Tq = 16384, .Tk = 16384, .D = 16};
  op.large = {make("causal", inputs(large), {{"causal", true}}),
              make("dropout", inputs(large, {seed(1)}), {{"dropout_p", 0.1}})};
  return op;
}

const bool kJoined = join(dot_product());

const bool kMixerJoined =
    join(Mixer{.id = "dot_product",
               .name = "dot_product",
               .parameters = {"q_proj.weight", "q_proj.bias", "k_proj.weight", "k_proj.bias",
                              "v_proj.weight", "v_proj.bias", "out_proj.weight", "out_proj.bias"},
               .idle = {"k_proj.bias"},
               .cross = true});
const bool kNarrowMixer =
    join(Mixer{.id = "dot_product_narrow",
               .name = "dot_product",
               .options = {{"width", int64_t{6}}, {"bias", false}},
               .parameters = {"q_proj.weight", "k_proj.weight", "v_proj.weight", "out_proj.weight"},
               .cross = true});

std::shared_ptr<TokenMixer> make_scaled(double logit_scale) {
  return make_mixer("dot_product", MixerConfig{.dim = 8, .heads = 2},
                    Options{{"logit_scale", logit_scale}});
}

TEST(DotProductMixer, ScalesItsLogits) {
  const auto sharp = make_scaled(8.0), plain = make_scaled(1.0);
  const auto source = sharp->named_parameters();
  at::NoGradGuard no_grad;
  for (const auto& item : plain->named_parameters()) {
    item.value().copy_(source[item.key()]);
    if (item.key().starts_with("q_proj")) item.value().mul_(8.0);
  }
  const Tensor x = at::randn({2, 5, 8});
  EXPECT_TRUE(at::allclose(sharp->forward(x, {}), plain->forward(x, {}), 1e-5, 1e-6));
  EXPECT_FALSE(at::allclose(sharp->forward(x, {}), make_scaled(1.0)->forward(x, {})));
}

TEST(DotProductMixer, RefusesAScaleThatIsNone) {
  for (const double scale : {0.0, -1.0, std::nan("")}) {
    EXPECT_THAT([&] { make_scaled(scale); },
                ::testing::ThrowsMessage<Error>(HasSubstr("a finite logit_scale above 0")));
  }
}

}  // namespace
}  // namespace headloom::testing
