#pragma once

#include <vector>

#include "headloom/mechanisms/talking_heads/talking_heads.h"
#include "headloom/mechanisms/talking_heads/talking_heads_kernels.h"

namespace headloom {

// The elements of the batch, or the sequences of a packed one. Sequences do not share a dropout
// mask: sequence s has the seed plus s. Refuses boundaries that do not fit.
std::vector<kernels::AttentionSegment> attention_segments(const at::Tensor& q, const at::Tensor& k,
                                                          const TalkingHeadsOptions& call);

}  // namespace headloom
