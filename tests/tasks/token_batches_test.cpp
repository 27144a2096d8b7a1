#include "headloom/tasks/token_batches.h"

#include <algorithm>
#include <numeric>
#include <set>

#include "tests/tasks/support.h"

namespace headloom::tasks {
namespace {

using ::testing::HasSubstr;

TokenBatches::Lengths some_lengths(int64_t count = 500) {
  TokenBatches::Lengths lengths;
  for (int64_t i = 0; i < count; ++i) lengths.emplace_back(2 + i * 7 % 23, 2 + i * 5 % 19);
  return lengths;
}

std::vector<int64_t> epoch_of(const TokenBatches& order, int64_t epoch) {
  std::vector<int64_t> rows;
  for (int64_t i = 0; i < order.batches_per_epoch(); ++i) {
    const auto batch = order.batch(epoch * order.batches_per_epoch() + i);
    rows.insert(rows.end(), batch.begin(), batch.end());
  }
  return rows;
}

TEST(TokenBatches, EveryEpochSeesEveryPairOnce) {
  const TokenBatches order(some_lengths(), 128, 0, 1);
  for (int64_t epoch : {0, 1, 5}) {
    std::vector<int64_t> rows = epoch_of(order, epoch);
    std::sort(rows.begin(), rows.end());
    std::vector<int64_t> expected(500);
    std::iota(expected.begin(), expected.end(), 0);
    EXPECT_EQ(rows, expected) << epoch;
  }
}

TEST(TokenBatches, HoldAsManyTokensAsFit) {
  const auto lengths = some_lengths();
  const TokenBatches order(lengths, 128, 0, 1);
  int64_t padded = 0, tokens = 0, most = 0;
  for (int64_t i = 0; i < order.batches_per_epoch(); ++i) {
    int64_t longest = 0;
    const auto batch = order.batch(i);
    for (const int64_t row : batch) {
      longest = std::max({longest, lengths[row].first, lengths[row].second});
      tokens += std::max(lengths[row].first, lengths[row].second);
    }
    const int64_t size = longest * static_cast<int64_t>(batch.size());
    EXPECT_LE(size, 128);
    padded += size;
    most = std::max(most, size);
  }
  EXPECT_GT(most, 100);
  EXPECT_LT(padded, 2 * tokens) << "pairs of similar lengths share a batch";
}

TEST(TokenBatches, OrderAndCompanyChangeFromEpochToEpoch) {
  const TokenBatches order(some_lengths(2000), 128, 0, 1), other(some_lengths(2000), 128, 0, 2);
  EXPECT_NE(epoch_of(order, 0), epoch_of(order, 1));
  EXPECT_NE(epoch_of(order, 0), epoch_of(other, 0));
  std::set<std::vector<int64_t>> first, second;
  for (int64_t i = 0; i < order.batches_per_epoch(); ++i) {
    for (auto& [epoch, batches] : {std::pair(0, &first), std::pair(1, &second)}) {
      auto batch = order.batch(epoch * order.batches_per_epoch() + i);
      std::sort(batch.begin(), batch.end());
      batches->insert(batch);
    }
  }
  EXPECT_NE(first, second);
}

TEST(TokenBatches, ABatchIsAFunctionOfItsNumber) {
  const TokenBatches order(some_lengths(), 128, 0, 7), fresh(some_lengths(), 128, 0, 7);
  const int64_t far = 3 * order.batches_per_epoch() + 2;
  const auto expected = order.batch(far);
  EXPECT_NE(order.batch(0), expected);
  EXPECT_EQ(order.batch(far), expected);
  EXPECT_EQ(fresh.batch(far), expected);
}

TEST(TokenBatches, RowsBoundBatchesToo) {
  const TokenBatches order(some_lengths(50), 0, 8, 1);
  EXPECT_EQ(order.batches_per_epoch(), 7);
  for (int64_t i = 0; i < 7; ++i) EXPECT_LE(order.batch(i).size(), 8u);
}

TEST(TokenBatches, RefuseWhatDoesNotFit) {
  EXPECT_THAT(message_of([] { TokenBatches({}, 128, 0, 1); }), HasSubstr("at least one pair"));
  EXPECT_THAT(message_of([] {
                TokenBatches({{3, 129}}, 128, 0, 1);
              }),
              HasSubstr("a batch of 128 tokens; found 129 tokens"));
  EXPECT_EQ(TokenBatches({{3, 128}}, 128, 0, 1).batch(5), std::vector<int64_t>{0});
}

}  // namespace
}  // namespace headloom::tasks
