#include "headloom/tasks/token_batches.h"

#include <algorithm>
#include <numeric>

#include "headloom/base/check.h"
#include "headloom/tasks/random.h"

namespace headloom::tasks {
namespace {

std::vector<int64_t> count_up(size_t size) {
  std::vector<int64_t> values(size);
  std::iota(values.begin(), values.end(), 0);
  return values;
}

}  // namespace

TokenBatches::TokenBatches(Lengths lengths, int64_t max_tokens, int64_t max_rows, uint64_t seed)
    : lengths_(std::move(lengths)), seed_(seed) {
  HEADLOOM_CHECK(!lengths_.empty(), "training data", "at least one pair", "none");
  int64_t rows = 0, longest = 0;
  const std::vector<int64_t> order = sorted(count_up(lengths_.size()));
  for (size_t i = 0; i < order.size(); ++i) {
    const auto [first, second] = lengths_[order[i]];
    const int64_t length = std::max(first, second);
    HEADLOOM_CHECK(max_tokens == 0 || length <= max_tokens, "training data",
                   cat("sequences that fit into a batch of ", max_tokens, " tokens"),
                   cat(length, " tokens"));
    longest = std::max(longest, length);
    const bool full =
        (max_tokens > 0 && (rows + 1) * longest > max_tokens) || (max_rows > 0 && rows == max_rows);
    if (i == 0 || full) {
      cuts_.push_back(static_cast<int64_t>(i));
      rows = 0;
      longest = length;
    }
    ++rows;
  }
  cuts_.push_back(static_cast<int64_t>(order.size()));
}

std::vector<int64_t> TokenBatches::sorted(std::vector<int64_t> rows) const {
  std::stable_sort(rows.begin(), rows.end(), [&](int64_t a, int64_t b) {
    return std::pair(lengths_[a].second, lengths_[a].first) <
           std::pair(lengths_[b].second, lengths_[b].first);
  });
  return rows;
}

void TokenBatches::start_epoch(int64_t epoch) const {
  RandomStream stream(seed_, Purpose::kOrder, static_cast<uint64_t>(epoch));
  std::vector<int64_t> rows = count_up(lengths_.size());
  stream.shuffle(rows);
  rows_ = sorted(std::move(rows));
  order_ = count_up(cuts_.size() - 1);
  stream.shuffle(order_);
  epoch_ = epoch;
}

std::vector<int64_t> TokenBatches::batch(int64_t index) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  const int64_t count = batches_per_epoch();
  if (const int64_t epoch = index / count; epoch != epoch_) start_epoch(epoch);
  const int64_t number = order_[index % count];
  return {rows_.begin() + cuts_[number], rows_.begin() + cuts_[number + 1]};
}

}  // namespace headloom::tasks
