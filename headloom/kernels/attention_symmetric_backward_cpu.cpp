#include "headloom/kernels/attention_grad.h"
#include "headloom/kernels/attention_symmetric.h"

namespace headloom::kernels::HEADLOOM_ISA {

namespace {

// Epilogue of the logits: the weight of query (column) and key (row), and beside it that of the
// query (row) and key (column).
template <class T>
struct WeightsOfPair {
  static constexpr bool kReadsC = false;
  const T* log2_sum;      // of the columns
  const T* row_log2_sum;  // of the rows
  const T* hidden;        // of the columns as keys: 0, or -inf where nothing sees them
  T* mirrored;            // [rows, kQueryTile]
  HEADLOOM_INLINE Vec<T> operator()(Vec<T> logit, Vec<T>, int64_t row, int64_t column) const {
    const Vec<T> shift = load(hidden + column) - set1(row_log2_sum[row]);
    store(mirrored + row * kQueryTile + column, exp2(logit + shift));
    return exp2(logit - load(log2_sum + column));
  }
};

// Epilogue of the gradient of the mirrored weights: adds the gradient of the logit from there to
// what C holds from the other side.
template <class T>
struct GradOfMirrored {
  static constexpr bool kReadsC = true;
  const T* mirrored;   // [rows, kQueryTile]
  const T* dropout;    // the same shape, or nullptr
  const T* row_delta;  // of the rows
  T scale;
  HEADLOOM_INLINE Vec<T> operator()(Vec<T> grad, Vec<T> before, int64_t row, int64_t column) const {
    const int64_t element = row * kQueryTile + column;
    if (dropout) grad = grad * load(dropout + element);
    return fma(load(mirrored + element) * set1(scale), grad - set1(row_delta[row]), before);
  }
};

template <class S>
class SymmetricBackward {
  using T = accumulator_t<S>;

 public:
  SymmetricBackward(const AttentionGradArgs<S>& grad, T* base)
      : grad_(grad), args_(grad.call), space_{base}, heads_(grad, space_), queries_(args_, space_) {
    constexpr int64_t kTile = kKeyBlock * kQueryTile;
    const Longest longest = longest_of(args_);
    const int64_t rows = query_tiles(longest.keys) * kQueryTile;
    gathered_grad_ = space_.take(gathered_size(grad.grad_out, args_.value_width, longest));
    log2_sum_ = space_.take(rows);
    delta_ = space_.take(rows);
    hidden_ = space_.take(kQueryTile);
    grad_lanes_ = space_.take(kQueryTile * args_.value_width);
    value_lanes_ = space_.take(kQueryTile * args_.value_width);
    weights_ = space_.take(kTile);
    mirrored_ = space_.take(kTile);
    grad_logits_ = space_.take(kTile);
    dropout_ = args_.dropout_p > 0 ? space_.take(kTile) : nullptr;
    mirrored_dropout_ = args_.dropout_p > 0 ? space_.take(kTile) : nullptr;
    turned_ = args_.dropout_p > 0 ? space_.take(kQueryTile * kQueryTile) : nullptr;
    grad_v_ = space_.take(longest.keys * args_.value_width);
    mixed_ = space_.take(longest.keys * args_.width);
    grad_q_ = args_.fold || args_.k.group > 1 ? space_.take(longest.keys * args_.width) : mixed_;
    unfolded_ = space_.take(args_.fold ? kQueryTile * args_.width : 0);
  }

  int64_t space() const { return space_.used; }

  void heads(const AttentionSequence& s, int64_t key_head, T* grad_fold) {
    const int64_t D = args_.width, Dv = args_.value_width, group = args_.k.group;
    fill(grad_q_, s.keys * D, T(0));
    for (int64_t i = 0; i < group; ++i) {
      const int64_t head = key_head * group + i;
      enter(s, head);
      for (int64_t t = 0; t < query_tiles(s.queries); ++t) tile(tile_at(s, head, t));
      finish(s, head, grad_fold ? grad_fold + i * D * D : nullptr);
      copy_rows(grad_v_, Dv, s.keys, Dv, grad_.grad_v.at(s.batch, head, s.key_begin),
                grad_.grad_v.row_stride);
    }
    copy_rows(grad_q_, D, s.keys, D, grad_.grad_k.at(s.batch, key_head * group, s.key_begin),
              grad_.grad_k.row_stride);
  }

 private:
  void enter(const AttentionSequence& s, int64_t head) {
    const int64_t Dv = args_.value_width;
    heads_.enter(s, head);
    grad_rows_ = head_rows(grad_.grad_out, s.batch, head, s.query_begin, s.queries, Dv,
                           gathers(grad_.grad_out, Dv, s.queries), gathered_grad_);
    fill(grad_v_, s.keys * Dv, T(0));
    fill(mixed_, s.keys * args_.width, T(0));
    for (int64_t t = 0; t < query_tiles(s.queries); ++t) {
      const TileAt at = tile_at(s, head, t);
      load_sums(grad_, at, {grad_rows_.at(at.query), grad_rows_.stride}, log2_sum_ + at.query,
                delta_ + at.query);
    }
  }

  void tile(const TileAt& at) {
    const int64_t Dv = args_.value_width;
    load_queries(args_, at, queries_);
    transpose_queries<T>({grad_rows_.at(at.query), grad_rows_.stride}, at.rows, Dv, grad_lanes_,
                         T(1));
    transpose_queries<T>({heads_.values.at(at.query), heads_.values.stride}, at.rows, Dv,
                         value_lanes_, T(1));
    const Block keys = as_keys(args_, at);
    for (int64_t i = 0; i < kQueryTile; ++i) {
      const bool padded = keys.padding && i < at.rows && keys.padding[i];
      hidden_[i] = padded ? -ExpConstants<T>::kInfinity : T(0);
    }
    for_each_later_block(args_, at, [&](const Block& block) {
      differentiate(at, block);
      if (block.key != at.query) differentiate_mirrored(at, block);
      mix(at, block);
    });
  }

  // The side of this tile's queries: weights and their part of the gradient of the logits.
  void differentiate(const TileAt& at, const Block& block) {
    const int64_t D = args_.width, Dv = args_.value_width, lanes = lanes_for<T>(at.rows);
    const GemmArgs<T> logits{block.keys,
                             lanes,
                             D,
                             heads_.keys.at(block.key),
                             heads_.keys.stride,
                             1,
                             queries_.lanes,
                             kQueryTile,
                             weights_,
                             kQueryTile};
    const T* log2_sum = log2_sum_ + at.query;
    if (block.key == at.query) {
      gemm_tile(logits, WeightOfLogit<T>{log2_sum, nullptr});
    } else {
      gemm_tile(logits, WeightsOfPair<T>{log2_sum, log2_sum_ + block.key, hidden_, mirrored_});
    }
    hide(block, lanes, T(0), weights_);
    if (dropout_) draw(at, block, dropout_);
    gemm_tile(GemmArgs<T>{block.keys, lanes, Dv, heads_.values.at(block.key), heads_.values.stride,
                          1, grad_lanes_, kQueryTile, grad_logits_, kQueryTile},
              GradOfLogit<T>{weights_, dropout_, delta_ + at.query, T(args_.scale)});
    if (dropout_) multiply_tile(dropout_, block.keys, lanes, weights_);
    gemm_tile(GemmArgs<T>{block.keys, Dv, at.rows, weights_, kQueryTile, 1, grad_rows_.at(at.query),
                          grad_rows_.stride, grad_v_ + block.key * Dv, Dv},
              Accumulate{});
  }

  // The side of the block's rows as queries of this tile's.
  void differentiate_mirrored(const TileAt& at, const Block& block) {
    const int64_t Dv = args_.value_width, lanes = lanes_for<T>(at.rows);
    if (dropout_) draw_mirrored(at, block);
    gemm_tile(GemmArgs<T>{block.keys, lanes, Dv, grad_rows_.at(block.key), grad_rows_.stride, 1,
                          value_lanes_, kQueryTile, grad_logits_, kQueryTile},
              GradOfMirrored<T>{mirrored_, mirrored_dropout_, delta_ + block.key, T(args_.scale)});
    if (dropout_) multiply_tile(mirrored_dropout_, block.keys, lanes, mirrored_);
    gemm_tile(GemmArgs<T>{at.rows, Dv, block.keys, mirrored_, 1, kQueryTile,
                          grad_rows_.at(block.key), grad_rows_.stride, grad_v_ + at.query * Dv, Dv},
              Accumulate{});
  }

  // The gradient of the pair's logits times the queries, both ways.
  void mix(const TileAt& at, const Block& block) {
    const int64_t D = args_.width;
    const Rows<T>& q = heads_.keys;
    gemm_tile(GemmArgs<T>{block.keys, D, at.rows, grad_logits_, kQueryTile, 1, q.at(at.query),
                          q.stride, mixed_ + block.key * D, D},
              Accumulate{});
    gemm_tile(GemmArgs<T>{at.rows, D, block.keys, grad_logits_, 1, kQueryTile, q.at(block.key),
                          q.stride, mixed_ + at.query * D, D},
              Accumulate{});
  }

  void draw(const TileAt& at, const Block& block, T* mask) {
    dropout_tile(dropout_at(args_, at, block.key), T(1 / (1 - args_.dropout_p)), block.keys,
                 lanes_for<T>(at.rows), mask, kQueryTile);
  }

  void draw_mirrored(const TileAt& at, const Block& block) {
    const Block keys = as_keys(args_, at);
    for (int64_t i = 0; i < block.keys; i += kQueryTile) {
      const TileAt later = tile_at(at.sequence, at.head, (block.key + i) / kQueryTile);
      draw(later, keys, turned_);
      transpose_tile(turned_, kQueryTile, at.rows, later.rows, mirrored_dropout_ + i * kQueryTile,
                     kQueryTile);
    }
  }

  // From the products with the queries to the gradients of q and of the fold.
  void finish(const AttentionSequence& s, int64_t head, T* grad_fold) {
    const int64_t D = args_.width;
    if (grad_fold) {
      gemm_tile(GemmArgs<T>{D, D, s.keys, heads_.keys.data, 1, heads_.keys.stride, mixed_, D,
                            grad_fold, D},
                Assign{});
      for (int64_t i = 0; i < D * D; ++i) grad_fold[i] *= T(0.5);
    }
    if (args_.fold) {
      for (int64_t row = 0; row < s.keys; row += kQueryTile) {
        const int64_t rows = least(kQueryTile, s.keys - row);
        gemm_tile(GemmArgs<T>{rows, D, D, mixed_ + row * D, D, 1,
                              args_.fold_transposed + head * D * D, D, unfolded_, D},
                  Assign{});
        add_rows(unfolded_, D, rows, D, grad_q_ + row * D, D);
      }
    } else if (grad_q_ != mixed_) {
      add_rows(mixed_, D, s.keys, D, grad_q_, D);
    }
  }

  const AttentionGradArgs<S>& grad_;
  const AttentionArgs<S>& args_;
  Space<T> space_;
  GradHeads<S> heads_;
  QueryTile<T> queries_;
  T* gathered_grad_;
  Rows<T> grad_rows_;                         // of the output
  T *log2_sum_, *delta_;                      // of all queries
  T* hidden_;                                 // [kQueryTile]
  T *grad_lanes_, *value_lanes_;              // [Dv, kQueryTile]
  T *weights_, *mirrored_, *grad_logits_;     // [kKeyBlock, kQueryTile]
  T *dropout_, *mirrored_dropout_, *turned_;  // the same, the last [kQueryTile, kQueryTile]
  T *grad_v_, *mixed_, *grad_q_, *unfolded_;  // [keys, Dv], [keys, D] twice, [kQueryTile, D]
};

template <class S>
int64_t backward_space(const AttentionGradArgs<S>& args) {
  return SymmetricBackward<S>(args, nullptr).space();
}

template <class S>
void backward_heads(const AttentionGradArgs<S>& args, int64_t sequence, int64_t key_head,
                    accumulator_t<S>* grad_fold, accumulator_t<S>* space) {
  SymmetricBackward<S>(args, space).heads(args.call.sequences[sequence], key_head, grad_fold);
}

template <class S>
constexpr SymmetricBackwardKernels<S> kKernels{backward_space<S>, backward_heads<S>};

}  // namespace

extern const SymmetricBackwardTable symmetric_backward_table;
const SymmetricBackwardTable symmetric_backward_table = {kKernels<double>, kKernels<float>,
                                                         kKernels<BFloat16>, kKernels<Half>};

}  // namespace headloom::kernels::HEADLOOM_ISA
