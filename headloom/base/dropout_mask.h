#pragma once

#include "headloom/base/rng.h"

namespace headloom {

// A part of the dropout mask of a larger tensor: `count` elements in runs of `run`; run r starts at
// element r * stride + offset of the whole. Kept elements are `kept`, the others 0.
struct DropoutMaskArgs {
  float* out;
  int64_t count, run, stride, offset;
  uint64_t seed, threshold;
  float kept;
};

HEADLOOM_INLINE float dropout_mask_element(const DropoutMaskArgs& args, int64_t i) {
  const int64_t element = i / args.run * args.stride + args.offset + i % args.run;
  return dropout_keeps(args.seed, static_cast<uint64_t>(element), args.threshold) ? args.kept
                                                                                  : 0.0f;
}

// Fills out, a pointer on the current CUDA device, in the order of `stream` (a cudaStream_t).
// Returns nullptr, or CUDA's description of what went wrong. Linked only when torch has CUDA.
const char* fill_dropout_mask_cuda(const DropoutMaskArgs& args, void* stream);

}  // namespace headloom
