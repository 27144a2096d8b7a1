#pragma once

#include <cstdint>
#include <vector>

#include "headloom/kernels/attention.h"

// Attention and its gradient in double, element by element.
namespace headloom::kernels::testing {

struct AttentionCase {
  const char* id;
  int64_t batches = 2, heads = 2, group = 1, queries = 70, keys = 70, width = 9, value_width = 7;
  bool causal = false, fold = false, tied = false, symmetric = false;
  // Sizes of the bias: 0 leaves it out, 1 broadcasts.
  int64_t bias_batches = 0, bias_heads = 0, bias_queries = 0, bias_keys = 0;
  bool padding = false;
  double dropout_p = 0.0;
  bool interleaved = false;  // [B, T, H, width] in memory
};

// Dense, row-major: q [B, H / group, queries, D] and so on, [B, H, ...] for what heads own.
struct AttentionNumbers {
  std::vector<double> q, k, v, fold, bias, grad_out;
  std::vector<uint8_t> padding;  // [B, keys]
};
struct AttentionResults {
  std::vector<double> out, log2_sum, grad_q, grad_k, grad_v, grad_fold, grad_bias;
};

inline constexpr uint64_t kAttentionSeed = 77;

// With `tied`, keys are q and grad_k holds the gradient of both.
AttentionResults attend(const AttentionCase& c, const AttentionNumbers& x);

}  // namespace headloom::kernels::testing
