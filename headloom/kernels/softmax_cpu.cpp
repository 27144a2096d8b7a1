#include "headloom/kernels/gemm_tile.h"
#include "headloom/kernels/row_softmax.h"

namespace headloom::kernels::HEADLOOM_ISA {

namespace {

template <bool kMasked, class S>
void forward_rows(const RowSoftmaxArgs<S>& args) {
  const auto factor = static_cast<accumulator_t<S>>(args.scale * kLog2E);
  for (int64_t row = 0; row < args.rows; ++row) {
    const uint8_t* keep = kMasked ? args.keep + row * args.keep_stride : nullptr;
    softmax_row<kMasked>(args.x + row * args.x_stride, args.y + row * args.y_stride, keep,
                         args.length, factor);
  }
}

template <class S>
void forward(const RowSoftmaxArgs<S>& args) {
  args.keep != nullptr ? forward_rows<true>(args) : forward_rows<false>(args);
}

template <bool kMasked, class S>
void backward_rows(const RowSoftmaxGradArgs<S>& args) {
  const auto scale = static_cast<accumulator_t<S>>(args.scale);
  for (int64_t row = 0; row < args.rows; ++row) {
    const uint8_t* keep = kMasked ? args.keep + row * args.keep_stride : nullptr;
    softmax_grad_row<kMasked>(args.y + row * args.y_stride, args.grad_y + row * args.grad_y_stride,
                              args.grad_x + row * args.grad_x_stride, keep, args.length, scale);
  }
}

template <class S>
void backward(const RowSoftmaxGradArgs<S>& args) {
  args.keep != nullptr ? backward_rows<true>(args) : backward_rows<false>(args);
}

// scores[keys, kQueries] = logits[keys, queries], -inf in the lanes that are no query.
template <class T, int64_t kQueries>
void copy_logits(const StreamedMeanArgs<T>& args, int64_t key, int64_t keys, int64_t query,
                 int64_t queries, T (&scores)[StreamedMeanArgs<T>::kMaxKeyTile * kQueries]) {
  const Vec<T> nothing = set1(-ExpConstants<T>::kInfinity);
  for (int64_t i = 0; i < keys; ++i) {
    const T* logits = args.logits + (key + i) * args.logits_stride + query;
    for (int64_t j = 0; j < kQueries; j += kWidth<T>) {
      store(scores + i * kQueries + j, nothing);
    }
    for_each_vector<T>(queries, [&](int64_t j, auto count) HEADLOOM_INLINE_LAMBDA {
      store_at(scores + i * kQueries + j, count, load_at(logits + j, count));
    });
  }
}

template <class T>
void streamed_mean(const StreamedMeanArgs<T>& args) {
  using State = OnlineSoftmax<T, 2>;
  constexpr int64_t kQueries = State::kQueries;
  T scores[StreamedMeanArgs<T>::kMaxKeyTile * kQueries];
  T out[StreamedMeanArgs<T>::kMaxFeatures * kQueries];
  for (int64_t query = 0; query < args.queries; query += kQueries) {
    const int64_t left = args.queries - query;
    const int64_t queries = left < kQueries ? left : kQueries;
    State state;
    state.reset();
    for (int64_t i = 0; i < args.features * kQueries; i += kWidth<T>) {
      store(out + i, zero<T>());
    }
    for (int64_t key = 0; key < args.keys; key += args.key_tile) {
      const int64_t keys = key + args.key_tile < args.keys ? args.key_tile : args.keys - key;
      copy_logits<T, kQueries>(args, key, keys, query, queries, scores);
      if (state.absorb(scores, keys, kQueries)) {
        state.rescale(out, args.features, kQueries);
      }
      gemm_tile(GemmArgs<T>{args.features, kQueries, keys, args.values + key * args.values_stride,
                            1, args.values_stride, scores, kQueries, out, kQueries},
                Accumulate{});
    }
    state.normalize(out, args.features, kQueries);
    for (int64_t i = 0; i < args.features; ++i) {
      for_each_vector<T>(queries, [&](int64_t j, auto count) HEADLOOM_INLINE_LAMBDA {
        store_at(args.out + i * args.out_stride + query + j, count,
                 load_at(out + i * kQueries + j, count));
      });
    }
    state.log2_sums(args.log2_sum + query, queries);
  }
}

}  // namespace

extern const SoftmaxTable softmax_table;
const SoftmaxTable softmax_table = {{forward<double>, backward<double>},
                                    {forward<float>, backward<float>},
                                    {forward<BFloat16>, backward<BFloat16>},
                                    {forward<Half>, backward<Half>},
                                    streamed_mean<double>,
                                    streamed_mean<float>};

}  // namespace headloom::kernels::HEADLOOM_ISA
