// What must hold whatever the numbers: coverage, rows that sum to one, symmetries, special inputs.
#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <functional>

#include "headloom/base/check.h"
#include "headloom/kernels/isa.h"
#include "headloom/mechanisms/h_transformer/h_transformer.h"
#include "headloom/mechanisms/h_transformer/h_transformer_kernels.h"
#include "headloom/mechanisms/h_transformer/h_transformer_reference.h"
#include "tests/support/arguments.h"
#include "tests/support/closeness.h"

namespace headloom::testing {
namespace {

using at::Tensor;

struct Qkv {
  Tensor q, k, v;
};
Qkv random(int64_t time, at::ScalarType type = at::kDouble, int64_t width = 6) {
  const auto make = [&](const char* name) { return normal(name, {2, 2, time, width}).to(type); };
  return {make("q"), make("k"), make("v")};
}

void expect_close(const Tensor& found, const Tensor& exact) {
  const Difference difference = differs_by_more_than_rounding(found, exact);
  EXPECT_FALSE(difference) << *difference;
}

// Pairs of rows that meet, over all levels.
int64_t scored_pairs(int64_t time, int64_t block, bool causal) {
  Tensor level_of = h_attention_level_of(time, block, at::kCPU);
  if (causal) level_of = level_of.tril() + at::ones({time, time}, at::kLong).triu(1) * -1;
  int64_t pairs = 0;
  for (int64_t l = 0; l <= level_of.max().item<int64_t>(); ++l) {
    pairs += (level_of == l).sum().item<int64_t>() >> (2 * l);
  }
  return pairs;
}

TEST(HAttentionIdentities, PairsAreThoseOfTheFormulas) {
  EXPECT_EQ(scored_pairs(64, 4, false), 1000);
  EXPECT_EQ(scored_pairs(64, 4, true), 532);
  EXPECT_EQ(scored_pairs(256, 8, false), 8512);
  EXPECT_EQ(scored_pairs(256, 8, true), 4384);
  EXPECT_EQ(scored_pairs(32, 4, false), 448);
  EXPECT_EQ(scored_pairs(32, 4, true), 240);
}

TEST(HAttentionIdentities, ShortSequencesGetFullAttention) {
  const Qkv x = random(31);
  const Tensor exact =
      at::matmul((at::matmul(x.q, x.k.transpose(-1, -2)) / std::sqrt(6.0)).softmax(-1), x.v);
  for (const char* mode : {"coarse", "fine"}) {
    for (const bool center : {false, true}) {
      HAttentionOptions options;
      options.query_mode = mode;
      options.center_keys = center;
      expect_close(h_attention(x.q, x.k, x.v, options), exact);
    }
  }
}

TEST(HAttentionIdentities, RowsSumToOne) {
  const Qkv x = random(77);
  for (const bool causal : {false, true}) {
    HAttentionOptions options;
    options.block_size = 4;
    options.causal = causal;
    expect_close(h_attention(x.q, x.k, at::ones_like(x.v), options), at::ones_like(x.v));
    expect_close(h_attention_weights(x.q, x.k, options).sum(-1), at::ones({2, 2, 77}, at::kDouble));
  }
}

TEST(HAttentionIdentities, WithoutQueriesTheMean) {
  const Qkv x = random(77);
  HAttentionOptions options;
  options.block_size = 4;
  expect_close(h_attention(at::zeros_like(x.q), x.k, x.v, options),
               x.v.mean(2, true).expand_as(x.v));
  options.causal = true;
  const Tensor count = at::arange(1, 78, at::kDouble).unsqueeze(-1);
  expect_close(h_attention(x.q, at::zeros_like(x.k), x.v, options), x.v.cumsum(2) / count);
}

TEST(HAttentionIdentities, ConstantKeysGiveTheMeanWithFineQueries) {
  const Qkv x = random(77);
  HAttentionOptions options;
  options.block_size = 4;
  options.query_mode = "fine";
  expect_close(h_attention(x.q, at::ones_like(x.k), x.v, options),
               x.v.mean(2, true).expand_as(x.v));
}

TEST(HAttentionIdentities, CenteringUndoesAnOffsetOfTheKeys) {
  const Qkv x = random(77);
  HAttentionOptions options;
  options.block_size = 4;
  options.center_keys = true;
  expect_close(h_attention(x.q, x.k + 3.0, x.v, options), h_attention(x.q, x.k, x.v, options));
}

TEST(HAttentionIdentities, ConstantGroupsGiveFullAttention) {
  // 64 tokens, R = 4: 4 levels, the coarsest groups hold 8 tokens.
  const auto constant = [](const Tensor& x) { return x.narrow(2, 0, 8).repeat_interleave(8, 2); };
  const Qkv x = random(64);
  const Tensor q = constant(x.q), k = constant(x.k);
  HAttentionOptions options;
  options.block_size = 4;
  expect_close(h_attention(q, k, x.v, options),
               at::matmul((at::matmul(q, k.transpose(-1, -2)) / std::sqrt(6.0)).softmax(-1), x.v));
}

TEST(HAttentionIdentities, ReversedInputsGiveReversedOutputs) {
  const Qkv x = random(64);
  HAttentionOptions options;
  options.block_size = 4;
  options.bias = normal("bias", {2, 15});
  HAttentionOptions mirrored = options;
  mirrored.bias = options.bias->flip(1);
  expect_close(h_attention(x.q.flip(2), x.k.flip(2), x.v.flip(2), mirrored),
               h_attention(x.q, x.k, x.v, options).flip(2));
}

TEST(HAttentionIdentities, CausalPrefixesDoNotChange) {
  const Qkv x = random(300, at::kFloat);
  HAttentionOptions options;
  options.block_size = 4;
  options.causal = true;
  const Tensor whole = h_attention(x.q, x.k, x.v, options);
  for (const int64_t length : {1, 7, 8, 9, 33, 64, 130, 257}) {
    const auto part = [&](const Tensor& y) { return y.narrow(2, 0, length); };
    const auto difference = differs_in_bits(h_attention(part(x.q), part(x.k), part(x.v), options),
                                            part(whole).contiguous());
    EXPECT_FALSE(difference) << length << ": " << *difference;
  }
}

TEST(HAttentionIdentities, MaskedEndIsAShorterSequence) {
  const Qkv x = random(77);
  Tensor mask = at::zeros({2, 77}, at::kBool);
  mask.narrow(1, 50, 27).fill_(true);
  for (const bool causal : {false, true}) {
    HAttentionOptions options;
    options.block_size = 4;
    options.causal = causal;
    const auto part = [](const Tensor& y) { return y.narrow(2, 0, 50); };
    const Tensor shorter = h_attention(part(x.q), part(x.k), part(x.v), options);
    options.key_padding_mask = mask;
    expect_close(part(h_attention(x.q, x.k, x.v, options)), shorter);
  }
}

TEST(HAttentionIdentities, RowsFarBelowTheMaximumAreNormalised) {
  Qkv x = random(64, at::kFloat);
  // The last tokens see only keys that score 200 below what the first ones see.
  const Tensor scale = at::ones({64, 1});
  scale.narrow(0, 0, 8).fill_(10.0);
  x.q = x.q * scale;
  x.k = x.k.abs() + at::where(scale > 1, at::scalar_tensor(20.0), at::scalar_tensor(-20.0));
  HAttentionOptions options;
  options.block_size = 4;
  expect_close(h_attention(x.q, x.k, at::ones_like(x.v), options), at::ones_like(x.v));
}

// Block sizes, widths and lengths across chunks and tiles, on every instruction set.
TEST(HAttentionKernels, EveryBlockSizeAndInstructionSet) {
  const kernels::Isa best = kernels::active_isa();
  for (const kernels::Isa isa : kernels::available_isas()) {
    kernels::use_isa(isa);
    for (const int64_t block : {2, 6, 10, 16, 32, 48, 64, 100, 256}) {
      const int64_t time = block > 100 ? 1300 : 700;
      const auto make = [&](const char* name, int64_t width) {
        return normal(name, {1, 1, time, width}).to(at::kFloat);
      };
      const Tensor q = make("q", 20), k = make("k", 20), v = make("v", 33);
      HAttentionOptions options;
      options.block_size = block;
      options.causal = block % 4 == 0;
      SCOPED_TRACE(cat(kernels::name(isa), ", block ", block));
      expect_close(h_attention(q, k, v, options),
                   h_attention_reference(q.to(at::kDouble), k.to(at::kDouble), v.to(at::kDouble),
                                         h_attention_call(options)));
    }
  }
  kernels::use_isa(best);
}

// Output and gradients of a weighted sum of it.
std::vector<Tensor> differentiated(
    const Qkv& x,
    const std::function<Tensor(const Tensor&, const Tensor&, const Tensor&)>& attend) {
  std::vector<Tensor> leaves;
  for (const Tensor& tensor : {x.q, x.k, x.v}) {
    leaves.push_back(tensor.detach().clone().requires_grad_());
  }
  const Tensor out = attend(leaves[0], leaves[1], leaves[2]);
  std::vector<Tensor> all{out.detach()};
  const Tensor grad = normal("grad", out.sizes().vec()).to(out.scalar_type());
  for (const Tensor& g : torch::autograd::grad({out}, leaves, {grad})) all.push_back(g);
  return all;
}

void expect_same_gradients(const Qkv& x, const HAttentionOptions& options,
                           const std::vector<Tensor>& exact) {
  const auto found = differentiated(x, [&](const Tensor& q, const Tensor& k, const Tensor& v) {
    return h_attention(q, k, v, options);
  });
  for (size_t i = 0; i < exact.size(); ++i) expect_close(found[i], exact[i]);
}

// Three levels and a ragged end for each of the 128 sizes, output and gradients.
TEST(HAttentionKernels, EveryEvenBlockSize) {
  for (int64_t block = 2; block <= 256; block += 2) {
    HAttentionOptions options;
    options.block_size = block;
    options.causal = block % 4 == 0;
    SCOPED_TRACE(cat("block ", block));
    const Qkv x = random(4 * block + 9, at::kDouble, 3);
    expect_same_gradients(x, options,
                          differentiated(x, [&](const Tensor& q, const Tensor& k, const Tensor& v) {
                            return h_attention_reference(q, k, v, h_attention_call(options));
                          }));
  }
}

// From kHAttentionLong tokens on the first level is built anew for each chunk.
TEST(HAttentionKernels, LongSequences) {
  const int64_t time = kernels::kHAttentionLong + 777;
  ASSERT_EQ(kernels::h_attention_shape(time, 4, 3, 3, false, false).stored, 2);
  const auto make = [&](const char* name) { return normal(name, {1, 2, time, 3}); };
  const Qkv x{make("q"), make("k"), make("v")};
  for (const bool causal : {false, true}) {
    HAttentionOptions options;
    options.block_size = 4;
    options.causal = causal;
    SCOPED_TRACE(cat("causal ", causal));
    expect_same_gradients(
        x, options, differentiated(x, [&](const Tensor& q, const Tensor& k, const Tensor& v) {
          return std::get<0>(h_attention_by_level(q, k, v, h_attention_call(options)));
        }));
  }
}

// The rows of all levels above the tokens are no more than the tokens (an odd number of rows rounds
// up), and one token more costs a few rows, not twice as many.
TEST(HAttentionKernels, LevelsStaySmall) {
  for (const int64_t block : {2, 16, 256}) {
    for (const int64_t time : {1, 33, 512, 513, 1000, 4096, 65536, 65537}) {
      const auto s = kernels::h_attention_shape(time, block, 64, 64, false, false);
      int64_t rows = 0;
      for (int l = 1; l < s.levels; ++l) rows += s.rows(l);
      EXPECT_LE(rows, time + s.levels) << time << " tokens, block " << block;
    }
  }
  const auto stored = [](int64_t time, bool backward) {
    return kernels::h_attention_upper_size<float>(
        kernels::h_attention_shape(time, 16, 64, 64, false, false), backward);
  };
  for (const int64_t time : {4096, 65536}) {
    for (const bool backward : {false, true}) {
      EXPECT_LT(stored(time + 1, backward), stored(time, backward) * 1.05) << time;
    }
  }
}

}  // namespace
}  // namespace headloom::testing
