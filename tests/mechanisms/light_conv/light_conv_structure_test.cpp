// Against a dense matrix over positions; causality, padding, packing, DropConnect, precision.
#include "headloom/tensor/dropout.h"
#include "tests/mechanisms/light_conv/light_conv_cases.h"

namespace headloom::conv_testing {
namespace {

// weights [B, T, H, K] -> [B, H, T, T] with y = matrix x for the channels of each head.
Tensor dense(const Tensor& weights, int64_t padding) {
  const int64_t time = weights.size(1), kernel_size = weights.size(3);
  const Tensor matrix =
      at::zeros({weights.size(0), weights.size(2), time, time}, weights.options());
  for (int64_t k = 0; k < kernel_size; ++k) {
    const int64_t shift = k - padding, begin = std::max<int64_t>(0, -shift),
                  end = std::min(time, time - shift);
    if (begin >= end) continue;
    matrix.diagonal(shift, 2, 3)
        .copy_(weights.select(3, k).narrow(1, begin, end - begin).transpose(1, 2));
  }
  return matrix;
}

Tensor by_head(const Tensor& x, int64_t heads) {  // [B, T, C] -> [B, H, T, R]
  return x.unflatten(2, {heads, x.size(2) / heads}).transpose(1, 2);
}

TEST(ConvDense, OperatorEqualsTheMatrix) {
  for (const int64_t kernel_size : {2, 31}) {
    for (const int64_t time : {int64_t{1}, int64_t{2}, kernel_size - 1, kernel_size,
                               kernel_size + 1, int64_t{31}, int64_t{32}, int64_t{33}, int64_t{63},
                               int64_t{64}, int64_t{65}, int64_t{511}, int64_t{513}}) {
      const Tensor x = normal({2, time, 6}, 1), logits = normal({2, time, 3, kernel_size}, 2);
      const Tensor grad = normal({2, time, 6}, 3);
      for (const int64_t padding : {kernel_size / 2, kernel_size - 1}) {
        SCOPED_TRACE(::testing::Message()
                     << "K " << kernel_size << ", T " << time << ", P " << padding);
        const Tensor matrix = dense(logits.softmax(-1), padding);
        const auto join = [](const Tensor& y) { return y.transpose(1, 2).flatten(2); };
        EXPECT_TRUE(
            close(run(x, logits, dynamic(padding)), join(at::matmul(matrix, by_head(x, 3)))));
        const Tensor grad_x = gradients(run, x, logits, dynamic(padding), grad)[0];
        EXPECT_TRUE(
            close(grad_x, join(at::matmul(matrix.transpose(2, 3), by_head(grad, 3))), 1e-11));
      }
    }
  }
}

TEST(ConvDense, OperatorGradientsEqualTheReferences) {
  struct Shape {
    int64_t batch, time, channels, heads, kernel_size, padding;
  };
  for (const Shape& s :
       {Shape{3, 70, 8, 4, 5, 2}, Shape{1, 7, 6, 1, 20, 19}, Shape{2, 33, 4, 4, 1, 0},
        Shape{2, 40, 6, 2, 6, 9}, Shape{2, 5, 4, 2, 3, 50}, Shape{2, 1, 4, 2, 3, 1},
        Shape{2, 0, 4, 2, 3, 1}, Shape{0, 5, 4, 2, 3, 1}, Shape{1, 30, 2, 1, 1023, 511}}) {
    SCOPED_TRACE(::testing::Message() << "T " << s.time << ", K " << s.kernel_size);
    const Tensor x = normal({s.batch, s.time, s.channels}, 4), grad = normal(x.sizes(), 5);
    for (const Tensor& weight : {normal({s.heads, s.kernel_size}, 6),
                                 normal({s.batch, s.time, s.heads, s.kernel_size}, 6)}) {
      ConvCall call = weight.dim() == 2 ? light(s.padding) : dynamic(s.padding);
      for (const bool softmax : {true, false}) {
        call.weight_softmax = softmax;
        EXPECT_TRUE(close(run(x, weight, call), light_conv_reference(x, weight, call)));
        const auto found = gradients(run, x, weight, call, grad);
        const auto expected = gradients(light_conv_reference, x, weight, call, grad);
        EXPECT_TRUE(close(found[0], expected[0], 1e-11));
        EXPECT_TRUE(close(found[1], expected[1], 1e-11));
      }
    }
  }
}

TEST(ConvCausality, APositionReachesKernelSizePositionsAndNoEarlierOne) {
  const Tensor x = normal({1, 80, 4}, 7), weight = normal({2, 6}, 8),
               logits = normal({1, 80, 2, 6}, 9);
  for (const int64_t changed : {0, 31, 32, 50, 79}) {
    const Tensor other = x.clone();
    other.select(1, changed).add_(1.0);
    const auto expect_local = [&](const Tensor& weights, const ConvCall& call) {
      const Tensor differs = (run(x, weights, call) != run(other, weights, call))[0].any(1);
      for (int64_t t = 0; t < 80; ++t) {
        const bool reached = t >= changed && t < changed + 6;
        EXPECT_EQ(differs[t].item<bool>(), reached) << changed << " reaches " << t;
      }
    };
    expect_local(weight, light(5));
    expect_local(logits, dynamic(5));
  }
}

TEST(ConvPadding, ASequenceIsTheSameInAPaddedBatch) {
  const Tensor alone = normal({1, 9, 4}, 10), logits = normal({1, 9, 2, 5}, 11);
  const Tensor grad = normal({1, 9, 4}, 12), weight = normal({2, 5}, 13);
  const double garbage = std::numeric_limits<double>::quiet_NaN();
  for (const int64_t left : {0, 4}) {
    const auto widen = [&](const Tensor& tensor, double value) {
      std::vector<int64_t> sizes = tensor.sizes().vec();
      sizes[0] = 2;
      sizes[1] = 13;
      const Tensor wide = at::full(sizes, value, at::kDouble);
      wide.narrow(0, 1, 1).narrow(1, left, 9).copy_(tensor);
      return wide;
    };
    const Tensor x = widen(alone, garbage), many = widen(logits, garbage), up = widen(grad, 5.0);
    for (ConvCall call : {light(2), light(4), dynamic(2), dynamic(4)}) {
      const bool shared = std::string(call.op) == LightConvOp::kName;
      call.renorm_padding = !shared;
      call.conv_bias = normal({4}, 14);
      const Tensor one_weight = shared ? weight : logits, wide_weight = shared ? weight : many;
      const Tensor expected = run(alone, one_weight, call);
      const auto expected_grads = gradients(run, alone, one_weight, call, grad);
      call.key_padding_mask =
          mask({"xxxxxxxxxxxxx", left == 0 ? ".........xxxx" : "xxxx........."});
      const Tensor y = run(x, wide_weight, call);
      EXPECT_TRUE(close(y[1].narrow(0, left, 9), expected[0]));
      const Tensor hidden = y.masked_select(call.key_padding_mask->unsqueeze(-1));
      EXPECT_EQ(hidden.abs().max().item<double>(), 0.0);
      const auto found = gradients(run, x, wide_weight, call, up);
      EXPECT_TRUE(close(found[0], widen(expected_grads[0], 0.0)));
      EXPECT_TRUE(close(found[1], shared ? expected_grads[1] : widen(expected_grads[1], 0.0)));
    }
  }
}

TEST(ConvPacking, EqualsOneCallASequence) {
  const std::vector<int64_t> bounds{0, 3, 3, 4, 40};
  const Tensor x = normal({1, 40, 4}, 15), grad = normal({1, 40, 4}, 16);
  const Tensor weight = normal({2, 5}, 17), logits = normal({1, 40, 2, 5}, 18);
  for (ConvCall call : {light(4), light(2), dynamic(2), dynamic(4), dynamic(2)}) {
    const bool shared = std::string(call.op) == LightConvOp::kName;
    call.renorm_padding = !shared && call.padding == 4;
    call.key_padding_mask = at::zeros({1, 40}, at::kBool);
    call.key_padding_mask->index_fill_(1, at::tensor({1, 6, 13, 39}, at::kLong), true);
    ConvCall packed = call;
    packed.cu_seqlens = at::tensor(bounds, at::kInt);
    const auto found = gradients(run, x, shared ? weight : logits, packed, grad);
    const Tensor y = run(x, shared ? weight : logits, packed);
    EXPECT_TRUE(close(light_conv_reference(x, shared ? weight : logits, packed), y));
    Tensor grad_weight = at::zeros_like(weight);
    for (size_t s = 0; s + 1 < bounds.size(); ++s) {
      const auto part = [&](const Tensor& t) {
        return t.narrow(1, bounds[s], bounds[s + 1] - bounds[s]);
      };
      ConvCall one = call;
      one.key_padding_mask = part(*call.key_padding_mask);
      const Tensor one_weight = shared ? weight : part(logits);
      EXPECT_TRUE(close(part(y), run(part(x), one_weight, one)));
      const auto expected = gradients(run, part(x), one_weight, one, part(grad));
      EXPECT_TRUE(close(part(found[0]), expected[0]));
      if (shared) {
        grad_weight.add_(expected[1]);
      } else {
        EXPECT_TRUE(close(part(found[1]), expected[1]));
      }
    }
    if (shared) {
      EXPECT_TRUE(close(found[1], grad_weight));
    }
  }
}

TEST(ConvDropConnect, MultipliesTheNormalisedWeights) {
  const Tensor x = normal({2, 50, 6}, 19), weight = normal({3, 4}, 20);
  const Tensor logits = normal({2, 50, 3, 4}, 21), seed = at::scalar_tensor(77, at::kLong);
  const Tensor shared = dropout_mask({3, 4}, .3, seed, x.options());
  const Tensor each = dropout_mask({2, 50, 3, 4}, .3, seed, x.options());
  ConvCall raw = dynamic(3);
  raw.weight_softmax = false;
  const auto dropped = [&](ConvCall call, bool per_position) {
    call.weight_dropout = .3;
    call.seed = seed;
    call.per_position = per_position;
    return call;
  };
  const auto expect = [&](const Tensor& weights, const ConvCall& call, const Tensor& multiplied) {
    const Tensor expected = run(x, multiplied.expand({2, 50, 3, 4}), raw);
    EXPECT_TRUE(close(run(x, weights, call), expected));
    EXPECT_TRUE(close(light_conv_reference(x, weights, call), expected));
    const Tensor grad = normal(x.sizes(), 22);
    const auto found = gradients(run, x, weights, call, grad);
    const auto wanted = gradients(light_conv_reference, x, weights, call, grad);
    EXPECT_TRUE(close(found[0], wanted[0]) && close(found[1], wanted[1], 1e-11));
  };
  expect(weight, dropped(light(3), false), weight.softmax(-1) * shared);
  expect(weight, dropped(light(3), true), weight.softmax(-1) * each);
  expect(logits, dropped(dynamic(3), true), logits.softmax(-1) * each);
}

TEST(ConvDropConnect, IsRightOnAverage) {
  const Tensor x = normal({1, 12, 4}, 23), weight = normal({2, 3}, 24);
  const Tensor expected = run(x, weight, light(2));
  ConvCall call = light(2);
  call.weight_dropout = .25;
  constexpr int kDraws = 600;
  Tensor mean = at::zeros_like(x), square = at::zeros_like(x);
  for (int draw = 0; draw < kDraws; ++draw) {
    call.seed = at::scalar_tensor(1000 + draw, at::kLong);
    call.per_position = draw % 2 == 0;
    const Tensor y = run(x, weight, call);
    mean += y / kDraws;
    square += y * y / kDraws;
  }
  const Tensor deviation = (square - mean * mean).clamp_min(0).div(kDraws).sqrt();
  // Five standard deviations: one in 30,000 runs of 48 elements would fail if seeds were random.
  EXPECT_TRUE(((mean - expected).abs() <= 5 * deviation + 1e-12).all().item<bool>());
}

// An output or gradient in half precision may differ from the exact one by its own rounding and by
// a float32 sum; sums in half precision of 512 or 15,872 terms would be far outside.
TEST(ConvPrecision, SumsAreInFloat32) {
  for (const at::ScalarType type : {at::kBFloat16, at::kHalf, at::kFloat}) {
    const double step = type == at::kBFloat16 ? 0x1p-8 : type == at::kHalf ? 0x1p-11 : 0.0;
    const auto rounded = [&](const Tensor& t) { return t.to(type).to(at::kDouble); };
    const Tensor x = rounded(normal({2, 48, 512}, 25)), grad = rounded(normal({2, 48, 512}, 26));
    for (const ConvCall& call : {light(30), dynamic(30)}) {
      const bool shared = std::string(call.op) == LightConvOp::kName;
      const Tensor weight = rounded(shared ? normal({1, 31}, 27) : normal({2, 48, 1, 31}, 27));
      const auto expect = [&](const Tensor& found, const Tensor& exact) {
        EXPECT_EQ(found.scalar_type(), type);
        const Tensor bound = step * exact.abs() + 3e-6 * exact.abs().max();
        const Tensor error = (found.to(at::kDouble) - exact).abs();
        EXPECT_TRUE((error <= bound).all().item<bool>())
            << call.op << ", " << type << ": " << (error / bound).max().item<double>()
            << " times the bound";
      };
      expect(run(x.to(type), weight.to(type), call), run(x, weight, call));
      const auto found = gradients(run, x.to(type), weight.to(type), call, grad.to(type));
      const auto exact = gradients(run, x, weight, call, grad);
      expect(found[0], exact[0]);
      expect(found[1], exact[1]);
    }
  }
}

}  // namespace
}  // namespace headloom::conv_testing
