#include "headloom/tasks/order.h"

#include <algorithm>
#include <numeric>

#include "headloom/base/check.h"
#include "headloom/tasks/random.h"

namespace headloom::tasks {
namespace {

std::vector<int64_t> count_up(int64_t size) {
  std::vector<int64_t> values(size);
  std::iota(values.begin(), values.end(), 0);
  return values;
}

}  // namespace

EpochOrder::EpochOrder(std::vector<int64_t> lengths, int64_t batch_size, int64_t bucket_batches,
                       uint64_t seed)
    : lengths_(std::move(lengths)),
      batch_size_(batch_size),
      bucket_batches_(bucket_batches),
      batches_(static_cast<int64_t>(lengths_.size()) / batch_size),
      seed_(seed) {
  HEADLOOM_CHECK(batches_ >= 1, "training data", cat("at least one batch of ", batch_size, " rows"),
                 cat(lengths_.size(), " rows"), "Lower train.batch_size or give more data.");
}

std::vector<int64_t> EpochOrder::epoch_rows(int64_t epoch) const {
  RandomStream stream(seed_, Purpose::kOrder, static_cast<uint64_t>(epoch));
  std::vector<int64_t> rows = count_up(static_cast<int64_t>(lengths_.size()));
  stream.shuffle(rows);
  rows.resize(batches_ * batch_size_);
  if (bucket_batches_ == 1) return rows;

  const int64_t size = static_cast<int64_t>(rows.size()), window = bucket_batches_ * batch_size_;
  for (int64_t begin = 0; begin < size; begin += window) {
    std::stable_sort(rows.begin() + begin, rows.begin() + std::min(begin + window, size),
                     [&](int64_t a, int64_t b) { return lengths_[a] < lengths_[b]; });
  }
  std::vector<int64_t> order = count_up(batches_), shuffled;
  stream.shuffle(order);
  shuffled.reserve(rows.size());
  for (int64_t batch : order) {
    const auto begin = rows.begin() + batch * batch_size_;
    shuffled.insert(shuffled.end(), begin, begin + batch_size_);
  }
  return shuffled;
}

std::vector<int64_t> EpochOrder::batch(int64_t index) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (const int64_t epoch = index / batches_; epoch != epoch_) {
    rows_ = epoch_rows(epoch);
    epoch_ = epoch;
  }
  const auto begin = rows_.begin() + (index % batches_) * batch_size_;
  return {begin, begin + batch_size_};
}

std::vector<std::vector<int64_t>> batches_by_length(const std::vector<int64_t>& lengths,
                                                    int64_t batch_size) {
  const int64_t size = static_cast<int64_t>(lengths.size());
  std::vector<int64_t> rows = count_up(size);
  std::stable_sort(rows.begin(), rows.end(),
                   [&](int64_t a, int64_t b) { return lengths[a] < lengths[b]; });
  std::vector<std::vector<int64_t>> batches;
  for (int64_t begin = 0; begin < size; begin += batch_size) {
    batches.emplace_back(rows.begin() + begin, rows.begin() + std::min(begin + batch_size, size));
  }
  return batches;
}

std::vector<int64_t> lengths_of(const std::vector<std::vector<int64_t>>& rows) {
  std::vector<int64_t> lengths;
  for (const auto& row : rows) lengths.push_back(static_cast<int64_t>(row.size()));
  return lengths;
}

int64_t mean_length(const std::vector<std::vector<int64_t>>& rows) {
  const std::vector<int64_t> lengths = lengths_of(rows);
  const int64_t total = std::accumulate(lengths.begin(), lengths.end(), int64_t{0});
  const auto count = static_cast<int64_t>(rows.size());
  return count == 0 ? 0 : (total + count / 2) / count;
}

}  // namespace headloom::tasks
