#pragma once

#include <ATen/core/Tensor.h>

#include <tuple>

#include "headloom/mechanisms/talking_heads/talking_heads.h"

namespace headloom {

// The part of a call that the reference looks at: queries row_begin .. row_begin + rows of the Tq
// queries of one sequence. q, x2l, x2w and a bias with queries hold these rows alone.
struct TalkingHeadsRows {
  int64_t queries = 0;        // Tq of the sequence
  int64_t row_begin = 0;      // of the first row of q
  int64_t relative_zero = 0;  // where relative_bias holds the distance i - j = 0
};

// The oracle, in plain differentiable torch operations on any device and dtype: O [B, V, rows, E]
// and the log2 of the sum of 2^(logit log2 e) [B, H, rows], -inf where a query has nothing to
// attend. Boundaries of packed sequences are not looked at.
std::tuple<at::Tensor, at::Tensor> talking_heads_reference(const at::Tensor& q, const at::Tensor& k,
                                                           const at::Tensor& v,
                                                           const TalkingHeadsOptions& options,
                                                           const TalkingHeadsRows& rows);

}  // namespace headloom
