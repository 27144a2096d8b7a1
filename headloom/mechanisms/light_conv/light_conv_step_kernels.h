#pragma once

#include <cstdint>

#include "headloom/base/numeric.h"
#include "headloom/kernels/isa.h"

// Decoding of both convolutions. B batch, n new tokens, C channels, H heads, R = C / H, K kernel
// width.
namespace headloom::kernels {

// Token t of a row lies in row t mod (K - 1) of the ring; only tokens 0 .. position - 1 are read.
template <class S>
struct ConvStep {
  S* values;        // [B, n, C], the inputs; becomes the outputs
  S* ring;          // [B, K - 1, C], the newest K - 1 inputs before them; null when K = 1
  const S* logits;  // [H, K] at each position
  int64_t logits_batch_stride, logits_token_stride;  // 0 where one kernel serves all
  const S* bias;                                     // [C] or null
  int64_t tokens, heads, head_channels, kernel_size;
  int64_t position;     // tokens that came before
  bool weight_softmax;  // over all K taps, or
  bool renorm_padding;  // over those that read a token
};

// The longest kernel, for a buffer of fixed size.
inline constexpr int64_t kMaxStepKernelSize = 1023;

// Each computes rows [begin, end) of the B * H pairs of a batch entry and a head, for all n tokens,
// and puts the inputs into the ring. Rows are independent of each other.
struct ConvStepTable {
  void (*f64)(const ConvStep<double>& step, int64_t begin, int64_t end);
  void (*f32)(const ConvStep<float>& step, int64_t begin, int64_t end);
  void (*bf16)(const ConvStep<BFloat16>& step, int64_t begin, int64_t end);
  void (*f16)(const ConvStep<Half>& step, int64_t begin, int64_t end);
};

const ConvStepTable& conv_step_table(Isa isa);

}  // namespace headloom::kernels
