// The ways in which the processor computes a call agree: instruction sets, sizes of tiles, strip
// and two-pass form on both sides of the switch, teams of workers; and the tiles of other devices.
#include "tests/mechanisms/talking_heads/talking_heads_forms.h"
#include "headloom/base/check.h"
#include "tests/support/memory.h"

namespace headloom::testing {
namespace {

using at::Tensor;

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
  TalkingHeadsWanted wanted = all_given(e);
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
