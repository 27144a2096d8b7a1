#pragma once

#include <cstdint>
#include <optional>
#include <unordered_set>

#include "headloom/tasks/listops/expression.h"

namespace headloom::tasks::listops {

struct GeneratorConfig {
  int64_t min_length = 501;   // tokens: 1 for a digit, 2 for an operator and its bracket
  int64_t max_length = 1999;  // both ends included
  int64_t max_depth = 10;     // a node at this depth is a digit; the root is at depth 1
  int64_t max_args = 10;      // of an operator; the fewest are 2
  uint64_t seed = 1;
};

// Draws expressions as the Long Range Arena does. A node at depth < max_depth is an operator with
// probability 1/4, else a digit, uniform. An operator has 2 .. max_args arguments, uniform, each a
// node one deeper, and after those is drawn uniformly from MIN, MAX, MED, SM. Trees whose length is
// out of range are thrown away (with the defaults, all but 8.3 %), and so are repeats. The sequence
// is a pure function of the configuration: candidate number n is one of (seed, n).
class Generator {
 public:
  // Refuses lengths, depths and argument counts out of their ranges.
  explicit Generator(const GeneratorConfig& config);

  // The next `count` expressions, no two equal since the start. Refuses lengths that fewer than one
  // draw in 10,000 reaches.
  Examples next(int64_t count);

  int64_t drawn() const { return next_candidate_; }  // candidates used up so far
  int64_t made() const { return static_cast<int64_t>(seen_.size()); }

 private:
  std::optional<Tokens> candidate(int64_t index) const;
  void check_yield(int64_t wanted) const;

  GeneratorConfig config_;
  int64_t next_candidate_ = 0;
  std::unordered_set<uint64_t> seen_;  // hashes: equal trees always meet here
};

// FNV-1a, 64 bits, over "<expression as print() writes it>\t<value>\n" for each example. For the
// default configuration the first 100 expressions have kDefaultChecksum; a change of the generator
// shows there.
uint64_t checksum(const Examples& examples);
constexpr uint64_t kDefaultChecksum = 0x48d45e0ac183de28;

}  // namespace headloom::tasks::listops
