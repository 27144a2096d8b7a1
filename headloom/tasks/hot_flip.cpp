#include <ATen/ATen.h>

#include <algorithm>
#include <limits>

#include "headloom/base/check.h"
#include "headloom/tasks/attack.h"

// T tokens, V vocabulary, D width of the embedding.
namespace headloom::tasks {
namespace {

using at::Tensor;

struct Flip {
  double gain;
  int64_t state, position, token;
};

// The best flips of one state.
std::vector<Flip> flips_of(const FlipVictim& victim, const Tensor& tokens, int64_t label,
                           int64_t state, const FlipOptions& options) {
  const Tensor own = victim.embedding.index_select(0, tokens);  // [T, D]
  const Tensor slope = victim.gradient(tokens, label).to(own.scalar_type());
  Tensor gain = at::matmul(slope, victim.embedding.t()) - (slope * own).sum(1, true);  // [T, V]
  const auto unit = [](const Tensor& x) { return x / x.norm(2, 1, true).clamp_min(1e-12); };
  const Tensor far = at::matmul(unit(own), unit(victim.embedding).t()) < options.least;
  Tensor barred = far.logical_or(gain <= 0);
  for (const int64_t token : victim.fixed) {
    barred.select(1, token).fill_(true);
    barred = barred.logical_or((tokens == token).unsqueeze(1));
  }
  gain = gain.masked_fill(barred, -1.0).to(at::kDouble);
  const int64_t most = std::min(options.beam, gain.numel());
  const auto [values, indices] = gain.flatten().topk(most);
  std::vector<Flip> flips;
  for (int64_t i = 0; i < most; ++i) {
    const double value = values[i].item<double>();
    if (value <= 0.0) break;
    const int64_t index = indices[i].item<int64_t>();
    flips.push_back({value, state, index / gain.size(1), index % gain.size(1)});
  }
  return flips;
}

}  // namespace

FlipResult hot_flip(const FlipVictim& victim, const Tensor& tokens, int64_t label,
                    const FlipOptions& options) {
  HEADLOOM_CHECK(options.budget >= 0, "hot_flip", "a budget of 0 queries or more",
                 cat(options.budget));
  FlipResult result{Outcome::kFailed, tokens, 1, 0};
  const auto predicted = [&](const Tensor& rows) { return victim.classify(rows).argmax(1); };
  if (predicted(tokens.unsqueeze(0))[0].item<int64_t>() != label) {
    result.outcome = Outcome::kSkipped;
    return result;
  }
  const auto left = [&] {
    return options.budget == 0 ? std::numeric_limits<int64_t>::max()
                               : options.budget - result.queries;
  };
  std::vector<Tensor> states{tokens};
  for (int64_t round = 1; round <= options.most_flips; ++round) {
    std::vector<Flip> flips;
    for (size_t s = 0; s < states.size() && left() > 0; ++s) {
      const auto more = flips_of(victim, states[s], label, static_cast<int64_t>(s), options);
      flips.insert(flips.end(), more.begin(), more.end());
      ++result.queries;
    }
    std::stable_sort(flips.begin(), flips.end(),
                     [](const Flip& a, const Flip& b) { return a.gain > b.gain; });
    const int64_t kept = std::min({static_cast<int64_t>(flips.size()), options.beam, left()});
    flips.resize(static_cast<size_t>(kept));
    if (flips.empty()) return result;
    std::vector<Tensor> next;
    for (const Flip& flip : flips) {
      next.push_back(states[static_cast<size_t>(flip.state)].clone());
      next.back()[flip.position] = flip.token;
    }
    const Tensor answers = predicted(at::stack(next));
    result.queries += static_cast<int64_t>(next.size());
    result.flips = round;
    result.tokens = next.front();
    for (size_t i = 0; i < next.size(); ++i) {
      if (answers[static_cast<int64_t>(i)].item<int64_t>() == label) continue;
      result.outcome = Outcome::kSucceeded;
      result.tokens = next[i];
      return result;
    }
    states = std::move(next);
  }
  return result;
}

}  // namespace headloom::tasks
