#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "headloom/base/check.h"
#include "headloom/base/rng.h"
#include "headloom/nn/generate.h"
#include "headloom/nn/sampling.h"

namespace headloom::nn {
namespace {

constexpr const char* kWhere = "sample";

// A token that is still possible and its weight, its probability times a constant of the row.
struct Candidate {
  int64_t token;
  double weight;
};

bool ranks_before(const Candidate& a, const Candidate& b) {
  return a.weight != b.weight ? a.weight > b.weight : a.token < b.token;
}

double total_weight(const std::vector<Candidate>& candidates) {
  double total = 0.0;
  for (const Candidate& candidate : candidates) total += candidate.weight;
  return total;
}

// The smallest token id among those of the largest logit. logits [V]
int64_t most_probable(const double* logits, int64_t size, int64_t row) {
  const double* best = logits;
  for (const double* logit = logits; logit != logits + size; ++logit) {
    HEADLOOM_CHECK(!std::isnan(*logit), kWhere, "logits without NaN", cat("NaN in row ", row));
    if (*logit > *best) best = logit;
  }
  HEADLOOM_CHECK(std::isfinite(*best), kWhere, "a finite largest logit",
                 cat(*best, " in row ", row));
  return best - logits;
}

void keep_top_k(std::vector<Candidate>& candidates, int64_t k) {
  if (k == 0 || k >= static_cast<int64_t>(candidates.size())) return;
  std::nth_element(candidates.begin(), candidates.begin() + k, candidates.end(), ranks_before);
  candidates.resize(k);
}

void keep_top_p(std::vector<Candidate>& candidates, double p) {
  if (p == 1.0) return;
  std::sort(candidates.begin(), candidates.end(), ranks_before);
  const double enough = p * total_weight(candidates);
  double sum = 0.0;
  size_t kept = 0;
  while (kept < candidates.size() && (kept == 0 || sum < enough)) sum += candidates[kept++].weight;
  candidates.resize(kept);
}

// Uniform in [0, 1) with 48 bits, so that tokens far below 2^-24 keep their share.
double uniform(uint64_t seed, int64_t draw, int64_t row) {
  const uint64_t pair = (static_cast<uint64_t>(draw) << 32) + static_cast<uint64_t>(row);
  return random_uniform(seed, 2 * pair) + random_uniform(seed, 2 * pair + 1) * 0x1p-24;
}

// Inversion of the distribution function, by token id: a filter that removes nothing changes
// nothing.
int64_t pick(std::vector<Candidate>& candidates, double u) {
  std::sort(candidates.begin(), candidates.end(),
            [](const Candidate& a, const Candidate& b) { return a.token < b.token; });
  const double target = u * total_weight(candidates);
  double sum = 0.0;
  for (const Candidate& candidate : candidates) {
    sum += candidate.weight;
    if (sum > target) return candidate.token;
  }
  fail(kWhere, "a sum of weights above any share of it", cat(sum));
}

int64_t sample_row(const double* logits, int64_t size, const SamplingOptions& options, int64_t draw,
                   int64_t row) {
  const int64_t best = most_probable(logits, size, row);
  if (options.temperature == 0.0) return best;
  std::vector<Candidate> candidates(size);
  for (int64_t token = 0; token < size; ++token) {
    candidates[token] = {token, std::exp((logits[token] - logits[best]) / options.temperature)};
  }
  keep_top_k(candidates, options.top_k);
  keep_top_p(candidates, options.top_p);
  return pick(candidates, uniform(options.seed, draw, row));
}

}  // namespace

void check_sampling(const SamplingOptions& options) {
  HEADLOOM_CHECK(options.temperature >= 0.0 && std::isfinite(options.temperature), kWhere,
                 "a finite temperature of at least 0", cat("temperature = ", options.temperature),
                 "0 is greedy.");
  HEADLOOM_CHECK(options.top_k >= 0, kWhere, "top_k of at least 0", cat("top_k = ", options.top_k),
                 "0 keeps all tokens.");
  HEADLOOM_CHECK(options.top_p > 0.0 && options.top_p <= 1.0, kWhere, "top_p in (0, 1]",
                 cat("top_p = ", options.top_p), "1 keeps all tokens.");
}

at::Tensor sample(const at::Tensor& logits, const SamplingOptions& options, int64_t draw) {
  check_sampling(options);
  HEADLOOM_CHECK(logits.dim() == 2 && logits.size(1) > 0 && logits.is_floating_point(), kWhere,
                 "floating logits of shape [B, V], V at least 1",
                 cat("shape ", logits.sizes(), ", ", logits.scalar_type()));
  HEADLOOM_CHECK(draw >= 0, kWhere, "a draw of at least 0", cat("draw = ", draw));
  const at::Tensor wide = logits.detach().to(at::kCPU, at::kDouble).contiguous();
  const at::Tensor tokens = at::empty({wide.size(0)}, at::kLong);
  const double* row = wide.const_data_ptr<double>();
  int64_t* chosen = tokens.data_ptr<int64_t>();
  for (int64_t b = 0; b < wide.size(0); ++b) {
    chosen[b] = sample_row(row + b * wide.size(1), wide.size(1), options, draw, b);
  }
  return tokens.to(logits.device());
}

}  // namespace headloom::nn
