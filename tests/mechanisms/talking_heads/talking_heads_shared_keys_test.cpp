// Workers that share the keys of each tile of queries in the backward pass: they agree with the
// reference whatever falls to each of them, on both sides of the switch, and with themselves.
#include "headloom/base/check.h"
#include "tests/mechanisms/talking_heads/talking_heads_forms.h"
#include "tests/support/with_threads.h"

namespace headloom::testing {
namespace {

using at::Tensor;

// 16 queries and `keys` keys a tile.
TalkingHeadsTuning shared(int64_t keys) {
  TalkingHeadsTuning tuning;
  tuning.tile_queries = 16;
  tuning.tile_keys = keys;
  tuning.share_keys = true;
  return tuning;
}

// 101 keys are 7 tiles of 16, which falls unevenly to most numbers of workers, and 3 of 48.
void expect_shares_agree(const Everything& e) {
  const std::vector<Tensor> exact = run_tiled(e);
  for (int workers = 1; workers <= 5; ++workers) {
    const WithThreads threads(workers);
    for (const int64_t keys : {16, 48}) {
      for (const bool strip : {true, false}) {
        SCOPED_TRACE(cat(workers, " workers, ", keys, " keys", strip ? ", strip" : ""));
        TalkingHeadsTuning tuning = shared(keys);
        if (!strip) tuning.backward_strip_bytes = 0;
        expect_agreement(run_fused(e, tuning), exact);
      }
    }
  }
}

TEST(TalkingHeadsSharedKeys, SharesOfAnySizeAgree) {
  for (const bool causal : {false, true}) {
    SCOPED_TRACE(causal ? "causal" : "all keys");
    expect_shares_agree(everything(at::kDouble, causal));
  }
}

// Biases that several keys or several queries have in common.
TEST(TalkingHeadsSharedKeys, BiasesInCommonAgree) {
  const std::vector<std::vector<int64_t>> shapes{
      {6, 75, 1}, {2, 1, 1, 101}, {75, 101}, {2, 6, 1, 1}};
  for (const std::vector<int64_t>& shape : shapes) {
    SCOPED_TRACE(cat(at::IntArrayRef(shape)));
    Everything e = everything(at::kDouble, true);
    e.inputs[kBiasInput] = normal("common", shape);
    e.call.bias = e.inputs[kBiasInput];
    expect_shares_agree(e);
  }
}

// Sequences of 40, 0 and 61 keys; of 20, 0 and 55 queries.
TEST(TalkingHeadsSharedKeys, PackedSequencesAgree) {
  for (const char* site : {"after_mix", "before_mix", "per_key"}) {
    SCOPED_TRACE(site);
    const TalkingHeadsCase sizes{.B = 1, .K = 2, .H = 3, .V = 4, .Tq = 75, .Tk = 101, .D = 5};
    const Arguments a = make_arguments(
        sizes.inputs({boundaries("cu_seqlens_q", {0, 20, 20, 75}),
                      boundaries("cu_seqlens_k", {0, 40, 40, 101}), sizes.dynamic("x2w"),
                      sizes.dynamic("m2l"), plain("relative_bias", {1, 175}), seed(7)}),
        {{"causal", true}, {"dropout_p", 0.2}, {"dropout_site", std::string(site)}}, "packed",
        at::kDouble);
    Everything e;
    e.call = talking_heads_options(a);
    e.inputs = talking_heads_inputs(a["q"], a["k"], a["v"], e.call);
    expect_shares_agree(e);
  }
}

TEST(TalkingHeadsSharedKeys, InstructionSetsAndTypesAgree) {
  const WithThreads threads(3);
  const kernels::Isa before = kernels::active_isa();
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16, at::kHalf}) {
    const Everything e = everything(type, true);
    const std::vector<Tensor> exact = doubles(e);
    for (const kernels::Isa isa : kernels::available_isas()) {
      SCOPED_TRACE(cat(type, " ", kernels::name(isa)));
      kernels::use_isa(isa);
      expect_agreement(run_fused(e, shared(16)), exact);
    }
  }
  kernels::use_isa(before);
}

TEST(TalkingHeadsSharedKeys, BitsDoNotChangeFromRunToRun) {
  const Everything e = everything(at::kFloat, true);
  for (int workers = 2; workers <= 4; ++workers) {
    SCOPED_TRACE(cat(workers, " workers"));
    const WithThreads threads(workers);
    const std::vector<Tensor> first = run_fused(e, shared(16));
    for (int time = 0; time < 3; ++time) {
      const std::vector<Tensor> again = run_fused(e, shared(16));
      for (size_t i = 0; i < first.size(); ++i) {
        const auto difference = differs_in_bits(again[i], first[i]);
        EXPECT_FALSE(difference) << "result " << i << ": " << *difference;
      }
    }
  }
}

// With 12 heads of 64 in tiles of 64 queries a key takes 9 KiB of a strip, 6 KiB of sums and 6 KiB
// itself: for two workers apart 36 KiB, of which 24 MiB hold 682 keys, together 21 KiB, of which
// they hold 1170.
TEST(TalkingHeadsSharedKeys, KeysAreSharedWhereOnlyThenAllStaysInTheCache) {
  const auto members = [](int64_t length, int threads) {
    return planned(length, false, {}, threads).backward.plan.members;
  };
  EXPECT_EQ(members(640, 2), 1);
  EXPECT_EQ(members(704, 2), 2);
  EXPECT_EQ(members(704, 1), 1);
  EXPECT_EQ(members(704, 3), 1);  // not four tiles of 64 keys for each
  EXPECT_EQ(members(768, 3), 3);
  EXPECT_EQ(members(1152, 2), 2);
  EXPECT_EQ(members(1216, 2), 1);
}

// 1024 keys with 8 heads of 4 in float64, in tiles of 16 queries: 1024 * 16 * 24 * 8 bytes of a
// strip, 1024 * 8 * 8 * 8 of sums and as much of keys and values.
TEST(TalkingHeadsSharedKeys, FormsAgreeAtTheSwitch) {
  const WithThreads threads(2);
  const TalkingHeadsCase sizes{.B = 1, .K = 8, .H = 8, .V = 8, .Tq = 40, .Tk = 1024, .D = 4};
  const Arguments a = make_arguments(sizes.inputs(), {{"causal", true}}, "switch", at::kDouble);
  Everything e;
  e.call = talking_heads_options(a);
  e.inputs = talking_heads_inputs(a["q"], a["k"], a["v"], e.call);
  const std::vector<Tensor> exact = run_tiled(e);
  const int64_t strip = 1024 * 16 * 24 * 8, sums = 1024 * 8 * 8 * 8, keys = sums;
  TalkingHeadsTuning tuning;
  tuning.tile_queries = 16;
  for (const int64_t bytes : {strip + sums + keys - 1, strip + sums + keys,
                              2 * (strip + sums) + keys - 1, 2 * (strip + sums) + keys}) {
    SCOPED_TRACE(cat(bytes, " bytes"));
    tuning.shared_cache_bytes = bytes;
    expect_agreement(run_fused(e, tuning), exact);
  }
}

// One strip and one set of sums for all workers.
TEST(TalkingHeadsSharedKeys, SharingTakesLessMemory) {
  const auto elements = [](bool shares) {
    TalkingHeadsTuning tuning;
    tuning.share_keys = shares;
    return planned(1024, false, tuning).backward.elements();
  };
  const int64_t strip = 3 * 12 * 64 * 1024, sums = 2 * 12 * 64 * 1024;
  EXPECT_LE(elements(true), elements(false) - strip - sums);
}

}  // namespace
}  // namespace headloom::testing
