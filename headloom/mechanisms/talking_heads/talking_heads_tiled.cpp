// Calls through the reference: tiles of queries on devices without fused kernels, and whole calls
// for second derivatives.
#include <ATen/ATen.h>

#include <functional>

#include "headloom/base/check.h"
#include "headloom/mechanisms/talking_heads/talking_heads_dispatch.h"
#include "headloom/mechanisms/talking_heads/talking_heads_reference.h"
#include "headloom/mechanisms/talking_heads/talking_heads_segments.h"
#include "headloom/tensor/contract.h"
#include "headloom/tensor/dispatch.h"
#include "headloom/tensor/gradients.h"

namespace headloom {

using at::Tensor;
using kernels::AttentionSegment;

std::vector<AttentionSegment> attention_segments(const Tensor& q, const Tensor& k,
                                                 const TalkingHeadsOptions& call) {
  const uint64_t seed =
      call.dropout_p > 0.0 ? static_cast<uint64_t>(call.seed->item<int64_t>()) : 0;
  std::vector<AttentionSegment> segments;
  if (!call.cu_seqlens_q) {
    for (int64_t b = 0; b < q.size(0); ++b) {
      segments.push_back({b, 0, q.size(2), 0, k.size(2), seed});
    }
    return segments;
  }
  constexpr const char* kOp = "talking_heads_attention";
  const auto queries = read_boundaries(kOp, "cu_seqlens_q", *call.cu_seqlens_q, q.size(2));
  const auto keys = read_boundaries(kOp, "cu_seqlens_k", *call.cu_seqlens_k, k.size(2));
  HEADLOOM_CHECK(queries.size() == keys.size(), kOp,
                 cat("cu_seqlens_k for ", queries.size() - 1, " sequences"), cat(keys.size() - 1));
  for (size_t s = 0; s + 1 < queries.size(); ++s) {
    segments.push_back(
        {0, queries[s], queries[s + 1] - queries[s], keys[s], keys[s + 1] - keys[s], seed + s});
  }
  return segments;
}

namespace {

// Elements of one tile of logits: 4 MiB of float32. The graph of a tile's backward pass holds some
// thirty tensors of that size at once.
constexpr int64_t kTileElements = int64_t{1} << 20;

// Some queries of one sequence of a call, as arguments of the reference. Undefined inputs stay so.
struct Part {
  const AttentionSegment& segment;
  bool packed;
  int64_t all_keys, begin, count;

  std::vector<Tensor> inputs(const std::vector<Tensor>& whole) const {
    std::vector<Tensor> part = whole;
    const int64_t first = segment.query_begin + begin;
    part[0] = whole[0].narrow(2, first, count);
    for (const size_t i : {5, 7}) {
      if (part[i].defined()) part[i] = whole[i].narrow(1, first, count);
    }
    const Tensor& bias = whole[kBiasInput];
    if (bias.defined() && bias.dim() >= 2 && bias.size(-2) != 1) {
      part[kBiasInput] = bias.narrow(-2, first, count);
    }
    if (!packed) return part;
    for (const size_t i : {1, 2}) part[i] = keys(whole[i], 2);
    for (const size_t i : {6, 8}) {
      if (part[i].defined()) part[i] = keys(whole[i], 1);
    }
    return part;
  }
  TalkingHeadsCall call(TalkingHeadsCall whole, const std::vector<Tensor>& inputs) const {
    if (packed && whole.key_padding_mask) whole.key_padding_mask = keys(*whole.key_padding_mask, 1);
    if (whole.seed && packed)
      whole.seed = at::scalar_tensor(static_cast<int64_t>(segment.seed), whole.seed->options());
    return with_inputs(whole, inputs);
  }
  TalkingHeadsRows rows() const { return {segment.queries, begin, all_keys - 1}; }

 private:
  Tensor keys(const Tensor& x, int64_t axis) const {
    return x.narrow(axis, segment.key_begin, segment.keys);
  }
};

TalkingHeadsHalves attend(const Part& part, const std::vector<Tensor>& inputs,
                          const TalkingHeadsCall& call) {
  return talking_heads_reference(inputs[0], inputs[1], inputs[2], part.call(call, inputs),
                                 part.rows());
}

// One sequence for a call that is not packed: its batch is one tensor.
std::vector<AttentionSegment> sequences(const Tensor& q, const Tensor& k,
                                        const TalkingHeadsCall& call) {
  if (call.cu_seqlens_q) return attention_segments(q, k, call);
  return {{0, 0, q.size(2), 0, k.size(2), 0}};
}

void for_parts(const Tensor& q, const Tensor& k, int64_t heads, const TalkingHeadsCall& call,
               const std::function<void(const Part&)>& body) {
  for (const AttentionSegment& segment : sequences(q, k, call)) {
    const int64_t row = std::max<int64_t>(1, q.size(0) * heads * segment.keys);
    const int64_t tile = std::max<int64_t>(1, kTileElements / row);
    for (int64_t begin = 0; begin < segment.queries; begin += tile) {
      body({segment, call.cu_seqlens_q.has_value(), k.size(2), begin,
            std::min(tile, segment.queries - begin)});
    }
  }
}

std::vector<Tensor> in_type(std::vector<Tensor> inputs, at::ScalarType type) {
  for (Tensor& input : inputs) {
    if (input.defined()) input = input.to(type);
  }
  return inputs;
}

}  // namespace

TalkingHeadsHalves tiled_talking_heads(const Tensor& q, const Tensor& k, const Tensor& v,
                                       const TalkingHeadsCall& call) {
  const TalkingHeadsSizes sizes(k, v, call);
  const at::ScalarType type = accumulation_type(q);
  const std::vector<Tensor> inputs = in_type(talking_heads_inputs(q, k, v, call), type);
  const Tensor out = at::empty({q.size(0), v.size(1), q.size(2), v.size(3)}, q.options());
  const Tensor log2_sums = at::empty({q.size(0), sizes.heads, q.size(2)}, q.options().dtype(type));
  for_parts(q, k, sizes.heads, call, [&](const Part& part) {
    const auto [part_out, part_sums] = attend(part, part.inputs(inputs), call);
    const int64_t first = part.segment.query_begin + part.begin;
    out.narrow(2, first, part.count).copy_(part_out);
    log2_sums.narrow(2, first, part.count).copy_(part_sums);
  });
  return {out, log2_sums};
}

// What every tile adds to lies in one tensor an input; narrowed views of it are the tile's share.
std::vector<Tensor> tiled_talking_heads_backward(const Tensor& grad_out, const Tensor& q,
                                                 const Tensor& k, const Tensor& v,
                                                 const TalkingHeadsWanted& wanted,
                                                 const TalkingHeadsCall& call) {
  const TalkingHeadsSizes sizes(k, v, call);
  const at::ScalarType type = accumulation_type(q);
  const std::vector<Tensor> given = talking_heads_inputs(q, k, v, call);
  const std::vector<Tensor> inputs = in_type(given, type);
  std::vector<Tensor> gradients(inputs.size());
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (inputs[i].defined()) gradients[i] = at::zeros(inputs[i].sizes(), inputs[i].options());
  }
  for_parts(q, k, sizes.heads, call, [&](const Part& part) {
    const int64_t first = part.segment.query_begin + part.begin;
    const auto found = gradients_of(
        [&](const std::vector<Tensor>& x) { return std::get<0>(attend(part, x, call)); },
        part.inputs(inputs), std::vector<bool>(wanted.begin(), wanted.end()),
        grad_out.narrow(2, first, part.count).to(type));
    const std::vector<Tensor> shares = part.inputs(gradients);
    for (size_t i = 0; i < found.size(); ++i) {
      if (found[i].defined()) shares[i].add_(found[i]);
    }
  });
  for (size_t i = 0; i < gradients.size(); ++i) {
    gradients[i] = wanted[i] ? gradients[i].to(given[i].scalar_type()) : or_empty({}, q);
  }
  return gradients;
}

Tensor talking_heads_composite(const std::vector<Tensor>& inputs, const TalkingHeadsCall& call) {
  const Tensor &q = inputs[0], &k = inputs[1], &v = inputs[2];
  std::vector<Tensor> parts{at::empty({q.size(0), v.size(1), 0, v.size(3)}, q.options())};
  for (const AttentionSegment& segment : sequences(q, k, call)) {
    const Part part{segment, call.cu_seqlens_q.has_value(), k.size(2), 0, segment.queries};
    parts.push_back(std::get<0>(attend(part, part.inputs(inputs), call)));
  }
  return at::cat(parts, 2);
}

}  // namespace headloom
