#pragma once

#include <cstdint>
#include <mutex>
#include <utility>
#include <vector>

namespace headloom::tasks {

// The order in which training visits pairs of sequences: batches of similar lengths that hold about
// as many tokens each. Pairs are sorted by the second length, then the first, and cut where a
// further pair would make rows times longest sequence pass max_tokens, or pass max_rows rows. Every
// epoch draws anew which of the pairs of equal lengths come together, and in which order the
// batches come; the cuts are the same, so that every pair is seen once in each epoch. batch(i) is a
// pure function of the lengths, the settings, the seed and i.
class TokenBatches {
 public:
  using Lengths = std::vector<std::pair<int64_t, int64_t>>;

  // 0 sets no bound; one of the two is given. Refuses no pairs, and a pair of more than max_tokens.
  TokenBatches(Lengths lengths, int64_t max_tokens, int64_t max_rows, uint64_t seed);

  std::vector<int64_t> batch(int64_t index) const;  // row numbers; index 0, 1, 2, ... without end
  int64_t batches_per_epoch() const { return static_cast<int64_t>(cuts_.size()) - 1; }

 private:
  std::vector<int64_t> sorted(std::vector<int64_t> rows) const;
  void start_epoch(int64_t epoch) const;

  Lengths lengths_;
  std::vector<int64_t> cuts_;  // where batches begin among the sorted rows, and their number
  uint64_t seed_;
  // The epoch last asked for; remembering it changes no answer.
  mutable std::mutex mutex_;
  mutable int64_t epoch_ = -1;
  mutable std::vector<int64_t> rows_, order_;
};

}  // namespace headloom::tasks
