#include "headloom/tasks/span_corruption/spans.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <set>

#include "tests/support/closeness.h"
#include "tests/tasks/support.h"

namespace headloom::tasks::span_corruption {
namespace {

using ::testing::HasSubstr;
using Ids = std::vector<int64_t>;

constexpr int64_t kFirstSentinel = 10'000;

Ids sentinels(int64_t count) {
  Ids ids(static_cast<size_t>(count));
  std::iota(ids.begin(), ids.end(), kFirstSentinel);
  return ids;
}

SpanCorruption corruption_of(const SpanCounts& counts) {
  return {counts, sentinels(counts.spans), "test"};
}

SpanCorruption::Pair corrupted(const SpanCorruption& rule, uint64_t index) {
  std::vector<int32_t> tokens(static_cast<size_t>(rule.counts().tokens));
  std::iota(tokens.begin(), tokens.end(), 0);
  RandomStream stream(1, Purpose::kTrainingMask, index);
  return rule.apply(stream, tokens.data());
}

TEST(Spans, CountsAreT5s) {
  // What random_spans_helper() and random_spans_noise_mask() of T5's released code give.
  struct Published {
    int64_t inputs;
    double density, mean;
    int64_t tokens, targets, noise, spans;
  };
  for (const Published& known : {Published{512, 0.15, 3, 568, 114, 85, 28},
                                 {256, 0.15, 3, 284, 58, 43, 14},
                                 {128, 0.15, 3, 141, 29, 21, 7},
                                 {64, 0.15, 3, 70, 14, 10, 3},
                                 {32, 0.15, 3, 34, 8, 5, 2},
                                 {100, 0.5, 3, 148, 100, 74, 25},
                                 {114, 0.15, 10, 131, 23, 20, 2},
                                 {1024, 0.3, 5, 1346, 486, 404, 81}}) {
    const SpanCounts found = longest_text(known.inputs, known.density, known.mean);
    EXPECT_EQ(found.tokens, known.tokens) << known.inputs;
    EXPECT_EQ(found.targets, known.targets) << known.inputs;
    EXPECT_EQ(found.noise, known.noise) << known.inputs;
    EXPECT_EQ(found.spans, known.spans) << known.inputs;
    EXPECT_EQ(found.inputs, known.inputs);
  }
}

TEST(Spans, CountsFitForAnySize) {
  for (int64_t inputs = 3; inputs < 60; ++inputs) {
    for (const double density : {0.01, 0.15, 0.5, 0.9, 0.999}) {
      for (const double mean : {1.0, 3.0, 1e6}) {
        const SpanCounts counts = longest_text(inputs, density, mean);
        EXPECT_LE(counts.inputs, inputs);
        EXPECT_GT(span_counts(counts.tokens + 1, density, mean).inputs, inputs);
        EXPECT_GE(counts.spans, 1);
        EXPECT_LE(counts.spans, std::min(counts.noise, counts.tokens - counts.noise));
        const SpanCorruption::Pair pair = corrupted(corruption_of(counts), 0);
        EXPECT_EQ(static_cast<int64_t>(pair.input.size()), counts.inputs - 1);
        EXPECT_EQ(static_cast<int64_t>(pair.target.size()), counts.targets - 1);
      }
    }
  }
}

// The text again: each sentinel of the input replaced by its span of the target.
Ids restored(const SpanCorruption::Pair& pair) {
  std::map<int64_t, Ids> spans;
  int64_t current = 0;
  for (const int64_t id : pair.target) {
    if (id >= kFirstSentinel) {
      current = id;
    } else {
      spans[current].push_back(id);
    }
  }
  Ids text;
  for (const int64_t id : pair.input) {
    if (id < kFirstSentinel) {
      text.push_back(id);
    } else {
      EXPECT_FALSE(spans[id].empty());
      text.insert(text.end(), spans[id].begin(), spans[id].end());
    }
  }
  return text;
}

TEST(Spans, InputAndTargetHoldTheText) {
  const SpanCorruption rule = corruption_of(longest_text(512, 0.15, 3.0));
  Ids whole(568);
  std::iota(whole.begin(), whole.end(), 0);
  for (uint64_t index = 0; index < 20; ++index) {
    const SpanCorruption::Pair pair = corrupted(rule, index);
    ASSERT_EQ(pair.input.size(), 511u) << "and the end";
    ASSERT_EQ(pair.target.size(), 113u) << "and the end";
    EXPECT_EQ(restored(pair), whole);
    EXPECT_LT(pair.input[0], kFirstSentinel) << "a text starts with a token that stays";
    EXPECT_EQ(pair.input.back(), kFirstSentinel + 27) << "and ends with a span";
    for (size_t i = 0; i + 1 < pair.input.size(); ++i) {
      EXPECT_FALSE(pair.input[i] >= kFirstSentinel && pair.input[i + 1] >= kFirstSentinel);
    }
    Ids order;
    for (const int64_t id : pair.target) {
      if (id >= kFirstSentinel) order.push_back(id);
    }
    EXPECT_EQ(order, sentinels(28));
  }
}

TEST(Spans, AllWaysToCutAreAsProbable) {
  // 5 tokens that stay and 3 of noise in 2 spans: 4 ways and 2 ways.
  SpanCounts counts;
  counts.tokens = 8;
  counts.noise = 3;
  counts.spans = 2;
  const SpanCorruption rule = corruption_of(counts);
  std::map<Ids, double> seen;
  constexpr int kDraws = 4000;
  for (uint64_t index = 0; index < kDraws; ++index) ++seen[corrupted(rule, index).input];
  ASSERT_EQ(seen.size(), 8u);
  const double deviation = std::sqrt(kDraws * (1.0 / 8) * (7.0 / 8));
  for (const auto& [input, count] : seen) {
    EXPECT_NEAR(count, kDraws / 8.0, headloom::testing::sigmas() * deviation);
  }
}

TEST(Spans, AreAFunctionOfTheStream) {
  const SpanCorruption rule = corruption_of(longest_text(128, 0.15, 3.0));
  EXPECT_EQ(corrupted(rule, 3).input, corrupted(rule, 3).input);
  EXPECT_NE(corrupted(rule, 3).input, corrupted(rule, 4).input);
}

TEST(Spans, RefuseWhatCannotBe) {
  const auto refusal = [](int64_t inputs, double density, double mean) {
    return message_of([&] { longest_text(inputs, density, mean); });
  };
  EXPECT_THAT(refusal(2, 0.15, 3), HasSubstr("context of at least 3; found 2"));
  EXPECT_THAT(refusal(64, 0.0, 3), HasSubstr("noise_density between 0 and 1"));
  EXPECT_THAT(refusal(64, 1.0, 3), HasSubstr("noise_density between 0 and 1"));
  EXPECT_THAT(refusal(64, 0.15, 0.5), HasSubstr("mean_span of at least 1; found 0.5"));
  EXPECT_THAT(message_of([] { SpanCorruption(longest_text(512, 0.15, 3), sentinels(27), "test"); }),
              HasSubstr("a sentinel for each of 28 spans; found 27. Raise task.sentinels"));
}

}  // namespace
}  // namespace headloom::tasks::span_corruption
