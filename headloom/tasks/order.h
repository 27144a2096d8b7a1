#pragma once

#include <cstdint>
#include <mutex>
#include <vector>

namespace headloom::tasks {

// The order in which training visits a data set: every epoch shuffles all rows, sorts each window
// of `bucket_batches` batches by length, cuts batches and shuffles those. Rows that do not fill a
// batch are left out of that epoch. batch(i) is a pure function of the lengths, the settings, the
// seed and i.
class EpochOrder {
 public:
  // Refuses fewer rows than one batch. bucket_batches = 1 leaves the rows unsorted.
  EpochOrder(std::vector<int64_t> lengths, int64_t batch_size, int64_t bucket_batches,
             uint64_t seed);

  std::vector<int64_t> batch(int64_t index) const;  // row numbers; index 0, 1, 2, ... without end
  int64_t batches_per_epoch() const { return batches_; }

 private:
  std::vector<int64_t> epoch_rows(int64_t epoch) const;

  std::vector<int64_t> lengths_;
  int64_t batch_size_, bucket_batches_, batches_;
  uint64_t seed_;
  // The epoch last asked for; remembering it changes no answer.
  mutable std::mutex mutex_;
  mutable int64_t epoch_ = -1;
  mutable std::vector<int64_t> rows_;
};

// All rows, sorted by length and cut into batches (the last may be short), so that a validation
// pads little.
std::vector<std::vector<int64_t>> batches_by_length(const std::vector<int64_t>& lengths,
                                                    int64_t batch_size);

std::vector<int64_t> lengths_of(const std::vector<std::vector<int64_t>>& rows);
// The mean length, rounded; of no rows, 0.
int64_t mean_length(const std::vector<std::vector<int64_t>>& rows);

}  // namespace headloom::tasks
