#pragma once

#include <ATen/core/Tensor.h>

#include "headloom/mechanisms/h_transformer/h_transformer_dispatch.h"

namespace headloom {

// The level at which token i sees token j, [T, T] int64: the lowest where their blocks of R groups
// are the same or neighbours.
at::Tensor h_attention_level_of(int64_t time, int64_t block_size, const at::Device& device);

// The weights [B, H, T, T] of a call that is not packed, in the dtype of q.
at::Tensor h_attention_dense(const at::Tensor& q, const at::Tensor& k, const HAttentionCall& call);

// The oracle: those weights times v, one product for each sequence.
at::Tensor h_attention_reference(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                 const HAttentionCall& call);

}  // namespace headloom
