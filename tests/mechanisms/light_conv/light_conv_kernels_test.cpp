// The fused kernels of the processor where the conformance cases do not reach: every width that has
// a body of its own and its neighbours, lengths around tiles and kernels, heads of odd widths,
// every instruction set.
#include "headloom/mechanisms/light_conv/light_conv_kernels.h"

#include <cmath>
#include <limits>

#include "headloom/tensor/dispatch.h"
#include "tests/mechanisms/light_conv/light_conv_cases.h"
#include "tests/support/closeness.h"
#include "tests/support/with_threads.h"

namespace headloom::conv_testing {
namespace {

using kernels::Isa;
using testing::Difference;
using testing::differs_by_more_than_rounding;
using testing::differs_in_bits;
using testing::WithThreads;

// Restores what was in use.
class WithIsa {
 public:
  explicit WithIsa(Isa isa) : before_(kernels::active_isa()) { kernels::use_isa(isa); }
  ~WithIsa() { kernels::use_isa(before_); }

 private:
  Isa before_;
};

struct Shape {
  int64_t batch, time, heads, per_head, taps, padding;
};
std::ostream& operator<<(std::ostream& out, const Shape& s) {
  return out << "B " << s.batch << ", T " << s.time << ", H " << s.heads << ", R " << s.per_head
             << ", K " << s.taps << ", P " << s.padding;
}

void expect_none(const Difference& difference, const char* what) {
  EXPECT_FALSE(difference) << what << ": " << *difference;
}

struct Problem {
  Tensor x, weight, bias, grad;
  ConvCall call;

  std::vector<Tensor> results(Path path, at::ScalarType type) const {
    const auto function = [&](const std::vector<Tensor>& in) {
      ConvCall with_bias = call;
      with_bias.conv_bias = in[2];
      return path(in[0], in[1], with_bias);
    };
    const std::vector<Tensor> inputs{x.to(type), weight.to(type), bias.to(type)};
    std::vector<Tensor> all = gradients(function, inputs, grad.to(type));
    all.insert(all.begin(), function(inputs));
    return all;
  }
};

Problem problem(const Shape& s, bool is_dynamic) {
  Problem p;
  const int64_t channels = s.heads * s.per_head;
  p.x = normal({s.batch, s.time, channels}, 1);
  p.grad = normal({s.batch, s.time, channels}, 2);
  p.bias = normal({channels}, 3);
  p.weight =
      is_dynamic ? normal({s.batch, s.time, s.heads, s.taps}, 4) : normal({s.heads, s.taps}, 4);
  p.call = is_dynamic ? dynamic(s.padding) : light(s.padding);
  return p;
}

// On every instruction set, in float64 and float32, against the reference in float64. `terms` is
// how many products of order one a gradient adds up.
void expect_reference(const Problem& p, double terms) {
  const std::vector<Tensor> expected = p.results(light_conv_reference, at::kDouble);
  const char* names[] = {"y", "grad_x", "grad_weight", "grad_bias"};
  for (const Isa isa : kernels::available_isas()) {
    const WithIsa with(isa);
    for (const at::ScalarType type : {at::kDouble, at::kFloat}) {
      SCOPED_TRACE(::testing::Message() << kernels::name(isa) << ", " << type);
      const std::vector<Tensor> found = p.results(run, type);
      for (size_t i = 0; i < found.size(); ++i) {
        // Errors of independent terms grow as the root of their number.
        expect_none(differs_by_more_than_rounding(found[i], expected[i], std::sqrt(terms)),
                    names[i]);
      }
    }
  }
}

TEST(ConvKernels, EveryWidthAndLength) {
  const int64_t widths_of_heads[] = {1, 3, 5, 16, 17, 32, 33, 64};
  size_t turn = 0;
  for (const int64_t taps : {1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 31, 32, 33, 63, 64}) {
    for (const int64_t time : {int64_t{1}, int64_t{2}, taps - 1, taps, taps + 1, int64_t{67}}) {
      const int64_t per_head = widths_of_heads[turn++ % 8];
      const int64_t paddings[] = {taps / 2, taps - 1, 0, taps + 2};
      const Shape shape{2, time, 2, per_head, taps, paddings[turn % 4]};
      SCOPED_TRACE(::testing::Message() << shape);
      for (const bool is_dynamic : {false, true}) {
        expect_reference(problem(shape, is_dynamic), static_cast<double>(4 * time * per_head));
      }
    }
  }
}

TEST(ConvKernels, LengthsAroundTiles) {
  for (const int64_t time : {127, 128, 129, 511, 512, 513}) {
    for (const Shape& shape : {Shape{1, time, 1, 64, 7, 3}, Shape{1, time, 2, 5, 31, 30}}) {
      SCOPED_TRACE(::testing::Message() << shape);
      for (const bool is_dynamic : {false, true}) {
        expect_reference(problem(shape, is_dynamic),
                         static_cast<double>(4 * time * shape.per_head));
      }
    }
  }
}

TEST(ConvKernels, WideKernels) {
  for (const Shape& shape : {Shape{1, 130, 2, 3, 127, 63}, Shape{1, 300, 1, 4, 255, 254},
                             Shape{1, 70, 1, 2, 1023, 511}, Shape{1, 5, 1, 2, 1023, 1030}}) {
    SCOPED_TRACE(::testing::Message() << shape);
    for (const bool is_dynamic : {false, true}) {
      expect_reference(problem(shape, is_dynamic), static_cast<double>(4 * shape.time));
    }
  }
}

TEST(ConvKernels, EverythingAtOnce) {
  for (const int64_t padding : {2, 6, 9}) {
    for (const int64_t per_head : {3, 32, 40}) {
      Problem p = problem({1, 150, 2, per_head, 7, padding}, true);
      p.call.renorm_padding = true;
      p.call.cu_seqlens = at::tensor({0, 1, 1, 40, 150}, at::kLong);
      p.call.key_padding_mask = at::zeros({1, 150}, at::kBool);
      p.call.key_padding_mask->index_fill_(1, at::tensor({0, 5, 6, 77, 149}, at::kLong), true);
      p.call.weight_dropout = 0.3;
      p.call.seed = at::scalar_tensor(11, at::kLong);
      SCOPED_TRACE(::testing::Message() << "P " << padding << ", R " << per_head);
      expect_reference(p, static_cast<double>(4 * per_head));
      p.weight = normal({2, 7}, 5);
      p.call.op = LightConvOp::kName;
      p.call.renorm_padding = false;
      expect_reference(p, static_cast<double>(4 * 150 * per_head));
      p.call.per_position = false;
      expect_reference(p, static_cast<double>(4 * 150 * per_head));
    }
  }
}

// A result that is larger than the caches takes another way to memory.
TEST(ConvKernels, LargeResults) {
  const int64_t rows = 4, time = 8300;
  const Tensor x = normal({1, time, 512}, 6).to(at::kFloat),
               weight = normal({8, 3}, 7).to(at::kFloat);
  for (const Isa isa : kernels::available_isas()) {
    const WithIsa with(isa);
    const Tensor y = run(x, weight, light(1));
    for (const int64_t begin : {int64_t{1}, int64_t{4000}, time - rows - 1}) {
      const Tensor part = run(x.narrow(1, begin - 1, rows + 2), weight, light(1));
      expect_none(differs_in_bits(y.narrow(1, begin, rows), part.narrow(1, 1, rows)), "y");
    }
    const Tensor grad_x = gradients(run, x, weight, light(1), x)[0];
    const Tensor part = x.narrow(1, 4000, rows + 2).contiguous();
    const Tensor grad_part = gradients(run, part, weight, light(1), part)[0];
    expect_none(differs_in_bits(grad_x.narrow(1, 4001, rows), grad_part.narrow(1, 1, rows)), "dx");
  }
}

TEST(ConvKernels, ANanReachesTheTapsThatReadItAndNothingElse) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  for (const at::ScalarType type : {at::kDouble, at::kFloat, at::kBFloat16, at::kHalf}) {
    for (const int64_t taps : {3, 7, 31, 40}) {
      for (const bool is_dynamic : {false, true}) {
        Problem p = problem({1, 200, 2, 20, taps, taps / 2}, is_dynamic);
        p.x[0][100][7] = nan;
        p.grad[0][60][30] = nan;
        const std::vector<Tensor> found = p.results(run, type);
        const int64_t left = taps / 2, right = taps - 1 - left;
        const auto expect_span = [&](const Tensor& result, int64_t channel, int64_t first,
                                     int64_t last) {
          const Tensor wrong = result.isnan()[0];  // [T, C]
          const Tensor expected = at::zeros_like(wrong);
          expected.select(1, channel).slice(0, first, last + 1).fill_(true);
          EXPECT_TRUE(at::equal(wrong, expected)) << "K " << taps << ", " << type;
        };
        expect_span(found[0], 7, 100 - right, 100 + left);
        expect_span(found[1], 30, 60 - left, 60 + right);
        if (!is_dynamic) continue;
        const Tensor wrong = found[2].isnan()[0].any(2);  // [T, H]
        const Tensor expected = at::zeros_like(wrong);
        expected.select(1, 0).slice(0, 100 - right, 100 + left + 1).fill_(true);
        expected.select(1, 1).slice(0, 60, 61).fill_(true);
        EXPECT_TRUE(at::equal(wrong, expected)) << "K " << taps << ", " << type;
      }
    }
  }
}

TEST(ConvKernels, SameBitsWithAnyNumberOfThreads) {
  for (const bool is_dynamic : {false, true}) {
    const Problem p = problem({3, 700, 2, 20, 7, 3}, is_dynamic);
    std::vector<std::vector<Tensor>> found;
    for (const int threads : {1, 2, 3}) {
      const WithThreads with(threads);
      found.push_back(p.results(run, at::kFloat));
    }
    for (size_t i = 0; i < found[0].size(); ++i) {
      expect_none(differs_in_bits(found[1][i], found[0][i]), "two threads");
      expect_none(differs_in_bits(found[2][i], found[0][i]), "three threads");
    }
  }
}

}  // namespace
}  // namespace headloom::conv_testing
