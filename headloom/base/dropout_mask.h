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

// Elements [begin, end) of the part, in memory of the processor. One block of random words serves
// the four elements that share it.
inline void fill_dropout_mask(const DropoutMaskArgs& args, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end;) {
    const int64_t in_run = i % args.run;
    const int64_t element = i / args.run * args.stride + args.offset + in_run;
    const int64_t word = element % 4;
    const int64_t left_in_run = args.run - in_run, left = end - i;
    int64_t count = 4 - word;
    count = count < left_in_run ? count : left_in_run;
    count = count < left ? count : left;
    const Philox4 block = philox4x32(args.seed, static_cast<uint64_t>(element / 4));
    for (int64_t k = 0; k < count; ++k) {
      args.out[i + k] = block.word[word + k] >= args.threshold ? args.kept : 0.0f;
    }
    i += count;
  }
}

// Fills out, a pointer on the current CUDA device, in the order of `stream` (a cudaStream_t).
// Returns nullptr, or CUDA's description of what went wrong. Linked only when torch has CUDA.
const char* fill_dropout_mask_cuda(const DropoutMaskArgs& args, void* stream);

}  // namespace headloom
