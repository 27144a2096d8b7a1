#pragma once

#include "headloom/mechanisms/talking_heads/talking_heads_driver.h"

// Where the backward pass keeps its sums over queries.
namespace headloom::kernels {

// Whole cache lines, so that workers do not share one.
inline int64_t whole_lines(int64_t elements) {
  return (elements + 15) / 16 * 16;
}

// The parts of a worker's sums: of keys, which members share, and its own.
template <class S>
struct TalkingHeadsSumsLayout {
  using T = accumulator_t<S>;
  int64_t keys, values, logits_by_key, weights_by_key, bias, relative_bias;
  int64_t logits, weights;  // doubles

  TalkingHeadsSumsLayout(const TalkingHeadsArgs<S>& args, int64_t longest_keys,
                         const TalkingHeadsTotals<S>& totals) {
    keys = whole_lines(args.key_heads * longest_keys * args.key_width);
    values = whole_lines(args.value_heads * longest_keys * args.value_width);
    logits_by_key = args.logits.by_key ? whole_lines(longest_keys * args.logits.size()) : 0;
    weights_by_key = args.weights.by_key ? whole_lines(longest_keys * args.weights.size()) : 0;
    bias = own_bias(totals) ? whole_lines(totals.bias_size) : 0;
    const int64_t distances = args.queries + args.keys - 1;
    relative_bias = totals.relative_bias
                        ? whole_lines((args.relative_head_stride == 0 ? 1 : args.heads) * distances)
                        : 0;
    logits = args.logits.weights ? whole_lines(args.logits.size()) : 0;
    weights = args.weights.weights ? whole_lines(args.weights.size()) : 0;
  }
  // Where queries or keys share an element, every worker has a bias gradient of its own.
  static bool own_bias(const TalkingHeadsTotals<S>& totals) {
    return totals.bias.data != nullptr &&
           (totals.bias.query_stride == 0 || totals.bias.key_stride == 0);
  }
  int64_t of_keys() const { return keys + values + logits_by_key + weights_by_key; }
  int64_t own() const { return bias + relative_bias; }
  int64_t doubles() const { return logits + weights; }

  TalkingHeadsSums<T> at(T* of_keys, T* own, double* doubles,
                         const TalkingHeadsTotals<S>& totals) const {
    TalkingHeadsSums<T> sums;
    const auto take = [](T*& memory, int64_t count) {
      T* const p = count > 0 ? memory : nullptr;
      memory += count;
      return p;
    };
    sums.keys = take(of_keys, keys);
    sums.values = take(of_keys, values);
    sums.logits_by_key = take(of_keys, logits_by_key);
    sums.weights_by_key = take(of_keys, weights_by_key);
    sums.bias = totals.bias;
    if (bias > 0) sums.bias.data = take(own, bias);
    sums.relative_bias = take(own, relative_bias);
    sums.logits = doubles;
    sums.weights = doubles + logits;
    return sums;
  }
};

}  // namespace headloom::kernels
