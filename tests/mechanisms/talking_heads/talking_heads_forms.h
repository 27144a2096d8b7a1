#pragma once

#include "headloom/mechanisms/talking_heads/talking_heads_driver.h"
#include "tests/mechanisms/talking_heads/talking_heads_cases.h"

// Calls through one way of computing them, and what all ways have to agree on.
namespace headloom::testing {

using kernels::TalkingHeadsTuning;

// A call, and the tensors in it in the order of talking_heads_inputs().
struct Everything {
  std::vector<at::Tensor> inputs;
  TalkingHeadsCall call;
};

// A call with everything in it, of sizes that are no multiple of anything.
inline Everything everything(at::ScalarType type, bool causal) {
  const TalkingHeadsCase sizes{
      .B = 2, .K = 4, .H = 6, .V = 2, .Tq = 75, .Tk = 101, .D = 9, .E = 7, .groups = 2};
  std::vector<Input> more{plain("bias", {2, 6, 75, 101}), plain("relative_bias", {6, 175}),
                          seed(5)};
  for (const char* name : {"x2l", "m2l", "x2w", "m2w"}) more.push_back(sizes.dynamic(name));
  const Arguments a = make_arguments(
      sizes.inputs(more),
      {{"causal", causal}, {"dropout_p", 0.2}, {"dropout_site", std::string("before_mix")}},
      "everything", type);
  Everything made;
  made.call = talking_heads_options(a);
  made.call.key_padding_mask = normal("mask", {2, 101}) > 0.8;
  made.inputs = talking_heads_inputs(a["q"], a["k"], a["v"], made.call);
  return made;
}

inline TalkingHeadsWanted all_given(const Everything& e) {
  TalkingHeadsWanted wanted;
  for (size_t i = 0; i < wanted.size(); ++i) wanted[i] = e.inputs[i].defined();
  return wanted;
}

inline std::vector<at::Tensor> run_fused(const Everything& e, const TalkingHeadsTuning& tuning) {
  const at::Tensor &q = e.inputs[0], &k = e.inputs[1], &v = e.inputs[2];
  const auto [out, log2_sums] = fused_talking_heads(q, k, v, e.call, true, tuning);
  const at::Tensor grad = normal("grad", out.sizes()).to(out.scalar_type());
  std::vector<at::Tensor> results =
      fused_talking_heads_backward(grad, q, k, v, log2_sums, all_given(e), e.call, tuning);
  results.push_back(out);
  results.push_back(log2_sums);
  return results;
}

inline std::vector<at::Tensor> run_tiled(const Everything& e) {
  const at::Tensor &q = e.inputs[0], &k = e.inputs[1], &v = e.inputs[2];
  const auto [out, log2_sums] = tiled_talking_heads(q, k, v, e.call);
  const at::Tensor grad = normal("grad", out.sizes()).to(out.scalar_type());
  std::vector<at::Tensor> results =
      tiled_talking_heads_backward(grad, q, k, v, all_given(e), e.call);
  results.push_back(out);
  results.push_back(log2_sums);
  return results;
}

// Sums of many terms: their rounding is that of the largest gradient.
inline void expect_agreement(const std::vector<at::Tensor>& found,
                             const std::vector<at::Tensor>& exact) {
  ASSERT_EQ(found.size(), exact.size());
  double scale = 0.0;
  for (const at::Tensor& tensor : exact) {
    scale = std::max(scale, magnitude(tensor.masked_fill(tensor.isinf(), 0.0)));
  }
  for (size_t i = 0; i < found.size(); ++i) {
    const at::Tensor seen = exact[i].isinf();
    const auto difference = differs_by_more_than_rounding(found[i].masked_fill(seen, 0.0),
                                                          exact[i].masked_fill(seen, 0.0), scale);
    EXPECT_FALSE(difference) << "result " << i << ": " << *difference;
  }
}

inline std::vector<at::Tensor> doubles(const Everything& e) {
  Everything wide = e;
  for (at::Tensor& input : wide.inputs) {
    if (input.defined()) input = input.to(at::kDouble);
  }
  wide.call = with_inputs(e.call, wide.inputs);
  return run_tiled(wide);
}

// A call of 12 heads of 64 as the driver sees it.
struct Planned {
  kernels::TalkingHeadsRun forward, backward;
};
inline Planned planned(int64_t length, bool dynamic, const TalkingHeadsTuning& tuning,
                       int threads = 2) {
  static const float kGiven = 1.0f;  // only looked at for being there
  kernels::TalkingHeadsArgs<float> args;
  args.key_heads = args.heads = args.value_heads = 12;
  args.queries = args.keys = length;
  args.key_width = args.value_width = 64;
  args.logits =
      args.weights = {1, 12, 12, &kGiven, dynamic ? &kGiven : nullptr, dynamic ? &kGiven : nullptr};
  const std::vector<kernels::AttentionSegment> segments{{0, 0, length, 0, length, 0}};
  const kernels::Isa isa = kernels::active_isa();
  return {kernels::plan_talking_heads_forward(args, segments, tuning, isa, threads),
          kernels::plan_talking_heads_backward(args, segments, {}, tuning, isa, threads)};
}

}  // namespace headloom::testing
