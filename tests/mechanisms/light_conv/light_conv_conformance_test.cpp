<<<<<<< HEAD
// Both operators and both mixers in the suite that every mechanism passes.
#include "headloom/mechanisms/light_conv/light_conv.h"
#include "tests/mechanisms/light_conv/light_conv_cases.h"
#include "tests/support/mixer_conformance.h"

=======
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "headloom/mechanisms/light_conv/light_conv.h"
#include "headloom/mechanisms/light_conv/light_conv_reference.h"
#include "tests/support/mixer_conformance.h"

// B batch, T time, C channels, H heads, K kernel width.
>>>>>>> conformance
namespace headloom::testing {
namespace {

using at::Tensor;

<<<<<<< HEAD
template <class Op>
ConvCall call_of(const Arguments& a) {
  ConvCall call{Op::kName, a.integer("padding")};
  call.weight_softmax = a.flag("weight_softmax", true);
  call.renorm_padding = a.flag("renorm_padding");
  call.conv_bias = a.optional("conv_bias");
  call.key_padding_mask = a.optional("key_padding_mask");
  call.cu_seqlens = a.optional("cu_seqlens");
  call.weight_dropout = a.number("weight_dropout");
  call.per_position = a.flag("per_position", std::is_same_v<Op, DynamicConvOp>);
  call.seed = a.optional("seed");
  return call;
}

template <class Op>
std::vector<Tensor> run(const Arguments& a) {
  return {ConvDispatcher<Op>::call(a["x"], a["weight"], call_of<Op>(a))};
}

template <class Op>
std::vector<Tensor> reference(const Arguments& a) {
  return {light_conv_reference(a["x"], a["weight"], call_of<Op>(a))};
}

struct Sizes {
  int64_t B = 2, T = 9, C = 6, H = 3, K = 4;
};

template <class Op>
Case make(const std::string& id, const Sizes& s, Options options, std::vector<Input> more = {}) {
  constexpr bool kShared = std::is_same_v<Op, LightConvOp>;
  Input x = tokens("x", {s.B, s.T, s.C}, 1);
  Input weight = kShared ? plain("weight", {s.H, s.K}) : tokens("weight", {s.B, s.T, s.H, s.K}, 1);
  for (Input& input : more) {
    if (input.kind == Kind::kMask) {
      x = x.padded(input.name);
      if (!kShared) weight = weight.padded(input.name);
    }
    if (input.kind == Kind::kBoundaries) {
      x = x.packed(input.name);
      if (!kShared) weight = weight.packed(input.name);
      for (Input& other : more) {
        if (other.kind == Kind::kMask) other = other.packed(input.name);
      }
    }
  }
  Case c{.id = id, .inputs = {x, weight}, .options = std::move(options)};
  for (Input& input : more) c.inputs.push_back(std::move(input));
  c.causal = std::get<int64_t>(c.options.at("padding")) >= s.K - 1;
  c.output_time = 1;
  if (std::any_of(c.inputs.begin(), c.inputs.end(),
                  [](const Input& input) { return input.kind == Kind::kMask; })) {
    c.nothing_to_attend = [](const Arguments& a) { return a["key_padding_mask"].unsqueeze(-1); };
  }
  return c;
}

Options at_padding(int64_t padding, Options more = {}) {
  more["padding"] = padding;
  return more;
}

template <class Op>
std::vector<Case> cases() {
  const Input holes = padding("key_padding_mask", {"xx...x...", ".......xx"});
  const Input all = padding("key_padding_mask", {"xxxxxxxxx", "..x......"});
  const Input bounds = boundaries("cu_seqlens", {0, 4, 4, 5, 12});
  const Input packed_holes = padding("key_padding_mask", {
                                                             ".x..x.x.....",
                                                         });
  const Input bias = plain("conv_bias", {6});
  const Sizes packed{.B = 1, .T = 12};
  return {
      make<Op>("causal", {}, at_padding(3)),
      make<Op>("centred", {.K = 5}, at_padding(2), {bias}),
      make<Op>("ahead", {}, at_padding(0)),
      make<Op>("delayed", {}, at_padding(6)),
      make<Op>("raw", {}, at_padding(2, {{"weight_softmax", false}})),
      make<Op>("one_tap", {.K = 1}, at_padding(0)),
      make<Op>("wider_than_long", {.T = 5, .K = 12}, at_padding(11)),
      make<Op>("one_head", {.H = 1}, at_padding(1)),
      make<Op>("a_head_a_channel", {.H = 6}, at_padding(3), {bias}),
      make<Op>("no_batch", {.B = 0}, at_padding(3)),
      make<Op>("padding", {}, at_padding(2), {holes, bias}),
      make<Op>("all_padding", {}, at_padding(3), {all}),
      make<Op>("packed", packed, at_padding(3), {bounds}),
      make<Op>("packed_padding", packed, at_padding(1), {bounds, packed_holes, bias}),
      make<Op>("dropconnect", {}, at_padding(3, {{"weight_dropout", 0.3}}), {seed(5)}),
      make<Op>("dropconnect_padding", {},
               at_padding(2, {{"weight_dropout", 0.5}, {"per_position", true}}), {holes, seed(6)}),
      make<Op>("several_tiles", {.B = 1, .T = 70, .C = 8, .H = 2, .K = 7}, at_padding(6))};
}

template <class Op>
Operator join_as(const std::string& golden_free_name) {
  Operator op;
  op.name = golden_free_name;
  op.run = run<Op>;
  op.reference = reference<Op>;
  op.cases = cases<Op>();
  op.of_length = [](int64_t n) { return make<Op>("", {.T = n}, at_padding(3)); };
  op.dropout_option = "weight_dropout";
  const Sizes large{.B = 1, .T = 65536, .C = 32, .H = 4, .K = 31};
  op.large = {make<Op>("causal", large, at_padding(30))};
  return op;
}

Operator light_conv_operator() {
  Operator op = join_as<LightConvOp>("light_conv");
  // Raw weights of ones, a head a channel, and x = 1 at the newest position only: the outputs are
  // the multipliers of the taps in reverse order.
  op.dropout_multipliers = [](double p, int64_t number) {
    ConvCall call{LightConvOp::kName, 7};
    call.weight_softmax = false;
    call.weight_dropout = p;
    call.seed = at::scalar_tensor(number, at::kLong);
    Tensor x = at::zeros({1, 8, 256});
    x.select(1, 0).fill_(1.0);
    return ConvDispatcher<LightConvOp>::call(x, at::ones({256, 8}), call);
  };
  return op;
}

Operator dynamic_conv_operator() {
  Operator op = join_as<DynamicConvOp>("dynamic_conv");
  for (const Case& plain :
       {make<DynamicConvOp>("renorm", {}, at_padding(3)),
        make<DynamicConvOp>("renorm_padding", {}, at_padding(2),
                            {padding("key_padding_mask", {"xx...x...", "xxxxxx.xx"})}),
        make<DynamicConvOp>("renorm_packed", {.B = 1, .T = 12}, at_padding(5),
                            {boundaries("cu_seqlens", {0, 4, 4, 5, 12})})}) {
    op.cases.push_back(plain);
    op.cases.back().options["renorm_padding"] = true;
  }
  // One tap, raw weights of ones, ones in x.
  op.dropout_multipliers = [](double p, int64_t number) {
    ConvCall call{DynamicConvOp::kName, 0};
    call.weight_softmax = false;
    call.weight_dropout = p;
    call.per_position = true;
    call.seed = at::scalar_tensor(number, at::kLong);
    return ConvDispatcher<DynamicConvOp>::call(at::ones({2, 64, 16}), at::ones({2, 64, 16, 1}),
                                               call);
  };
  return op;
}

const bool kLightJoined = join(light_conv_operator());
const bool kDynamicJoined = join(dynamic_conv_operator());

const std::vector<std::string> kProjections{"in_proj.weight", "in_proj.bias", "out_proj.weight",
                                            "out_proj.bias"};

Mixer mixer(const std::string& id, const std::string& name, Options options,
            std::vector<std::string> parameters) {
  options["kernel_sizes"] = std::vector<int64_t>{5};
  parameters.insert(parameters.end(), kProjections.begin(), kProjections.end());
  return {.id = id, .name = name, .options = std::move(options), .parameters = parameters};
}

const bool kMixersJoined[] = {
    join(mixer("light_conv", "light_conv", {}, {"weight"})),
    join(mixer("light_conv_raw", "light_conv",
               {{"weight_softmax", false}, {"glu", false}, {"conv_bias", true}},
               {"weight", "conv_bias"})),
    join(mixer("dynamic_conv", "dynamic_conv", {}, {"kernel_proj.weight"})),
    join(mixer("dynamic_conv_renorm", "dynamic_conv",
               {{"renorm_padding", true}, {"kernel_bias", true}},
               {"kernel_proj.weight", "kernel_proj.bias"})),
};
=======
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
>>>>>>> conformance

}  // namespace
}  // namespace headloom::testing
