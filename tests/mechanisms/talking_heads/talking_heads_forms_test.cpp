// The ways in which the processor computes a call agree: instruction sets, sizes of tiles, strip
// and two-pass form on both sides of the switch, teams of workers; and the tiles of other devices.
#include "headloom/base/check.h"
#include "headloom/mechanisms/talking_heads/talking_heads_driver.h"
#include "tests/mechanisms/talking_heads/talking_heads_cases.h"
#include "tests/support/memory.h"

namespace headloom::testing {
namespace {

using at::Tensor;
using kernels::TalkingHeadsTuning;

struct Everything {
  std::vector<Tensor> inputs, results;  // results: O and the gradients of all inputs given
  TalkingHeadsCall call;
};

// A call with everything in it, of sizes that are no multiple of anything.
Everything everything(at::ScalarType type, bool causal) {
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

TalkingHeadsWanted all_wanted() {
  TalkingHeadsWanted wanted;
  wanted.fill(true);
  return wanted;
}

std::vector<Tensor> run_fused(const Everything& e, const TalkingHeadsTuning& tuning) {
  const Tensor &q = e.inputs[0], &k = e.inputs[1], &v = e.inputs[2];
  const auto [out, log2_sums] = fused_talking_heads(q, k, v, e.call, true, tuning);
  const Tensor grad = normal("grad", out.sizes()).to(out.scalar_type());
  std::vector<Tensor> results =
      fused_talking_heads_backward(grad, q, k, v, log2_sums, all_wanted(), e.call, tuning);
  results.push_back(out);
  results.push_back(log2_sums);
  return results;
}

std::vector<Tensor> run_tiled(const Everything& e) {
  const Tensor &q = e.inputs[0], &k = e.inputs[1], &v = e.inputs[2];
  const auto [out, log2_sums] = tiled_talking_heads(q, k, v, e.call);
  const Tensor grad = normal("grad", out.sizes()).to(out.scalar_type());
  std::vector<Tensor> results = tiled_talking_heads_backward(grad, q, k, v, all_wanted(), e.call);
  results.push_back(out);
  results.push_back(log2_sums);
  return results;
}

// Sums of many terms: their rounding is that of the largest gradient.
void expect_agreement(const std::vector<Tensor>& found, const std::vector<Tensor>& exact) {
  ASSERT_EQ(found.size(), exact.size());
  double scale = 0.0;
  for (const Tensor& tensor : exact) {
    scale = std::max(scale, magnitude(tensor.masked_fill(tensor.isinf(), 0.0)));
  }
  for (size_t i = 0; i < found.size(); ++i) {
    const Tensor seen = exact[i].isinf();
    const auto difference = differs_by_more_than_rounding(found[i].masked_fill(seen, 0.0),
                                                          exact[i].masked_fill(seen, 0.0), scale);
    EXPECT_FALSE(difference) << "result " << i << ": " << *difference;
  }
}

std::vector<Tensor> doubles(const Everything& e) {
  Everything wide = e;
  for (Tensor& input : wide.inputs) input = input.to(at::kDouble);
  wide.call = with_inputs(e.call, wide.inputs);
  return run_tiled(wide);
}

TEST(TalkingHeadsForms, InstructionSetsAndTypesAgree) {
  const kernels::Isa before = kernels::active_isa();
  for (const at::ScalarType type : {at::kDouble, at::kFloat, at::kBFloat16, at::kHalf}) {
    const Everything e = everything(type, true);
    const std::vector<Tensor> exact = doubles(e);
    for (const kernels::Isa isa : kernels::available_isas()) {
      SCOPED_TRACE(cat(type, " ", kernels::name(isa)));
      kernels::use_isa(isa);
      expect_agreement(run_fused(e, {}), exact);
    }
  }
  kernels::use_isa(before);
}

TEST(TalkingHeadsForms, StripAndTwoPassesAgreeAtTheSwitch) {
  for (const bool causal : {false, true}) {
    const Everything e = everything(at::kDouble, causal);
    const std::vector<Tensor> exact = run_tiled(e);
    TalkingHeadsTuning tuning;
    tuning.tile_queries = 32;
    tuning.tile_keys = 16;
    // Seven tiles of 16 keys, 32 queries in 6 and 4 + 2 * 6 heads of 8 bytes.
    const int64_t forward = 7 * 16 * 32 * 6 * 8, backward = 7 * 16 * 32 * 16 * 8;
    for (const int64_t less : {0, 1}) {
      SCOPED_TRACE(cat(causal ? "causal, " : "", less ? "two passes" : "strip"));
      tuning.forward_strip_bytes = forward - less;
      tuning.backward_strip_bytes = backward - less;
      expect_agreement(run_fused(e, tuning), exact);
    }
  }
}

TEST(TalkingHeadsForms, TilesOfAnySizeAgree) {
  const Everything e = everything(at::kDouble, true);
  const std::vector<Tensor> exact = run_tiled(e);
  for (const int64_t queries : {16, 48, 64, 128}) {
    for (const int64_t keys : {1, 24, 101, 200}) {
      SCOPED_TRACE(cat(queries, " queries, ", keys, " keys"));
      TalkingHeadsTuning tuning;
      tuning.tile_queries = queries;
      tuning.tile_keys = keys;
      expect_agreement(run_fused(e, tuning), exact);
    }
  }
}

TEST(TalkingHeadsForms, OneWorkerWhereSumsAreDear) {
  const Everything e = everything(at::kDouble, false);
  TalkingHeadsTuning dear;
  dear.sums_bytes = 1;
  dear.tile_queries = 16;
  expect_agreement(run_fused(e, dear), run_tiled(e));
}

// A call of 12 heads of 64 as the driver sees it.
struct Planned {
  kernels::TalkingHeadsRun forward, backward;
};
Planned planned(int64_t length, bool dynamic, const TalkingHeadsTuning& tuning) {
  static const float kGiven = 1.0f;  // only looked at for being there
  kernels::TalkingHeadsArgs<float> args;
  args.key_heads = args.heads = args.value_heads = 12;
  args.queries = args.keys = length;
  args.key_width = args.value_width = 64;
  args.logits =
      args.weights = {1, 12, 12, &kGiven, dynamic ? &kGiven : nullptr, dynamic ? &kGiven : nullptr};
  const std::vector<kernels::AttentionSegment> segments{{0, 0, length, 0, length, 0}};
  const kernels::Isa isa = kernels::active_isa();
  return {kernels::plan_talking_heads_forward(args, segments, tuning, isa, 2),
          kernels::plan_talking_heads_backward(args, segments, {}, tuning, isa, 2)};
}

TEST(TalkingHeadsForms, FormIsChosenByTheSizeOfTheStrip) {
  const Planned shorter = planned(1024, false, {}), longer = planned(65536, false, {});
  EXPECT_GT(shorter.forward.plan.strip_tiles, 0);
  EXPECT_GT(shorter.backward.plan.strip_tiles, 0);
  EXPECT_EQ(longer.forward.plan.strip_tiles, 0);
  EXPECT_EQ(longer.backward.plan.strip_tiles, 0);
}

// Also with dynamic projections: no matrix for a pair.
TEST(TalkingHeadsForms, TwoPassWorkspaceDoesNotGrow) {
  TalkingHeadsTuning tuning;
  tuning.forward_strip_bytes = tuning.backward_strip_bytes = 0;
  for (const bool dynamic : {false, true}) {
    SCOPED_TRACE(dynamic ? "dynamic" : "static");
    const Planned shorter = planned(4096, dynamic, tuning),
                  longer = planned(65536, dynamic, tuning);
    EXPECT_EQ(shorter.forward.workspace, longer.forward.workspace);
    EXPECT_EQ(shorter.backward.workspace, longer.backward.workspace);
  }
}

// What other devices run: 400 queries are cut into tiles of 119.
TEST(TalkingHeadsForms, TilesOfQueriesThroughTheReferenceAgree) {
  const TalkingHeadsCase sizes{
      .B = 1, .K = 2, .H = 8, .V = 2, .Tq = 400, .Tk = 1100, .D = 4, .E = 3};
  const Arguments a = make_arguments(sizes.inputs({sizes.dynamic("x2l"), sizes.dynamic("m2w"),
                                                   plain("relative_bias", {8, 1499}), seed(5)}),
                                     {{"causal", true}, {"dropout_p", 0.2}}, "tiles", at::kDouble);
  Everything e;
  e.call = talking_heads_options(a);
  e.inputs = talking_heads_inputs(a["q"], a["k"], a["v"], e.call);
  TalkingHeadsWanted wanted = all_wanted();
  wanted[kBiasInput] = false;
  for (const size_t i : {6, 7}) wanted[i] = false;  // not given
  const Tensor &q = e.inputs[0], &k = e.inputs[1], &v = e.inputs[2];
  const auto [fused, fused_sums] = fused_talking_heads(q, k, v, e.call, true);
  const auto [tiled, tiled_sums] = tiled_talking_heads(q, k, v, e.call);
  expect_agreement({tiled, tiled_sums}, {fused, fused_sums});
  const Tensor grad = normal("grad", fused.sizes());
  auto found = tiled_talking_heads_backward(grad, q, k, v, wanted, e.call);
  auto exact = fused_talking_heads_backward(grad, q, k, v, fused_sums, wanted, e.call);
  for (std::vector<Tensor>* gradients : {&found, &exact}) {
    std::erase_if(*gradients, [](const Tensor& gradient) { return gradient.numel() == 0; });
  }
  ASSERT_EQ(exact.size(), 8u);
  expect_agreement(found, exact);
}

// 8 heads of 2048 x 2048 logits are 128 MiB a tensor, and an unfused backward pass holds several.
TEST(TalkingHeadsForms, TilesOfQueriesKeepMemoryBounded) {
  const auto tokens = [](const char* name) { return normal(name, {1, 8, 2048, 8}).to(at::kFloat); };
  const Tensor q = tokens("q"), k = tokens("k"), v = tokens("v");
  TalkingHeadsCall call;
  call.logits_proj = call.weights_proj = normal("mix", {8, 8}).to(at::kFloat);
  TalkingHeadsWanted wanted{};
  for (size_t i = 0; i < 5; ++i) wanted[i] = true;
  const int64_t logits = int64_t{8} * 2048 * 2048 * 4;
  EXPECT_LT(peak_extra_bytes([&] { tiled_talking_heads(q, k, v, call); }), logits);
  EXPECT_LT(peak_extra_bytes([&] { tiled_talking_heads_backward(q, q, k, v, wanted, call); }),
            2 * logits);
}

}  // namespace
}  // namespace headloom::testing
