#include "headloom/tasks/span_corruption/spans.h"

#include <algorithm>
#include <cmath>

#include "headloom/base/check.h"

namespace headloom::tasks::span_corruption {
namespace {

constexpr const char* kWhere = "task span_corruption";

int64_t rounded(double value) {
  return static_cast<int64_t>(std::nearbyint(value));
}

// Cuts `items` into `parts` that are not empty: which of the items - 1 gaps are cut is drawn.
std::vector<int64_t> random_parts(RandomStream& stream, int64_t items, int64_t parts) {
  std::vector<int64_t> cut(static_cast<size_t>(items - 1), 0);
  std::fill_n(cut.begin(), parts - 1, 1);
  stream.shuffle(cut);
  std::vector<int64_t> lengths{1};
  for (const int64_t here : cut) {
    if (here) lengths.push_back(0);
    ++lengths.back();
  }
  return lengths;
}

}  // namespace

SpanCounts span_counts(int64_t tokens, double density, double mean) {
  HEADLOOM_CHECK(density > 0.0 && density < 1.0, kWhere,
                 "noise_density between 0 and 1, both excluded", cat(density));
  HEADLOOM_CHECK(mean >= 1.0, kWhere, "mean_span of at least 1", cat(mean));
  SpanCounts counts;
  counts.tokens = tokens;
  counts.noise = std::clamp<int64_t>(rounded(static_cast<double>(tokens) * density), 1, tokens - 1);
  const int64_t stay = tokens - counts.noise;
  counts.spans = std::clamp<int64_t>(rounded(static_cast<double>(counts.noise) / mean), 1,
                                     std::min(counts.noise, stay));
  counts.inputs = stay + counts.spans + 1;
  counts.targets = counts.noise + counts.spans + 1;
  return counts;
}

SpanCounts longest_text(int64_t inputs, double density, double mean) {
  HEADLOOM_CHECK(inputs >= 3, kWhere, "context of at least 3", cat(inputs));
  SpanCounts counts = span_counts(2, density, mean);
  while (true) {
    const SpanCounts longer = span_counts(counts.tokens + 1, density, mean);
    if (longer.inputs > inputs) return counts;
    counts = longer;
  }
}

SpanCorruption::SpanCorruption(const SpanCounts& counts, std::vector<int64_t> sentinels,
                               const char* where)
    : counts_(counts), sentinels_(std::move(sentinels)) {
  HEADLOOM_CHECK(static_cast<int64_t>(sentinels_.size()) >= counts.spans, where,
                 cat("a sentinel for each of ", counts.spans, " spans"), cat(sentinels_.size()),
                 "Raise task.sentinels, lower task.context, or take a tokenizer with more "
                 "<extra_id_0>, <extra_id_1>, ...");
}

SpanCorruption::Pair SpanCorruption::apply(RandomStream& stream, const int32_t* tokens) const {
  const auto noise = random_parts(stream, counts_.noise, counts_.spans);
  const auto kept = random_parts(stream, counts_.tokens - counts_.noise, counts_.spans);
  Pair pair;
  for (size_t span = 0; span < noise.size(); ++span) {
    pair.input.insert(pair.input.end(), tokens, tokens + kept[span]);
    tokens += kept[span];
    pair.input.push_back(sentinels_[span]);
    pair.target.push_back(sentinels_[span]);
    pair.target.insert(pair.target.end(), tokens, tokens + noise[span]);
    tokens += noise[span];
  }
  return pair;
}

}  // namespace headloom::tasks::span_corruption
