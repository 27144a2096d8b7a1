// Both operators and both mixers in the suite that every mechanism passes.
#include "headloom/mechanisms/light_conv/light_conv.h"
#include "tests/mechanisms/light_conv/light_conv_cases.h"
#include "tests/support/mixer_conformance.h"

namespace headloom::testing {
namespace {

using at::Tensor;

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

}  // namespace
}  // namespace headloom::testing
