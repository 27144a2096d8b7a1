#include "headloom/kernels/attention.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "tests/kernels/attention_reference.h"
#include "tests/kernels/guarded.h"
#include "tests/support/rounding.h"

// The tile engine in every instruction set and type, against plain loops.
namespace headloom::kernels {
namespace {

using headloom::testing::gemm_bound;
using headloom::testing::unit_roundoff;
using testing::AttentionCase;
using testing::AttentionNumbers;
using testing::AttentionResults;
using testing::Guarded;
using testing::to_double;

// A tensor [B, heads, rows, width] with its numbers in double, densely.
template <class S>
class Heads {
 public:
  Heads(const AttentionCase& c, int64_t heads, int64_t rows, int64_t width)
      : heads_(heads),
        rows_(rows),
        width_(width),
        interleaved_(c.interleaved),
        data_(c.batches * heads * rows * width, rows % 3) {}

  void draw(uint32_t seed) { testing::fill_uniform(data_.data(), data_.size(), seed, 1.5); }
  std::vector<double> numbers() {
    std::vector<double> dense;
    for (int64_t i = 0; i < data_.size(); ++i) {
      const int64_t column = i % width_, row = i / width_ % rows_, pair = i / width_ / rows_;
      const S* element = rows_of<S>(1).at(pair / heads_, pair % heads_, row) + column;
      dense.push_back(to_double(*element));
    }
    return dense;
  }
  template <class R>
  HeadRows<R> rows_of(int64_t group) {
    const int64_t batch = heads_ * rows_ * width_;
    return interleaved_ ? HeadRows<R>{data_.data(), batch, width_, heads_ * width_, group}
                        : HeadRows<R>{data_.data(), batch, rows_ * width_, width_, group};
  }
  bool surroundings_intact() { return data_.surroundings_intact(); }

 private:
  int64_t heads_, rows_, width_;
  bool interleaved_;
  Guarded<S> data_;
};

template <class T>
std::vector<double> in_double(Guarded<T>& x) {
  std::vector<double> numbers;
  for (int64_t i = 0; i < x.size(); ++i) numbers.push_back(to_double(x[i]));
  return numbers;
}

template <class S>
class Problem {
  using T = accumulator_t<S>;

 public:
  explicit Problem(const AttentionCase& given)
      : c(given),
        shared(c.heads / c.group),
        q(c, c.tied ? shared : c.heads, c.queries, c.width),
        k(c, shared, c.keys, c.width),
        v(c, c.heads, c.keys, c.value_width),
        grad_out(c, c.heads, c.queries, c.value_width),
        out(c, c.heads, c.queries, c.value_width),
        grad_q(c, c.heads, c.queries, c.width),
        grad_k(c, shared, c.keys, c.width),
        grad_v(c, c.heads, c.keys, c.value_width),
        log2_sum(c.batches * c.heads * c.queries),
        fold(c.fold ? c.heads * c.width * c.width : 0),
        fold_transposed(fold.size()),
        grad_fold(fold.size()),
        bias(c.bias_batches * c.bias_heads * c.bias_queries * c.bias_keys),
        grad_bias(bias.size()),
        padding(static_cast<size_t>(c.batches * c.keys)) {
    q.draw(1);
    k.draw(2);
    v.draw(3);
    grad_out.draw(4);
    testing::fill_uniform(bias.data(), bias.size(), 5);
    testing::fill_uniform(fold.data(), fold.size(), 6);
    for (int64_t i = 0; i < grad_bias.size(); ++i) grad_bias[i] = 0;
    for (int64_t i = 0; i < fold.size(); ++i) {
      const int64_t row = i / c.width % c.width, column = i % c.width;
      const int64_t mirror = i + (column - row) * (c.width - 1);
      if (c.symmetric && row < column) fold[mirror] = fold[i];
    }
    for (int64_t i = 0; i < fold.size(); ++i) {
      const int64_t row = i / c.width % c.width, column = i % c.width;
      fold_transposed[i + (column - row) * (c.width - 1)] = fold[i];
    }
    // Holes, and in the last element of the batch no key at all.
    for (size_t i = 0; i < padding.size(); ++i) {
      const bool last = static_cast<int64_t>(i) >= (c.batches - 1) * c.keys;
      padding[i] = last || i % 7 == 2 || i % 11 < 3;
    }
    for (int64_t b = 0; b < c.batches; ++b) {
      sequences.push_back({b, 0, c.queries, 0, c.keys, testing::kAttentionSeed});
    }
  }

  AttentionGradArgs<S> args() {
    AttentionGradArgs<S> a{};
    AttentionArgs<S>& call = a.call;
    call.heads = c.heads;
    call.width = c.width;
    call.value_width = c.value_width;
    call.sequences = sequences.data();
    call.sequence_count = c.batches;
    const int64_t q_group = c.tied ? c.group : 1;
    call.q = q.template rows_of<const S>(q_group);
    call.k = c.tied ? call.q : k.template rows_of<const S>(c.group);
    call.v = v.template rows_of<const S>(1);
    call.fold = c.fold ? fold.data() : nullptr;
    call.fold_transposed = c.fold ? fold_transposed.data() : nullptr;
    if (c.bias_keys) {
      const auto stride = [](int64_t size, int64_t step) { return size == 1 ? 0 : step; };
      call.bias = {bias.data(), stride(c.bias_batches, c.bias_heads * c.bias_queries * c.bias_keys),
                   stride(c.bias_heads, c.bias_queries * c.bias_keys),
                   stride(c.bias_queries, c.bias_keys), stride(c.bias_keys, 1)};
    }
    call.padding = c.padding ? padding.data() : nullptr;
    call.padding_stride = c.keys;
    call.causal = c.causal;
    call.scale = 1 / std::sqrt(static_cast<double>(c.width));
    call.dropout_p = c.dropout_p;
    call.out = out.template rows_of<S>(1);
    call.log2_sum = {log2_sum.data(), c.heads * c.queries, c.queries, 1, 1};
    a.grad_out = grad_out.template rows_of<const S>(1);
    if (!c.tied) a.grad_q = grad_q.template rows_of<S>(1);
    a.grad_k = grad_k.template rows_of<S>(c.group);
    a.grad_v = grad_v.template rows_of<S>(1);
    a.grad_fold = c.fold ? grad_fold.data() : nullptr;
    return a;
  }

  void run() {
    const AttentionGradArgs<S> a = args();
    c.symmetric ? symmetric_forward(a.call) : attention_forward(a.call);
    c.symmetric ? symmetric_backward(a) : attention_backward(a);
    if (c.bias_keys) {
      attention_bias_backward(AttentionBiasGradArgs<S>{
          a, c.bias_batches, c.bias_heads, c.bias_queries, c.bias_keys, grad_bias.data()});
    }
  }

  AttentionNumbers numbers() {
    return {q.numbers(),     k.numbers(),        v.numbers(), in_double(fold),
            in_double(bias), grad_out.numbers(), padding};
  }

  // Every sum that leads to a result has at most this many terms, and logits are below 2^4.
  void expect(const char* what, const std::vector<double>& found,
              const std::vector<double>& exact) const {
    ASSERT_EQ(found.size(), exact.size()) << what;
    double magnitude = 1;
    for (double value : exact)
      magnitude = std::isinf(value) ? magnitude : std::max(magnitude, std::abs(value));
    const double terms = static_cast<double>(c.width + c.value_width + c.keys + c.queries);
    const double rounded = sizeof(S) == 2 ? 8 * unit_roundoff<S>() * magnitude : 0.0;
    const double bound = gemm_bound<T>(terms, 4 * magnitude) + rounded;
    for (size_t i = 0; i < found.size(); ++i) {
      if (found[i] == exact[i]) continue;  // infinities
      ASSERT_LE(std::abs(found[i] - exact[i]), bound) << what << " " << i;
    }
  }

  void check() {
    run();
    const AttentionResults exact = attend(c, numbers());
    expect("out", out.numbers(), exact.out);
    expect("log2_sum", in_double(log2_sum), exact.log2_sum);
    if (!c.tied) expect("grad_q", grad_q.numbers(), exact.grad_q);
    expect("grad_k", grad_k.numbers(), exact.grad_k);
    expect("grad_v", grad_v.numbers(), exact.grad_v);
    expect("grad_fold", in_double(grad_fold), exact.grad_fold);
    expect("grad_bias", in_double(grad_bias), exact.grad_bias);
    EXPECT_TRUE(out.surroundings_intact() && grad_q.surroundings_intact() &&
                grad_k.surroundings_intact() && grad_v.surroundings_intact() &&
                log2_sum.surroundings_intact() && grad_fold.surroundings_intact());
  }

  AttentionCase c;
  int64_t shared;
  Heads<S> q, k, v, grad_out, out, grad_q, grad_k, grad_v;
  Guarded<T> log2_sum, fold, fold_transposed, grad_fold;
  Guarded<S> bias;
  Guarded<T> grad_bias;
  std::vector<uint8_t> padding;
  std::vector<AttentionSequence> sequences;
};

std::vector<AttentionCase> cases() {
  std::vector<AttentionCase> all{
      {.id = "self"},
      {.id = "short", .queries = 5, .keys = 3, .width = 3, .value_width = 1},
      {.id = "one_query", .queries = 1, .keys = 270, .width = 33},
      {.id = "no_keys", .keys = 0},
      {.id = "no_queries", .queries = 0},
      {.id = "causal", .queries = 130, .keys = 130, .causal = true},
      {.id = "causal_fewer_keys", .queries = 90, .keys = 40, .causal = true},
      {.id = "padding", .queries = 30, .keys = 290, .padding = true},
      {.id = "causal_padding_interleaved",
       .queries = 70,
       .keys = 101,
       .causal = true,
       .padding = true,
       .interleaved = true},
      {.id = "bias",
       .keys = 99,
       .bias_batches = 2,
       .bias_heads = 2,
       .bias_queries = 70,
       .bias_keys = 99},
      {.id = "bias_of_keys",
       .keys = 300,
       .causal = true,
       .bias_batches = 1,
       .bias_heads = 2,
       .bias_queries = 1,
       .bias_keys = 300,
       .padding = true},
      {.id = "bias_of_queries",
       .bias_batches = 2,
       .bias_heads = 1,
       .bias_queries = 70,
       .bias_keys = 1,
       .dropout_p = 0.3},
      {.id = "shared_keys", .heads = 4, .group = 2, .queries = 66},
      {.id = "one_head_in_parts", .batches = 1, .heads = 1, .queries = 200, .keys = 150},
      {.id = "wide", .batches = 1, .heads = 1, .width = 130, .value_width = 129},
  };
  for (const int64_t keys : {72, 73, 74, 75}) {  // a row of the mask begins anywhere in a block
    all.push_back({.id = "dropout", .queries = 66, .keys = keys, .dropout_p = 0.4});
  }
  for (const bool symmetric : {false, true}) {
    for (const int64_t length : {1, 64, 65, 200}) {
      for (const int64_t group : {1, 2}) {
        AttentionCase c{.id = symmetric ? "half_tiles" : "tied",
                        .group = group,
                        .queries = length,
                        .keys = length,
                        .tied = true,
                        .symmetric = symmetric};
        all.push_back(c);
        c.fold = true;
        c.padding = true;
        all.push_back(c);
        c.dropout_p = 0.3;
        c.interleaved = true;
        all.push_back(c);
      }
    }
    // More than one block of keys behind a tile.
    all.push_back({.id = symmetric ? "half_tiles_long" : "tied_long",
                   .batches = 1,
                   .queries = 420,
                   .keys = 420,
                   .width = 5,
                   .fold = true,
                   .tied = true,
                   .symmetric = symmetric});
  }
  return all;
}

template <class S>
void check_everywhere() {
  const Isa before = active_isa();
  for (const Isa isa : available_isas()) {
    use_isa(isa);
    for (const AttentionCase& c : cases()) {
      SCOPED_TRACE(::testing::Message() << name(isa) << ", " << c.id << ", " << c.queries << " x "
                                        << c.keys << (c.fold ? ", fold" : ""));
      Problem<S>(c).check();
    }
  }
  use_isa(before);
}

TEST(AttentionTest, Double) {
  check_everywhere<double>();
}
TEST(AttentionTest, Float) {
  check_everywhere<float>();
}
TEST(AttentionTest, BFloat16) {
  check_everywhere<BFloat16>();
}
TEST(AttentionTest, Half) {
  check_everywhere<Half>();
}

// The same bits twice.
TEST(AttentionTest, IsDeterministic) {
  for (AttentionCase c : cases()) {
    Problem<float> first(c), second(c);
    first.run();
    second.run();
    const auto same = [](std::vector<double> a, std::vector<double> b) {
      return a.size() == b.size() &&
             (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(double)) == 0);
    };
    EXPECT_TRUE(same(first.out.numbers(), second.out.numbers())) << c.id;
    EXPECT_TRUE(same(first.grad_k.numbers(), second.grad_k.numbers())) << c.id;
    EXPECT_TRUE(same(in_double(first.grad_fold), in_double(second.grad_fold))) << c.id;
  }
}

}  // namespace
}  // namespace headloom::kernels
