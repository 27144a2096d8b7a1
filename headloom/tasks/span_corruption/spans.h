#pragma once

#include <cstdint>
#include <vector>

#include "headloom/tasks/random.h"

// Span corruption, T5's objective (Raffel et al., 2020, section 3.1.4 and their released code).
namespace headloom::tasks::span_corruption {

// What becomes of a text of `tokens` tokens.
struct SpanCounts {
  int64_t tokens = 0;
  int64_t noise = 0;   // tokens that are taken out, round(tokens density), from 1 to tokens - 1
  int64_t spans = 0;   // that they form, round(noise / mean), from 1 to what leaves a token between
  int64_t inputs = 0;  // the tokens that stay, a sentinel for each span, and the end
  int64_t targets = 0;  // a sentinel in front of each span, its tokens, and the end
};

// Halves round to even, as Python's round() does. tokens >= 2. Refuses a density out of (0, 1) and
// a mean below 1.
SpanCounts span_counts(int64_t tokens, double density, double mean);

// Of the longest text whose input has at most `inputs` tokens, so that all inputs are as long and
// all targets too: 512 inputs are 568 tokens and 114 targets at density 0.15 and mean 3. Refuses
// less than 3 inputs: a token, a sentinel and the end.
SpanCounts longest_text(int64_t inputs, double density, double mean);

// Takes spans out of texts of one length. Their lengths are a uniform choice among all ways to cut
// the noise into that many spans, and so are those of the stretches between; a text starts with a
// token that stays and ends with a span.
class SpanCorruption {
 public:
  // Refuses fewer sentinels than spans. `where` starts the message.
  SpanCorruption(const SpanCounts& counts, std::vector<int64_t> sentinels, const char* where);

  // Without the end, as tasks/vocabularies.h has sources and targets.
  struct Pair {
    std::vector<int64_t> input, target;
  };
  // A function of the counts().tokens tokens and the stream alone.
  Pair apply(RandomStream& stream, const int32_t* tokens) const;
  const SpanCounts& counts() const { return counts_; }

 private:
  SpanCounts counts_;
  std::vector<int64_t> sentinels_;
};

}  // namespace headloom::tasks::span_corruption
