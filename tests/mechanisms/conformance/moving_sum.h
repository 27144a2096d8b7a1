#pragma once

#include "tests/support/conformance.h"

// A small operator to test the conformance suite with, right or wrong on purpose: the causal
// exponential moving sum s_t = decay s_{t-1} + dropout(x_t), y_t = gain s_t, where padded positions
// count as zero and packed sequences start anew. x [B, T, C], gain [C] -> y [B, T, C].
namespace headloom::testing {

enum class Fault {
  kNone,
  kGradientScaled,       // grad_gain is 0.1 % too large
  kGradientTermMissing,  // grad_x of the last position misses its own term
  kGradientAlone,        // grad_gain is lost when x takes no gradient
  kUnwritten,            // the last element stays as allocated
  kStaleBuffer,          // the running sum of the last row starts as its memory was
  kFutureLeaks,          // y_t sees x_{t+1}
  kFutureGradientLeaks,  // grad_x of later positions is not quite zero
  kRandom,               // the last bit depends on how often it was called
  kAssumesContiguous,    // strides are ignored
  kMaskIgnored,
  kMaskMultiplies,     // NaN at a padded position spreads
  kPaddedGradient,     // padded positions get a gradient
  kSequencesRunOn,     // boundaries are ignored
  kModifiesInput,      // padded positions of x are overwritten
  kReturnsInput,       // the output is x itself
  kCoarseHalves,       // half precision is off by 5 %
  kFloatSums,          // float64 is computed in float32
  kOddLengthWrong,     // the last position of lengths above 16 that are no multiple of 4
  kWrongShape,         // the shape function forgets a dtype
  kOtherMaskBackward,  // backward draws another dropout mask
  kKeepsTooMany,       // the share kept is off by 2 %
  kNotScaled,          // what is kept is not divided by 1 - p
  kSeedIgnored,
  kRefusesNothing,
  kWrongSecondDerivative,
  kQuadraticMemory,
};

// With its cases. The golden values are those of tests/golden/moving_sum.txt.
Operator moving_sum(Fault fault);

// Differentiable twice, through the reference.
Operator moving_sum_twice(Fault fault);

}  // namespace headloom::testing
