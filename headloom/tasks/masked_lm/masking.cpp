#include "headloom/tasks/masked_lm/masking.h"

#include "headloom/base/check.h"

namespace headloom::tasks::masked_lm {
namespace {

constexpr double kMasked = 0.8, kReplaced = 0.1;

}  // namespace

Masking::Masking(std::vector<bool> ordinary, int64_t mask, double probability)
    : ordinary_(std::move(ordinary)), mask_(mask), probability_(probability) {
  constexpr const char* kWhere = "task masked_lm";
  HEADLOOM_CHECK(probability > 0.0 && probability <= 1.0, kWhere,
                 "mask_probability above 0 and at most 1", cat(probability));
  for (size_t token = 0; token < ordinary_.size(); ++token) {
    if (ordinary_[token]) drawn_.push_back(static_cast<int64_t>(token));
  }
  HEADLOOM_CHECK(!drawn_.empty(), kWhere, "a tokenizer with tokens that are not special", "none");
}

int64_t Masking::corrupted(RandomStream& stream, int64_t token) const {
  const double lot = stream.uniform();
  if (lot < kMasked) return mask_;
  return lot < kMasked + kReplaced ? drawn_[stream.below(drawn_.size())] : token;
}

void Masking::apply(RandomStream& stream, int64_t* tokens, int64_t* targets, int64_t count) const {
  std::vector<int64_t> candidates;
  bool any = false;
  for (int64_t i = 0; i < count; ++i) {
    targets[i] = kNotPredicted;
    if (!may_choose(tokens[i])) continue;
    candidates.push_back(i);
    if (stream.uniform() >= probability_) continue;
    any = true;
    targets[i] = tokens[i];
    tokens[i] = corrupted(stream, tokens[i]);
  }
  if (any || candidates.empty()) return;
  const int64_t i = candidates[stream.below(candidates.size())];
  targets[i] = tokens[i];
  tokens[i] = corrupted(stream, tokens[i]);
}

}  // namespace headloom::tasks::masked_lm
