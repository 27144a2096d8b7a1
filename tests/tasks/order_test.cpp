#include "headloom/tasks/order.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "headloom/tasks/random.h"
#include "tests/tasks/support.h"

namespace headloom::tasks {
namespace {

using ::testing::HasSubstr;

std::vector<int64_t> some_lengths(int64_t size) {
  RandomStream stream(7, Purpose::kWindows, 0);
  std::vector<int64_t> lengths(size);
  for (int64_t& length : lengths) length = 1 + static_cast<int64_t>(stream.below(50));
  return lengths;
}

TEST(EpochOrder, VisitsEveryRowOnceAnEpoch) {
  const EpochOrder order(some_lengths(96), 8, 4, 1);
  ASSERT_EQ(order.batches_per_epoch(), 12);
  for (int64_t epoch = 0; epoch < 3; ++epoch) {
    std::set<int64_t> seen;
    for (int64_t i = 0; i < 12; ++i) {
      for (const int64_t row : order.batch(epoch * 12 + i)) seen.insert(row);
    }
    EXPECT_EQ(seen.size(), 96u);
  }
}

TEST(EpochOrder, LeavesOutFewerRowsThanABatch) {
  const EpochOrder order(some_lengths(100), 8, 4, 1);
  std::set<int64_t> seen;
  for (int64_t i = 0; i < order.batches_per_epoch(); ++i) {
    for (const int64_t row : order.batch(i)) seen.insert(row);
  }
  EXPECT_EQ(seen.size(), 96u);
}

TEST(EpochOrder, IsAFunctionOfSeedAndIndexAlone) {
  const EpochOrder forward(some_lengths(100), 8, 4, 5), backward(some_lengths(100), 8, 4, 5);
  const EpochOrder other(some_lengths(100), 8, 4, 6);
  std::vector<std::vector<int64_t>> batches;
  for (int64_t i = 0; i < 40; ++i) batches.push_back(forward.batch(i));
  for (int64_t i = 39; i >= 0; --i) EXPECT_EQ(backward.batch(i), batches[i]);
  EXPECT_NE(other.batch(0), batches[0]);
  EXPECT_NE(batches[0], batches[12]) << "the second epoch repeats the first";
}

TEST(EpochOrder, BucketsPadLess) {
  const std::vector<int64_t> lengths = some_lengths(512);
  const auto padding = [&](int64_t bucket_batches) {
    const EpochOrder order(lengths, 8, bucket_batches, 1);
    int64_t total = 0;
    for (int64_t i = 0; i < order.batches_per_epoch(); ++i) {
      int64_t longest = 0, sum = 0;
      for (const int64_t row : order.batch(i)) {
        longest = std::max(longest, lengths[row]);
        sum += lengths[row];
      }
      total += 8 * longest - sum;
    }
    return total;
  };
  EXPECT_LT(padding(16) * 4, padding(1));
}

TEST(EpochOrder, RefusesLessThanABatch) {
  EXPECT_THAT(message_of([] {
                EpochOrder({3, 4}, 8, 1, 1);
              }),
              HasSubstr("expected at least one batch of 8 rows; found 2 rows"));
}

TEST(BatchesByLength, CoverAllRowsInOrderOfLength) {
  const std::vector<int64_t> lengths = some_lengths(21);
  const auto batches = batches_by_length(lengths, 8);
  ASSERT_EQ(batches.size(), 3u);
  EXPECT_EQ(batches.back().size(), 5u);
  std::vector<int64_t> rows;
  for (const auto& batch : batches) rows.insert(rows.end(), batch.begin(), batch.end());
  EXPECT_TRUE(std::is_sorted(rows.begin(), rows.end(),
                             [&](int64_t a, int64_t b) { return lengths[a] < lengths[b]; }));
  EXPECT_EQ(std::set<int64_t>(rows.begin(), rows.end()).size(), 21u);
}

TEST(RandomStream, DrawsUniformly) {
  constexpr int kDraws = 100'000;
  RandomStream stream(3, Purpose::kOrder, 9);
  std::vector<int> counts(7);
  double sum = 0;
  for (int i = 0; i < kDraws; ++i) {
    ++counts[stream.below(7)];
    sum += stream.uniform();
  }
  const double share = kDraws / 7.0, deviation = std::sqrt(share * 6 / 7);
  for (const int count : counts) EXPECT_NEAR(count, share, 5 * deviation);
  EXPECT_NEAR(sum / kDraws, 0.5, 5 * std::sqrt(1.0 / 12 / kDraws));
}

TEST(RandomStream, ReachesTheWholeOfAWideRange) {
  constexpr uint64_t kWide = uint64_t{1} << 40;
  RandomStream stream(3, Purpose::kOrder, 9);
  uint64_t smallest = kWide, largest = 0;
  for (int i = 0; i < 1'000; ++i) {
    const uint64_t value = stream.below(kWide);
    smallest = std::min(smallest, value);
    largest = std::max(largest, value);
  }
  EXPECT_LT(smallest, kWide / 50);
  EXPECT_GT(largest, kWide / 50 * 49);
  EXPECT_LT(largest, kWide);
}

TEST(RandomStream, DiffersByPurposeAndIndex) {
  const auto first = [](Purpose purpose, uint64_t index) {
    return RandomStream(1, purpose, index).word();
  };
  EXPECT_NE(first(Purpose::kOrder, 0), first(Purpose::kWindows, 0));
  EXPECT_NE(first(Purpose::kOrder, 0), first(Purpose::kOrder, 1));
  EXPECT_EQ(first(Purpose::kOrder, 1), first(Purpose::kOrder, 1));
}

}  // namespace
}  // namespace headloom::tasks
