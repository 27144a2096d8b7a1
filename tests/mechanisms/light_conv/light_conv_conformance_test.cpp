#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "headloom/mechanisms/light_conv/light_conv.h"
#include "headloom/mechanisms/light_conv/light_conv_reference.h"
#include "tests/support/mixer_conformance.h"

// B batch, T time, C channels, H heads, K kernel width.
namespace headloom::testing {
namespace {

using at::Tensor;

void fill(ConvOptions& options, const Arguments& a) {
  const std::string name = a.text("padding");
  if (name.empty()) {
    options.padding = a.integer("P");
  } else {
    options.padding = name;
  }
  options.weight_softmax = a.flag("weight_softmax", true);
  options.conv_bias = a.optional("conv_bias");
  options.key_padding_mask = a.optional("key_padding_mask");
  options.cu_seqlens = a.optional("cu_seqlens");
  options.weight_dropout = a.number("weight_dropout");
  options.seed = a.optional("seed");
}

std::vector<Tensor> run_light(const Arguments& a) {
  LightConvOptions options;
  fill(options, a);
  options.dropconnect = a.text("dropconnect", "shared");
  return {light_conv(a["x"], a["weight"], options)};
}

std::vector<Tensor> run_dynamic(const Arguments& a) {
  DynamicConvOptions options;
  fill(options, a);
  options.renorm_padding = a.flag("renorm_padding");
  return {dynamic_conv(a["x"], a["kernel_logits"], options)};
}

std::vector<Tensor> reference(const Arguments& a, bool dynamic) {
  ConvOptions options;
  fill(options, a);
  const Tensor& weight = a[dynamic ? "kernel_logits" : "weight"];
  const auto* name = std::get_if<std::string>(&options.padding);
  ConvCall call{dynamic ? "dynamic_conv" : "light_conv",
                name ? left_padding(*name, weight.size(-1)) : std::get<int64_t>(options.padding)};
  call.weight_softmax = options.weight_softmax;
  call.renorm_padding = a.flag("renorm_padding");
  call.conv_bias = options.conv_bias;
  call.key_padding_mask = options.key_padding_mask;
  call.cu_seqlens = options.cu_seqlens;
  call.weight_dropout = options.weight_dropout;
  call.per_position = dynamic || a.text("dropconnect") == "per_position";
  call.seed = options.seed;
  return {light_conv_reference(a["x"], weight, call)};
}

struct Sizes {
  int64_t B = 2, T = 9, C = 6, H = 3, K = 3;
};

// x, the weight of either operator, and more; masks and boundaries find what they apply to.
std::vector<Input> inputs(bool dynamic, const Sizes& s, const std::vector<Input>& more) {
  std::vector<Input> all{
      tokens("x", {s.B, s.T, s.C}, 1),
      dynamic ? tokens("kernel_logits", {s.B, s.T, s.H, s.K}, 1) : plain("weight", {s.H, s.K})};
  for (const Input& input : more) all.push_back(input);
  for (const Input& other : more) {
    for (Input& input : all) {
      if (input.time < 0 || input.name == other.name) continue;
      if (other.kind == Kind::kBoundaries) input = input.packed(other.name);
      if (other.kind == Kind::kMask) input = input.padded(other.name);
    }
  }
  return all;
}

struct Maker {
  bool dynamic;
  Case operator()(const std::string& id, const Sizes& sizes, Options options,
                  const std::vector<Input>& more = {}) const {
    Case c{.id = id, .inputs = inputs(dynamic, sizes, more), .options = std::move(options)};
    c.output_time = 1;
    const auto padding = c.options.find("padding");
    c.causal = padding != c.options.end() && to_string(padding->second) == "\"causal\"";
    for (const Input& input : more) {
      if (input.kind != Kind::kMask) continue;
      c.nothing_to_attend = [](const Arguments& a) { return a["key_padding_mask"].unsqueeze(-1); };
    }
    return c;
  }
};

Options padded(const std::string& name, Options more = {}) {
  more["padding"] = name;
  return more;
}

std::vector<Case> cases(bool dynamic) {
  const Maker make{dynamic};
  const Input mask = padding("key_padding_mask", {"x..x..xxx", "........."});
  const Input cut = boundaries("cu_seqlens", {0, 4, 4, 5, 11});
  const Input packed_mask = padding("key_padding_mask", {"...x.....xx"});
  const Sizes packed{.B = 1, .T = 11, .K = 3};
  std::vector<Case> all{
      make("same_odd", {.K = 3}, padded("same")),
      make("same_even", {.K = 4}, padded("same")),
      make("causal_odd", {.K = 5}, padded("causal")),
      make("causal_even", {.K = 4}, padded("causal")),
      make("one_tap", {.K = 1}, padded("same")),
      make("one_head", {.H = 1}, padded("causal")),
      make("head_a_channel", {.C = 3}, padded("same")),
      make("shorter_than_kernel", {.T = 3, .K = 7}, padded("same")),
      make("shorter_than_causal_kernel", {.T = 4, .K = 9}, padded("causal")),
      make("left_0", {.K = 4}, {{"P", int64_t{0}}}),
      make("left_1_of_4", {.K = 4}, {{"P", int64_t{1}}}),
      make("delayed", {.K = 3}, {{"P", int64_t{5}}}),
      make("delayed_past_the_end", {.T = 4, .K = 3}, {{"P", int64_t{9}}}),
      make("no_batch", {.B = 0}, padded("same")),
      make("raw_weights", {.K = 5}, padded("causal", {{"weight_softmax", false}})),
      make("bias", {}, padded("same"), {plain("conv_bias", {6})}),
      make("padding", {.K = 5}, padded("same"), {mask}),
      make("padding_causal_bias", {.K = 4}, padded("causal"), {mask, plain("conv_bias", {6})}),
      make("packed_same", packed, padded("same"), {cut}),
      make("packed_causal", {.B = 1, .T = 11, .K = 7}, padded("causal"), {cut}),
      make("packed_padding", packed, padded("same"), {cut, packed_mask}),
      make("dropconnect", {.K = 5}, padded("same", {{"weight_dropout", 0.3}}), {seed(7)}),
      make("dropconnect_packed_padding", packed, padded("causal", {{"weight_dropout", 0.5}}),
           {cut, packed_mask, seed(8)}),
      make("wide", {.B = 1, .T = 70, .C = 32, .H = 4, .K = 31}, padded("causal")),
  };
  return all;
}

std::vector<Case> light_cases() {
  const Maker make{false};
  std::vector<Case> all = cases(false);
  all.push_back(
      make("dropconnect_per_position", {.K = 5},
           padded("same", {{"weight_dropout", 0.4}, {"dropconnect", std::string("per_position")}}),
           {seed(9)}));
  return all;
}

std::vector<Case> dynamic_cases() {
  const Maker make{true};
  const Input mask = padding("key_padding_mask", {"x..x..xxx", "........."});
  const Input cut = boundaries("cu_seqlens", {0, 4, 4, 5, 11});
  const Options renorm{{"renorm_padding", true}};
  std::vector<Case> all = cases(true);
  all.push_back(make("renorm_same", {.K = 5}, padded("same", renorm)));
  all.push_back(make("renorm_causal_padding", {.K = 4}, padded("causal", renorm), {mask}));
  all.push_back(make("renorm_packed", {.B = 1, .T = 11, .K = 5}, padded("same", renorm), {cut}));
  all.push_back(make("renorm_dropconnect", {.K = 5},
                     padded("same", {{"renorm_padding", true}, {"weight_dropout", 0.3}}),
                     {seed(5)}));
  all.push_back(make("renorm_nothing_in_range", {.T = 4, .K = 3},
                     {{"renorm_padding", true}, {"P", int64_t{9}}}));
  return all;
}

// With an impulse in front, output t is the multiplier of tap K - 1 - t.
Tensor light_multipliers(double p, int64_t number) {
  constexpr int64_t kHeads = 16, kTaps = 255;
  const Tensor impulse = at::zeros({1, kTaps, kHeads});
  impulse.select(1, 0).fill_(1.0);
  LightConvOptions options;
  options.padding = "causal";
  options.weight_softmax = false;
  options.weight_dropout = p;
  options.seed = at::scalar_tensor(number, at::kLong);
  return light_conv(impulse, at::ones({kHeads, kTaps}), options);
}

// One tap: the output is its multiplier.
Tensor dynamic_multipliers(double p, int64_t number) {
  DynamicConvOptions options;
  options.weight_dropout = p;
  options.seed = at::scalar_tensor(number, at::kLong);
  return dynamic_conv(at::ones({4, 128, 8}), at::zeros({4, 128, 8, 1}), options);
}

Operator convolution(bool dynamic) {
  Operator op;
  op.name = dynamic ? "dynamic_conv" : "light_conv";
  op.run = dynamic ? run_dynamic : run_light;
  op.reference = [dynamic](const Arguments& a) { return reference(a, dynamic); };
  op.cases = dynamic ? dynamic_cases() : light_cases();
  op.of_length = [dynamic](int64_t n) {
    return Maker{dynamic}("", {.B = 1, .T = n, .C = 4, .H = 2, .K = 7}, padded("same"));
  };
  op.dropout_option = "weight_dropout";
  op.dropout_multipliers = dynamic ? dynamic_multipliers : light_multipliers;
  const Sizes large{.B = 1, .T = 65536, .C = 8, .H = 2, .K = 7};
  op.large = {Maker{dynamic}("causal", large, padded("causal"))};
  return op;
}

const bool kLight = join(convolution(false));
const bool kDynamic = join(convolution(true));

Mixer mixer(bool dynamic) {
  Mixer m;
  m.id = m.name = dynamic ? "dynamic_conv" : "light_conv";
  m.options = {{"kernel_sizes", std::vector<int64_t>{5}}, {"conv_bias", true}};
  m.parameters = {"in_proj.weight", "in_proj.bias", "out_proj.weight",
                  "out_proj.bias",  "conv_bias",    dynamic ? "kernel_proj.weight" : "weight"};
  return m;
}

const bool kLightMixer = join(mixer(false));
const bool kDynamicMixer = join(mixer(true));

}  // namespace
}  // namespace headloom::testing
