#include "headloom/tasks/examples.h"

#include <ATen/ATen.h>

#include "tests/tasks/support.h"

namespace headloom::tasks {
namespace {

const Examples kExamples = {{{7, 0, 9}, 1, {3}}, {{8}, 0, {4, 5}}};

TEST(Examples, PadOnTheRightWithZero) {
  const Batch batch = make_batch(kExamples, {1, 0});
  EXPECT_TRUE(at::equal(batch.tokens, at::tensor({8, 0, 0, 7, 0, 9}, at::kLong).view({2, 3})));
  EXPECT_TRUE(at::equal(batch.targets, at::tensor({0, 1}, at::kLong)));
  // The zero within a row is a token like any other.
  EXPECT_TRUE(at::equal(batch.masks.key_padding_mask,
                        at::tensor({0, 1, 1, 0, 0, 0}).to(at::kBool).view({2, 3})));
  EXPECT_EQ(batch.token_count, 4);
}

TEST(Examples, ShiftLeavesZeroToThePadding) {
  const Batch batch = make_batch(kExamples, {0, 1}, {.shift = 1});
  EXPECT_TRUE(at::equal(batch.tokens, at::tensor({8, 1, 10, 9, 0, 0}, at::kLong).view({2, 3})));
  EXPECT_TRUE(at::equal(batch.masks.key_padding_mask, batch.tokens == 0));
}

TEST(Examples, MaskZerosWhereTheyStand) {
  const Batch batch = make_batch(kExamples, {0}, {.mask_zeros = true});
  EXPECT_TRUE(
      at::equal(batch.masks.key_padding_mask, at::tensor({0, 1, 0}).to(at::kBool).view({1, 3})));
}

TEST(Examples, PairsAreTwoHalvesOfTheRows) {
  const Batch batch = make_batch(kExamples, {0, 1}, {.shift = 1, .pairs = true});
  ASSERT_EQ(batch.tokens.sizes(), (at::IntArrayRef{4, 3}));
  EXPECT_TRUE(
      at::equal(batch.tokens.slice(0, 2), at::tensor({4, 0, 0, 5, 6, 0}, at::kLong).view({2, 3})));
  EXPECT_EQ(batch.targets.size(0), 2);
  EXPECT_EQ(lengths(kExamples), (std::vector<int64_t>{3, 2}));
}

}  // namespace
}  // namespace headloom::tasks
