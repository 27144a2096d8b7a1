#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "headloom/base/check.h"
#include "headloom/mechanisms/h_transformer/h_transformer.h"
#include "headloom/mechanisms/h_transformer/h_transformer_reference.h"
#include "tests/support/mixer_conformance.h"

namespace headloom::testing {
namespace {

using at::Tensor;

HAttentionOptions options_of(const Arguments& a) {
  HAttentionOptions options;
  options.block_size = a.integer("block_size", 4);
  options.causal = a.flag("causal");
  options.bias = a.optional("bias");
  options.key_padding_mask = a.optional("key_padding_mask");
  options.query_padding_mask = a.optional("query_padding_mask");
  options.cu_seqlens = a.optional("cu_seqlens");
  options.scale = a.optional_number("scale");
  options.dropout_p = a.number("dropout_p");
  options.seed = a.optional("seed");
  options.query_mode = a.text("query_mode", "coarse");
  options.center_keys = a.flag("center_keys");
  return options;
}

std::vector<Tensor> run(const Arguments& a) {
  return {h_attention(a["q"], a["k"], a["v"], options_of(a))};
}

std::vector<Tensor> reference(const Arguments& a) {
  return {h_attention_reference(a["q"], a["k"], a["v"], h_attention_call(options_of(a)))};
}

std::vector<Tensor> by_level(const Arguments& a) {
  return {
      std::get<0>(h_attention_by_level(a["q"], a["k"], a["v"], h_attention_call(options_of(a))))};
}

struct Sizes {
  int64_t B = 2, H = 2, T = 21, D = 4, E = 3;
};

std::vector<Input> inputs(const Sizes& s, std::vector<Input> more = {}) {
  std::vector<Input> all{tokens("q", {s.B, s.H, s.T, s.D}, 2), tokens("k", {s.B, s.H, s.T, s.D}, 2),
                         tokens("v", {s.B, s.H, s.T, s.E}, 2)};
  std::string queries_hidden_by;
  for (const Input& other : more) {
    if (other.name == "key_padding_mask" && queries_hidden_by.empty()) {
      queries_hidden_by = other.name;
    }
    if (other.name == "query_padding_mask") queries_hidden_by = other.name;
  }
  for (Input& input : more) {
    const bool cuts = input.name == "cu_seqlens";
    for (Input& token : all) {
      if (cuts && token.time >= 0) token = token.packed(input.name);
      if (input.name == "key_padding_mask" && token.name != "q") token = token.padded(input.name);
    }
  }
  if (!queries_hidden_by.empty()) all[0] = all[0].padded(queries_hidden_by);
  for (Input& input : more) {
    if (input.kind == Kind::kMask && !all[0].packed_by.empty()) input = input.packed("cu_seqlens");
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

Tensor own_padding(const Arguments& a) {
  const Tensor& mask =
      a.has("query_padding_mask") ? a["query_padding_mask"] : a["key_padding_mask"];
  return (mask | a["key_padding_mask"].all(1, true)).unsqueeze(1).unsqueeze(-1);
}

std::vector<Case> cases() {
  const Input holes =
      padding("key_padding_mask", {".x..xxx..........x.xx", "xxxxx.xx.xxxxxxxx...."});
  const Input one_gone =
      padding("key_padding_mask", {"xxxxxxxxxxxxxxxxxxxxx", "..................x.x"});
  const Input none =
      padding("query_padding_mask", {"x....................", "....................x"});
  const Input row = padding("key_padding_mask", {".x..x.x.....x........"});
  const Input cu = boundaries("cu_seqlens", {0, 3, 3, 4, 21});
  const Input bias = plain("bias", {2, 15});
  const Sizes packed{.B = 1};
  std::vector<Case> all{
      make("self", inputs({})),
      make("causal", inputs({}), {{"causal", true}}),
      make("short", inputs({.T = 8}), {{"scale", 0.3}}),
      make("block_2", inputs({.T = 19}), {{"block_size", int64_t{2}}}),
      make("block_6_causal", inputs({.T = 29}), {{"block_size", int64_t{6}}, {"causal", true}}),
      make("bias", inputs({}, {bias})),
      make("bias_causal", inputs({}, {bias}), {{"causal", true}}),
      make("bias_fixed", inputs({}, {bias.fixed()})),
      make("fine", inputs({}), {{"query_mode", std::string("fine")}}),
      make("fine_bias_causal", inputs({}, {bias}),
           {{"query_mode", std::string("fine")}, {"causal", true}}),
      make("center_keys", inputs({}), {{"center_keys", true}}),
      make("packed", inputs(packed, {cu})),
      make("packed_causal_padding", inputs(packed, {cu, row}), {{"causal", true}}),
      make("packed_fine_center", inputs(packed, {cu}),
           {{"query_mode", std::string("fine")}, {"center_keys", true}}),
      make("dropout", inputs({}, {seed(11)}), {{"dropout_p", 0.3}}),
      make("dropout_causal_padding", inputs({}, {seed(3), holes}),
           {{"dropout_p", 0.5}, {"causal", true}}),
      make("dropout_packed_fine", inputs(packed, {cu, seed(4)}),
           {{"dropout_p", 0.2}, {"query_mode", std::string("fine")}}),
      make("no_batch", inputs({.B = 0})),
  };
  for (const bool causal : {false, true}) {
    for (const Input& mask : {holes, one_gone}) {
      Case c = make(cat(causal ? "causal_" : "", "padding_",
                        mask.values().all(1).any().item<bool>() ? "all" : "holes"),
                    inputs({}, {mask}));
      if (causal) {
        c.options["causal"] = true;
        c.causal = true;
      }
      c.nothing_to_attend = own_padding;
      all.push_back(c);
    }
  }
  Case cross = make("cross_padding", inputs({}, {holes, none, bias}));
  cross.nothing_to_attend = own_padding;
  all.push_back(cross);
  Case fine = make("fine_padding_center", inputs({}, {holes}),
                   {{"query_mode", std::string("fine")}, {"center_keys", true}});
  fine.nothing_to_attend = own_padding;
  all.push_back(fine);
  return all;
}

Tensor dropout_multipliers(double p, int64_t number) {
  const Tensor zero = at::zeros({4, 4, 32, 8}), one = at::eye(32).expand({4, 4, 32, 32});
  HAttentionOptions options;
  options.dropout_p = p;
  options.seed = at::scalar_tensor(number, at::kLong);
  return h_attention(zero, zero, one, options) * 32.0;
}

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
  const auto option = [](const char* name, OptionValue value) {
    return [=](Arguments& a) { a.options[name] = value; };
  };
  const auto tensor = [](const char* name, const Tensor& value) {
    return [=](Arguments& a) { a.set(name, value); };
  };
  return {
      refused("odd_block", option("block_size", int64_t{5}), {"even block_size of 2 to 256", "5"}),
      refused("large_block", option("block_size", int64_t{258}), {"even block_size", "258"}),
      refused("mode", option("query_mode", std::string("mean")), {"\"coarse\" or \"fine\""}),
      refused("probability", option("dropout_p", 1.0), {"dropout_p in [0, 1)"}),
      refused("lengths", tensor("k", at::ones({2, 2, 20, 4})), {"k of shape", "T = 21 as in q"}),
      refused("values", tensor("v", at::ones({2, 2, 20, 4})), {"v of shape", "T = 21 as in q"}),
      refused("dtype", tensor("v", at::ones({2, 2, 21, 4}, at::kDouble)), {"v of the dtype of q"}),
      refused("mask", tensor("key_padding_mask", at::zeros({2, 20}, at::kBool)),
              {"key_padding_mask of shape [B, T]"}),
      refused("query_mask", tensor("query_padding_mask", at::zeros({2, 21})),
              {"query_padding_mask of dtype bool"}),
      refused("bias", tensor("bias", at::ones({2, 14})), {"bias of shape [H, 15]", "[2, 14]"}),
      refused("center_causal",
              [](Arguments& a) {
                a.options["center_keys"] = true;
                a.options["causal"] = true;
              },
              {"bidirectional call with center_keys", "key projection"}),
      refused("packed_batch", tensor("cu_seqlens", at::tensor({0, 21})),
              {"B = 1 with cu_seqlens", "B = 2"}),
      refused("boundaries",
              [](Arguments& a) {
                for (const char* name : {"q", "k", "v"}) a.set(name, a[name].narrow(0, 0, 1));
                a.set("cu_seqlens", at::tensor({0, 20}));
              },
              {"cu_seqlens to start at 0 and end at the packed length 21"}),
      {"weights_packed",
       [] {
         HAttentionOptions options;
         options.cu_seqlens = at::tensor({0, 4});
         h_attention_weights(at::ones({1, 1, 4, 2}), at::ones({1, 1, 4, 2}), options);
       },
       {"one sequence a row"}},
  };
}

Operator h_attention_operator() {
  Operator op;
  op.name = "h_attention";
  op.run = run;
  op.reference = reference;
  op.cases = cases();
  op.of_length = [](int64_t n) {
    Case c = make("", inputs({.B = 1, .T = n, .D = 3, .E = n % 2 ? 3 : 2}),
                  {{"block_size", int64_t{n % 4 < 2 ? 4 : 6}}});
    if (n % 3 == 0) c.options["causal"] = true;
    return c;
  };
  op.refusals = refusals();
  op.golden = "h_attention.txt";
  op.dropout_option = "dropout_p";
  op.dropout_multipliers = dropout_multipliers;
  // Three times the arguments, and outputs and gradients, which are as large as the arguments.
  op.memory_factor = 4.0;
  const Sizes large{.B = 1, .H = 1, .T = 65536, .D = 16, .E = 16};
  op.large = {make("causal", inputs(large), {{"causal", true}, {"block_size", int64_t{16}}}),
              make("bidirectional", inputs(large), {{"block_size", int64_t{32}}}),
              make("fine", inputs(large),
                   {{"query_mode", std::string("fine")}, {"block_size", int64_t{16}}})};
  return op;
}

// The same cases through the operations that other devices use, a second opinion on the kernels.
Operator by_level_operator() {
  Operator op = h_attention_operator();
  op.name = "h_attention_by_level";
  op.run = by_level;
  op.refusals.clear();
  op.large.clear();
  op.dropout_multipliers = {};
  op.autocast.reset();
  return op;
}

const bool kJoined = join(h_attention_operator());

// Only the oracle's checks: the rest concerns the dispatcher's operator.
Failures by_level_against_reference() {
  const Operator op = by_level_operator();
  Failures all;
  for (const Case& c : op.cases) {
    for (Failure& failure : check_reference(op, c)) all.push_back(std::move(failure));
  }
  for (Failure& failure : check_lengths(op)) all.push_back(std::move(failure));
  for (Failure& failure : check_golden(op)) all.push_back(std::move(failure));
  return all;
}

TEST(HAttentionByLevel, EqualsReference) {
  for (const Failure& failure : by_level_against_reference()) ADD_FAILURE() << failure;
}

const bool kMixerJoined =
    join(Mixer{.id = "h_transformer",
               .name = "h_transformer",
               .options = {{"block_size", int64_t{4}}},
               .parameters = {"q_proj.weight", "k_proj.weight", "v_proj.weight", "out_proj.weight",
                              "relative_bias"}});
const bool kDropInJoined =
    join(Mixer{.id = "h_transformer_fine_drop_in",
               .name = "h_transformer",
               .options = {{"block_size", int64_t{2}},
                           {"query_mode", std::string("fine")},
                           {"bias", true},
                           {"relative_bias", false},
                           {"init", std::string("xavier")}},
               .parameters = {"q_proj.weight", "q_proj.bias", "k_proj.weight", "k_proj.bias",
                              "v_proj.weight", "v_proj.bias", "out_proj.weight", "out_proj.bias"},
               .idle = {"k_proj.bias"}});

}  // namespace
}  // namespace headloom::testing
