#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "headloom/base/check.h"
#include "headloom/mechanisms/h_transformer/h_transformer_decoding.h"
#include "headloom/mechanisms/h_transformer/h_transformer_module.h"
#include "tests/support/arguments.h"
#include "tests/support/closeness.h"

namespace headloom::testing {
namespace {

using at::Tensor;

struct Tokens {
  Tensor q, k, v;

  explicit Tokens(int64_t time, at::ScalarType type = at::kDouble) {
    const auto make = [&](const char* name, int64_t width) {
      return normal(name, {2, 2, time, width}).to(type);
    };
    q = make("q", 3);
    k = make("k", 3);
    v = make("v", 5);
  }
  Tensor step(HAttentionState& state, int64_t begin, int64_t count) const {
    const auto part = [&](const Tensor& x) { return x.narrow(2, begin, count); };
    return state.step(part(q), part(k), part(v));
  }
};

HAttentionOptions options_of(int64_t block, bool fine, bool bias) {
  HAttentionOptions options;
  options.block_size = block;
  options.causal = true;
  if (fine) options.query_mode = "fine";
  if (bias) options.bias = normal("bias", {2, 4 * block - 1});
  return options;
}

void expect_close(const Tensor& found, const Tensor& exact, const std::string& where) {
  const Difference difference = differs_by_more_than_rounding(found, exact);
  EXPECT_FALSE(difference) << where << ": " << *difference;
}

TEST(HAttentionDecoding, StepsEqualTheWholePass) {
  for (const auto& [block, fine, bias] : std::vector<std::tuple<int64_t, bool, bool>>{
           {2, false, false}, {4, false, true}, {6, true, true}, {16, false, false}}) {
    const int64_t time = 150;
    const Tokens x(time);
    const HAttentionOptions options = options_of(block, fine, bias);
    const Tensor whole = h_attention(x.q, x.k, x.v, options);
    // One by one from the start, and after first steps of every kind of length.
    const std::vector<int64_t> prefixes{0, 1, 2 * block, 2 * block + 1, 4 * block, 8 * block - 1,
                                        77};
    for (const int64_t prefix : prefixes) {
      HAttentionState state(options);
      std::vector<Tensor> outs;
      if (prefix > 0) outs.push_back(x.step(state, 0, prefix));
      for (int64_t t = prefix; t < time;) {
        const int64_t count = std::min<int64_t>(t % 5 == 0 ? 3 : 1, time - t);
        outs.push_back(x.step(state, t, count));
        t += count;
      }
      EXPECT_EQ(state.length(), time);
      expect_close(at::cat(outs, 2), whole, cat("block ", block, ", first step ", prefix));
    }
  }
}

TEST(HAttentionDecoding, RowsOfTheBatchCanChangePlaces) {
  const Tokens x(90);
  const HAttentionOptions options = options_of(4, false, true);
  const Tensor index = at::tensor({1, 1, 0});
  const auto swapped = [&](const Tensor& y) {
    return at::cat({y.narrow(2, 0, 53).index_select(0, index),
                    y.narrow(2, 53, 37).index_select(0, at::tensor({0, 1, 0}))},
                   2);
  };
  Tokens other = x;
  other.q = swapped(x.q);
  other.k = swapped(x.k);
  other.v = swapped(x.v);
  HAttentionState state(options);
  x.step(state, 0, 50);
  for (int64_t t = 50; t < 53; ++t) x.step(state, t, 1);
  state.reorder(index);
  std::vector<Tensor> outs;
  for (int64_t t = 53; t < 90; ++t) outs.push_back(other.step(state, t, 1));
  expect_close(at::cat(outs, 2), h_attention(other.q, other.k, other.v, options).narrow(2, 53, 37),
               "reordered");
}

TEST(HAttentionDecoding, CacheAndReadsAreLogarithmic) {
  constexpr int64_t kBlock = 4, kLevels = 9, kTime = kBlock << kLevels;  // 2048
  const Tokens x(kTime, at::kFloat);
  HAttentionState state(options_of(kBlock, false, false));
  int64_t levels = 1;
  for (int64_t t = 0; t < kTime; ++t) {
    x.step(state, t, 1);
    while ((kBlock << levels) < t + 1) ++levels;
    ASSERT_LE(state.entries(), 2 * kBlock * levels) << "after " << t + 1;
  }
  EXPECT_EQ(levels, kLevels);
  const double per_token = static_cast<double>(state.keys_read()) / kTime;
  EXPECT_LE(per_token, 2.25 * kBlock + 1);
  EXPECT_GE(per_token, 2 * kBlock);
  // 2 R rows a level, however long the sequence.
  const int64_t bytes = state.bytes();
  EXPECT_LE(bytes, kLevels * 2 * 2 * (2 * kBlock * (3 + 5) + 1 + 5) * 4);
  for (int64_t t = 0; t < 100; ++t) x.step(state, t, 1);
  EXPECT_LE(state.bytes(), bytes / kLevels * (kLevels + 1));
}

TEST(HAttentionDecoding, HalvesStayWide) {
  const Tokens x(40, at::kBFloat16);
  HAttentionState state(options_of(4, false, false));
  std::vector<Tensor> outs;
  for (int64_t t = 0; t < 40; ++t) outs.push_back(x.step(state, t, 1));
  const auto wide = [](const Tensor& y) { return y.to(at::kDouble); };
  EXPECT_EQ(outs[0].scalar_type(), at::kBFloat16);
  expect_close(at::cat(outs, 2),
               h_attention(wide(x.q), wide(x.k), wide(x.v), options_of(4, false, false)), "bf16");
}

std::string refusal(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(HAttentionDecoding, Refusals) {
  const auto build = [](const std::function<void(HAttentionOptions&)>& change) {
    return refusal([&] {
      HAttentionOptions options;
      change(options);
      HAttentionState state(options);
    });
  };
  EXPECT_NE(build([](auto& o) {
              o.key_padding_mask = at::zeros({1, 1}, at::kBool);
            }).find("without padding"),
            std::string::npos);
  EXPECT_NE(build([](auto& o) { o.dropout_p = 0.5; }).find("neither dropout_p"), std::string::npos);
  HAttentionState state(options_of(4, false, false));
  const Tokens x(3);
  EXPECT_NE(refusal([&] { x.step(state, 0, 0); }).find("at least one token"), std::string::npos);
  x.step(state, 0, 1);
  const Tensor wide = at::ones({2, 2, 1, 7}, at::kDouble);
  EXPECT_NE(refusal([&] { state.step(wide, wide, wide); }).find("keys like those before"),
            std::string::npos);
}

std::shared_ptr<TokenMixer> mixer(const Options& options, bool causal = false) {
  MixerConfig config;
  config.dim = 12;
  config.heads = 2;
  config.causal = causal;
  const auto built = make_mixer("h_transformer", config, options);
  built->eval();
  return built;
}

TEST(HTransformerMixer, CrossOfEqualLengths) {
  at::manual_seed(1);
  const auto built = mixer({{"block_size", int64_t{2}}});
  const Tensor x = normal("x", {2, 17, 12}).to(at::kFloat);
  const Tensor memory = normal("memory", {2, 17, 12}).to(at::kFloat);
  EXPECT_EQ(built->cross(x, x, {}).sub(built->forward(x, {})).abs().max().item<float>(), 0.0f);
  Tensor mask = at::zeros({2, 17}, at::kBool);
  mask.narrow(1, 3, 5).fill_(true);
  const Tensor out = built->cross(x, memory, mask);
  const Tensor other = memory.masked_fill(mask.unsqueeze(-1), 7.0);
  EXPECT_FALSE(differs_in_bits(built->cross(x, other, mask), out));
  // A query is there although the memory is not.
  EXPECT_GT(out.narrow(1, 3, 5).abs().min().item<float>(), 0.0f);
  EXPECT_NE(refusal([&] {
              built->cross(x, memory.narrow(1, 0, 9), {});
            }).find("a memory of 17 tokens; found 9"),
            std::string::npos);
}

TEST(HTransformerMixer, DropInForDotProduct) {
  MixerConfig config;
  config.dim = 12;
  config.heads = 2;
  config.causal = true;
  const auto plain = make_mixer("dot_product", config, {});
  const auto built =
      make_mixer("h_transformer", config,
                 {{"bias", true}, {"relative_bias", false}, {"init", std::string("xavier")}});
  const at::NoGradGuard off;
  const auto from = plain->named_parameters();
  for (const auto& entry : built->named_parameters()) entry.value().copy_(from[entry.key()]);
  const Tensor x = normal("x", {2, 32, 12}).to(at::kFloat);
  const auto difference =
      differs_by_more_than_rounding(built->forward(x, {}), plain->forward(x, {}));
  EXPECT_FALSE(difference) << *difference;
}

TEST(HTransformerMixer, CausalCentringLeavesOutTheBiasOfTheKeys) {
  const Options options{{"center_keys", true}, {"bias", true}};
  const auto names = [&](bool causal) {
    std::vector<std::string> found;
    const auto built = mixer(options, causal);
    for (const auto& entry : built->named_parameters()) {
      if (entry.key() == "k_proj.bias") found.push_back(entry.key());
    }
    return found.size();
  };
  EXPECT_EQ(names(true), 0u);
  EXPECT_EQ(names(false), 1u);
  EXPECT_TRUE(
      mixer(options, true)->forward(at::ones({1, 40, 12}), {}).isfinite().all().item<bool>());
}

TEST(HTransformerMixer, RefusesOddBlocks) {
  EXPECT_NE(refusal([] {
              mixer({{"block_size", int64_t{7}}});
            }).find("even block_size"),
            std::string::npos);
}

}  // namespace
}  // namespace headloom::testing
