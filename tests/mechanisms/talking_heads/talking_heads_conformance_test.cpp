#include "tests/mechanisms/talking_heads/talking_heads_cases.h"

namespace headloom::testing {
namespace {

using at::Tensor;
using Sizes = TalkingHeadsCase;

Case make(const std::string& id, std::vector<Input> arguments, Options options = {}) {
  Case c{.id = id, .inputs = std::move(arguments), .options = std::move(options)};
  c.causal = c.options.count("causal") > 0;
  c.output_time = 2;
  return c;
}

Tensor before_all_keys(const Arguments& a) {
  const int64_t Tq = a["q"].size(2), Tk = a["k"].size(2);
  return (at::arange(Tq, at::TensorOptions().device(a["q"].device())) + (Tk - Tq) < 0)
      .view({1, 1, Tq, 1});
}

std::vector<Case> dead_row_cases() {
  Case fewer_keys = make("fewer_keys", Sizes{.Tq = 7, .Tk = 4}.inputs(), {{"causal", true}});
  fewer_keys.nothing_to_attend = before_all_keys;
  Case holes = make("padding", Sizes{}.inputs({padding("key_padding_mask", {"x..x.", "xxxxx"})}));
  holes.nothing_to_attend = [](const Arguments& a) {
    return a["key_padding_mask"].all(1).view({-1, 1, 1, 1});
  };
  Case causal_holes =
      make("causal_padding",
           Sizes{.B = 3}.inputs({padding("key_padding_mask", {"xx.x.", "...xx", "xxxxx"})}),
           {{"causal", true}});
  causal_holes.nothing_to_attend = [](const Arguments& a) {
    return ((~a["key_padding_mask"]).cumsum(1) == 0).unsqueeze(1).unsqueeze(-1);
  };
  Case no_keys = make("no_keys", Sizes{.Tq = 3, .Tk = 0}.inputs());
  no_keys.nothing_to_attend = [](const Arguments& a) {
    return at::ones({1, 1, 1, 1}, a["q"].options().dtype(at::kBool));
  };
  Case packed =
      make("packed_without_keys",
           Sizes{.B = 1, .Tq = 5, .Tk = 6}.inputs(
               {boundaries("cu_seqlens_q", {0, 2, 5}), boundaries("cu_seqlens_k", {0, 0, 6})}));
  packed.nothing_to_attend = [](const Arguments& a) {
    return (at::arange(5, at::TensorOptions().device(a["q"].device())) < 2).view({1, 1, 5, 1});
  };
  return {fewer_keys, holes, causal_holes, no_keys, packed};
}

std::vector<Case> mixing_cases() {
  const Sizes cross{.Tq = 4, .Tk = 7, .E = 6};
  const Sizes grouped{.K = 4, .H = 6, .V = 2, .groups = 2};
  return {
      make("self", Sizes{}.inputs()),
      make("causal", Sizes{}.inputs(), {{"causal", true}}),
      make("cross", cross.inputs(), {{"scale", 0.3}}),
      make("causal_cross", Sizes{.Tq = 3, .Tk = 7}.inputs(), {{"causal", true}}),
      make("no_batch", Sizes{.B = 0}.inputs()),
      make("no_queries", Sizes{.Tq = 0, .Tk = 4}.inputs()),
      make("logits_only", Sizes{.V = 3, .weights = false}.inputs()),
      make("weights_only", Sizes{.H = 2, .logits = false}.inputs(), {{"causal", true}}),
      make("neither", Sizes{.H = 2, .V = 2, .logits = false, .weights = false}.inputs()),
      make("grouped", grouped.inputs()),
      make("grouped_dynamic", grouped.inputs({grouped.dynamic("x2l"), grouped.dynamic("m2w")})),
      make("x2l", cross.inputs({cross.dynamic("x2l")})),
      make("m2l", cross.inputs({cross.dynamic("m2l")})),
      make("x2w", cross.inputs({cross.dynamic("x2w")})),
      make("m2w", cross.inputs({cross.dynamic("m2w")})),
      make(
          "dynamic_causal_padding",
          Sizes{}.inputs({Sizes{}.dynamic("x2l"), Sizes{}.dynamic("m2l"), Sizes{}.dynamic("x2w"),
                          Sizes{}.dynamic("m2w"), padding("key_padding_mask", {".x..x", "..xx."})}),
          {{"causal", true}}),
      make("many_heads", Sizes{.B = 1, .K = 13, .H = 24, .V = 16, .Tq = 3, .Tk = 6}.inputs()),
      make("several_tiles",
           Sizes{.B = 1, .H = 2, .V = 3, .Tq = 70, .Tk = 140, .D = 8, .E = 5}.inputs(),
           {{"causal", true}}),
  };
}

std::vector<Case> bias_cases() {
  const Sizes cross{.Tq = 4, .Tk = 7};
  return {
      make("bias", Sizes{}.inputs({plain("bias", {2, 3, 5, 5})})),
      make("bias_shared_batch", cross.inputs({plain("bias", {3, 4, 7})})),
      make("bias_per_head", cross.inputs({plain("bias", {3, 1, 7})})),
      make("bias_per_key", cross.inputs({plain("bias", {2, 1, 1, 7})}), {{"causal", true}}),
      make("bias_fixed", Sizes{}.inputs({plain("bias", {5, 5}).fixed()}), {{"causal", true}}),
      make("bias_padding", Sizes{}.inputs({plain("bias", {1, 3, 5, 1}),
                                           padding("key_padding_mask", {".x..x", "..xx."})})),
      make("relative_bias", cross.inputs({plain("relative_bias", {3, 10})})),
      make("relative_bias_shared_causal", Sizes{}.inputs({plain("relative_bias", {1, 9})}),
           {{"causal", true}}),
  };
}

std::vector<Case> packed_and_dropout_cases() {
  const Input cu_q = boundaries("cu_seqlens_q", {0, 3, 3, 4, 11});
  const Input cu_k = boundaries("cu_seqlens_k", {0, 4, 6, 7, 13});
  const Input same_q = boundaries("cu_seqlens_q", {0, 4, 4, 5, 11});
  const Input same_k = boundaries("cu_seqlens_k", {0, 4, 4, 5, 11});
  const Sizes packed{.B = 1, .Tq = 11, .Tk = 13}, same{.B = 1, .Tq = 11, .Tk = 11};
  const auto drops = [](const std::string& site) {
    return Options{{"dropout_p", 0.3}, {"dropout_site", site}};
  };
  Options causal_drops = drops("before_mix");
  causal_drops["causal"] = true;
  return {
      make("packed", packed.inputs({cu_q, cu_k})),
      make("packed_padding",
           packed.inputs({cu_q, cu_k, padding("key_padding_mask", {".x..x.x.....x"})})),
      make("packed_causal_dynamic",
           same.inputs({same_q, same_k, same.dynamic("x2l"), same.dynamic("m2w")}),
           {{"causal", true}}),
      make("dropout", Sizes{}.inputs({seed(11)}), drops("after_mix")),
      make("dropout_many_queries",
           Sizes{.B = 1, .H = 2, .V = 2, .Tq = 21, .Tk = 12}.inputs({seed(12)}),
           drops("after_mix")),
      make("dropout_before_mix",
           Sizes{}.inputs({seed(3), padding("key_padding_mask", {".x...", "..x.x"})}),
           causal_drops),
      make("dropout_per_key", Sizes{.Tq = 4, .Tk = 7}.inputs({seed(5)}), drops("per_key")),
      make("dropout_without_mixing",
           Sizes{.H = 2, .V = 2, .logits = false, .weights = false}.inputs({seed(5)}),
           drops("before_mix")),
      make("dropout_packed", same.inputs({same_q, same_k, seed(4)}), drops("after_mix")),
  };
}

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const auto& group :
       {mixing_cases(), bias_cases(), packed_and_dropout_cases(), dead_row_cases()}) {
    all.insert(all.end(), group.begin(), group.end());
  }
  return all;
}

Tensor dropout_multipliers(double p, int64_t number) {
  const Tensor zero = at::zeros({4, 4, 32, 8}), one = at::eye(32).expand({4, 4, 32, 32});
  TalkingHeadsOptions options;
  options.weights_proj = at::eye(4);
  options.dropout_p = p;
  options.seed = at::scalar_tensor(number, at::kLong);
  return talking_heads_attention(zero, zero, one, options) * 32.0;
}

Refusal refused(const std::string& id, std::function<void(Arguments&)> change,
                std::vector<std::string> says) {
  const auto call = [change] {
    Arguments a = make_arguments(Sizes{}.inputs(), {}, "refusal", at::kFloat);
    change(a);
    run_talking_heads(a);
  };
  return {id, call, std::move(says)};
}

// A call with another tensor in one place.
Refusal refused_tensor(const std::string& id, const std::string& name, std::vector<int64_t> shape,
                       std::vector<std::string> says) {
  return refused(
      id, [=](Arguments& a) { a.set(name, at::ones(shape)); }, std::move(says));
}

std::vector<Refusal> packing_refusals() {
  const auto bounds = [](std::vector<int64_t> values) { return at::tensor(values, at::kLong); };
  const auto pack = [bounds](Arguments& a, std::vector<int64_t> q, std::vector<int64_t> k) {
    for (const char* name : {"q", "k", "v"}) a.set(name, a[name].narrow(0, 0, 1));
    a.set("cu_seqlens_q", bounds(std::move(q)));
    a.set("cu_seqlens_k", bounds(std::move(k)));
  };
  return {
      refused("one_boundary",
              [=](Arguments& a) {
                a.set("cu_seqlens_q", bounds({0, 5}));
              },
              {"both of cu_seqlens_q and cu_seqlens_k"}),
      refused("packed_batch",
              [=](Arguments& a) {
                a.set("cu_seqlens_q", bounds({0, 5}));
                a.set("cu_seqlens_k", bounds({0, 5}));
              },
              {"B = 1 with cu_seqlens", "B = 2", "Concatenate"}),
      refused("packed_bias",
              [=](Arguments& a) {
                pack(a, {0, 5}, {0, 5});
                a.set("bias", at::ones({5, 5}));
              },
              {"no bias with cu_seqlens", "relative_bias"}),
      refused("boundaries_end",
              [=](Arguments& a) {
                pack(a, {0, 4}, {0, 5});
              },
              {"cu_seqlens_q to start at 0 and end at the packed length 5"}),
      refused("boundaries_count",
              [=](Arguments& a) {
                pack(a, {0, 2, 5}, {0, 5});
              },
              {"cu_seqlens_k for 2 sequences", "1"}),
  };
}

std::vector<Refusal> refusals() {
  std::vector<Refusal> all{
      refused_tensor("three_axes", "q", {2, 5, 4}, {"q of shape [B, K, Tq, D]", "[2, 5, 4]"}),
      refused_tensor("other_width", "k", {2, 2, 5, 6}, {"k of shape", "D = 4 as in q"}),
      refused_tensor("other_length", "v", {2, 4, 6, 4}, {"v of shape", "Tk = 5 as in k"}),
      refused("no_heads",
              [](Arguments& a) {
                a.set("q", at::ones({2, 0, 5, 4}));
                a.set("k", at::ones({2, 0, 5, 4}));
              },
              {"at least one head", "K = 0"}),
      refused_tensor("no_softmax_heads", "logits_proj", {2, 0},
                     {"at least one head of the softmax", "H = 0"}),
      refused("other_dtype", [](Arguments& a) { a.set("v", a["v"].to(at::kDouble)); },
              {"v of the dtype of q", "Double"}),
      refused("integers", [](Arguments& a) { a.set("q", a["q"].to(at::kLong)); },
              {"float64, float32, bfloat16 or float16", "Long"}),
      refused_tensor("logits_axes", "logits_proj", {3},
                     {"logits_proj of shape [K, heads] or [g, K / g, heads / g]", "[3]"}),
      refused_tensor("logits_heads", "logits_proj", {3, 3}, {"logits_proj for 2 heads", "[3, 3]"}),
      refused_tensor("groups", "logits_proj", {2, 2, 3}, {"logits_proj for 2 heads"}),
      refused_tensor("weights_heads", "weights_proj", {2, 4}, {"weights_proj for 3 heads"}),
      refused_tensor("value_heads", "weights_proj", {3, 5},
                     {"v with the heads that leave the mixes, V = 5", "V = 4"}),
      refused("unmixed_heads", [](Arguments& a) { a.erase("weights_proj"); },
              {"V = 3", "V = 4", "Pass weights_proj"}),
      refused_tensor("dynamic_shape", "x2l", {2, 4, 2, 3}, {"x2l of shape", "Tq = 5"}),
      refused("dynamic_alone",
              [](Arguments& a) {
                a.erase("weights_proj");
                a.set("m2w", at::ones({2, 5, 3, 4}));
              },
              {"weights_proj with m2w", "none"}),
      refused_tensor("mask_dtype", "key_padding_mask", {2, 5},
                     {"key_padding_mask of dtype bool", "Float"}),
      refused_tensor("bias_shape", "bias", {4, 5, 5}, {"bias to broadcast to [B, H, Tq, Tk]"}),
      refused_tensor("relative_shape", "relative_bias", {3, 10},
                     {"relative_bias of shape [H or 1, Tq + Tk - 1]", "[3, 10]"}),
      refused("probability", [](Arguments& a) { a.options["dropout_p"] = 1.0; },
              {"dropout_p in [0, 1)", "1"}),
      refused("site", [](Arguments& a) { a.options["dropout_site"] = std::string("somewhere"); },
              {"\"after_mix\", \"before_mix\" or \"per_key\"", "somewhere"}),
      refused("no_seed",
              [](Arguments& a) {
                a.options["dropout_p"] = 0.5;
                a.set("seed", at::ones({1}));
              },
              {"0-dim int64"}),
  };
  for (Refusal& refusal : packing_refusals()) all.push_back(std::move(refusal));
  return all;
}

Operator talking_heads() {
  Operator op;
  op.name = "talking_heads_attention";
  op.run = run_talking_heads;
  op.reference = talking_heads_by_reference;
  op.cases = cases();
  op.of_length = [](int64_t n) {
    return make("", Sizes{.B = 1, .V = 2, .Tq = n, .Tk = n, .D = 3, .E = n % 2 ? 3 : 2}.inputs(),
                {{"causal", true}});
  };
  op.refusals = refusals();
  op.golden = "talking_heads.txt";
  op.padding_may_be_nan = false;
  op.dropout_option = "dropout_p";
  op.dropout_multipliers = dropout_multipliers;
  return op;
}

const bool kJoined = join(talking_heads());

}  // namespace
}  // namespace headloom::testing
