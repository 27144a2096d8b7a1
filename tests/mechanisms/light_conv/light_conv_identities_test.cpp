// What follows from the definition, whatever the numbers.
#include "headloom/mechanisms/light_conv/light_conv.h"
#include "tests/mechanisms/light_conv/light_conv_cases.h"

namespace headloom::conv_testing {
namespace {

// x[t + shift], zero outside.
Tensor shifted(const Tensor& x, int64_t shift) {
  const int64_t time = x.size(1);
  const Tensor result = at::zeros_like(x);
  for (int64_t t = std::max<int64_t>(0, -shift); t < std::min(time, time - shift); ++t) {
    result.select(1, t).copy_(x.select(1, t + shift));
  }
  return result;
}

class ConvIdentities : public ::testing::TestWithParam<Path> {
 protected:
  Tensor conv(const Tensor& x, const Tensor& weight, const ConvCall& call) {
    return GetParam()(x, weight, call);
  }
};

TEST_P(ConvIdentities, OneTapShifts) {
  const Tensor x = normal({2, 9, 6}, 1);
  for (const int64_t kernel_size : {1, 2, 5, 12}) {
    for (const int64_t padding : {int64_t{0}, kernel_size / 2, kernel_size - 1, kernel_size + 2,
                                  int64_t{8}, int64_t{1} << 40}) {
      for (const int64_t tap : {int64_t{0}, kernel_size / 2, kernel_size - 1}) {
        const Tensor weight = at::zeros({3, kernel_size}, at::kDouble);
        weight.select(1, tap).fill_(1.0);
        ConvCall call = light(padding);
        call.weight_softmax = false;
        EXPECT_TRUE(at::equal(conv(x, weight, call), shifted(x, tap - padding)))
            << "K " << kernel_size << ", P " << padding << ", tap " << tap;
      }
    }
  }
}

TEST_P(ConvIdentities, EqualWeightsAverageAllTapsAlsoThoseOutOfRange) {
  const Tensor ramp = at::arange(1, 7, at::kDouble).view({1, 6, 1});
  const Tensor y = conv(ramp, at::zeros({1, 3}, at::kDouble), light(2)).flatten();
  EXPECT_TRUE(close(y, row({1 / 3., 3 / 3., 6 / 3., 9 / 3., 12 / 3., 15 / 3.})));
  const Tensor centred = conv(ramp, at::zeros({1, 6, 1, 3}, at::kDouble), dynamic(1)).flatten();
  EXPECT_TRUE(close(centred, row({3 / 3., 6 / 3., 9 / 3., 12 / 3., 15 / 3., 11 / 3.})));
}

TEST_P(ConvIdentities, OneTapIsIdentity) {
  const Tensor x = normal({2, 4, 6}, 2);
  EXPECT_TRUE(at::equal(conv(x, normal({2, 1}, 3), light(0)), x));
  EXPECT_TRUE(at::equal(conv(x, normal({2, 4, 3, 1}, 3), dynamic(0)), x));
}

TEST_P(ConvIdentities, AHeadAChannelIsADepthwiseConvolution) {
  const Tensor x = normal({2, 11, 4}, 4), weight = normal({4, 5}, 5);
  const Tensor expected = at::conv1d(x.transpose(1, 2), weight.softmax(-1).unsqueeze(1), {}, 1,
                                     /*padding=*/2, 1, /*groups=*/4)
                              .transpose(1, 2);
  EXPECT_TRUE(close(conv(x, weight, light(2)), expected));
}

TEST_P(ConvIdentities, ChannelsOfAHeadAreAlikeAndContiguous) {
  const Tensor x = normal({2, 7, 6}, 6), weight = normal({2, 3}, 7);
  const Tensor y = conv(x, weight, light(1));
  const Tensor order = at::tensor({2, 0, 1, 4, 5, 3}, at::kLong);
  EXPECT_TRUE(close(conv(x.index_select(2, order), weight, light(1)), y.index_select(2, order)));
  const Tensor second = conv(x.narrow(2, 3, 3), weight.narrow(0, 1, 1), light(1));
  EXPECT_TRUE(close(y.narrow(2, 3, 3), second));
}

TEST_P(ConvIdentities, OnesGiveTheSumOfVisibleWeights) {
  const Tensor ones = at::ones({1, 8, 2}, at::kDouble), logits = normal({1, 8, 1, 4}, 8);
  const Tensor y = conv(ones, logits, dynamic(3)).select(2, 0)[0];
  const Tensor weights = logits.softmax(-1)[0].select(1, 0);  // [T, K]
  for (int64_t t = 0; t < 8; ++t) {
    const int64_t hidden = std::max<int64_t>(0, 3 - t);
    EXPECT_TRUE(close(y[t], weights[t].narrow(0, hidden, 4 - hidden).sum()));
  }
}

TEST_P(ConvIdentities, RenormalisedWeightsSumToOneWhereverATapIsInRange) {
  ConvCall call = dynamic(2);
  call.renorm_padding = true;
  const Tensor ones = at::ones({2, 7, 2}, at::kDouble), logits = normal({2, 7, 2, 4}, 9);
  EXPECT_TRUE(close(conv(ones, logits, call), ones));
  call.key_padding_mask = mask({
      "xx..x..",
      ".......",
  });
  const Tensor visible = call.key_padding_mask->logical_not().to(at::kDouble).unsqueeze(-1);
  EXPECT_TRUE(close(conv(ones, logits, call), visible * ones));
  ConvCall packed = dynamic(4);  // reads t - 4 .. t - 1
  packed.renorm_padding = true;
  packed.cu_seqlens = at::tensor({0, 3, 7}, at::kLong);
  const Tensor y = conv(ones.narrow(0, 0, 1), logits.narrow(0, 0, 1), packed).select(2, 0)[0];
  EXPECT_TRUE(close(y, row({0, 1, 1, 0, 1, 1, 1})));
}

TEST_P(ConvIdentities, AConstantAddedToTheLogitsOfAKernelChangesNothing) {
  const Tensor x = normal({2, 6, 4}, 10), logits = normal({2, 6, 2, 3}, 11);
  const Tensor constant = normal({2, 6, 2, 1}, 12), grad = normal({2, 6, 4}, 13);
  EXPECT_TRUE(close(conv(x, logits + constant, dynamic(1)), conv(x, logits, dynamic(1))));
  const Tensor found = gradients(GetParam(), x, logits, dynamic(1), grad)[1];
  EXPECT_TRUE(close(found.sum(-1), at::zeros({2, 6, 2}, at::kDouble), 1e-12, 1.0));
  const Tensor shared = gradients(GetParam(), x, logits[0][0], light(1), grad)[1];
  EXPECT_TRUE(close(shared.sum(-1), at::zeros({2}, at::kDouble), 1e-12, 1.0));
}

TEST_P(ConvIdentities, EqualKernelsEverywhereAreALightConvolution) {
  const Tensor x = normal({2, 40, 6}, 14), weight = normal({3, 7}, 15),
               grad = normal({2, 40, 6}, 16);
  const Tensor logits = weight.expand({2, 40, 3, 7});
  for (const int64_t padding : {0, 3, 6, 9}) {
    EXPECT_TRUE(close(conv(x, logits, dynamic(padding)), conv(x, weight, light(padding))));
    const auto one = gradients(GetParam(), x, weight, light(padding), grad);
    const auto each = gradients(GetParam(), x, logits, dynamic(padding), grad);
    EXPECT_TRUE(close(each[0], one[0]));
    EXPECT_TRUE(close(each[1].sum({0, 1}), one[1], 1e-11));
  }
}

TEST_P(ConvIdentities, LightIsLinearAndEquivariant) {
  const Tensor a = normal({1, 30, 4}, 17), b = normal({1, 30, 4}, 18), weight = normal({2, 5}, 19);
  const Tensor mixed = conv(2.0 * a - 3.0 * b, weight, light(2));
  EXPECT_TRUE(close(mixed, 2.0 * conv(a, weight, light(2)) - 3.0 * conv(b, weight, light(2))));
  const Tensor moved = conv(shifted(a, -3), weight, light(2));
  EXPECT_TRUE(close(moved.narrow(1, 5, 23), conv(a, weight, light(2)).narrow(1, 2, 23)));
}

// With g the gradient of y: <g, y> = <x, dx> for a light convolution, and = <w, dw> for raw
// weights.
TEST_P(ConvIdentities, AdjointAndEuler) {
  const Tensor x = normal({2, 37, 6}, 20), grad = normal({2, 37, 6}, 21);
  const Tensor raw = normal({2, 37, 3, 4}, 22), weight = normal({3, 4}, 23);
  ConvCall call = dynamic(1);
  call.weight_softmax = false;
  const Tensor product = (grad * conv(x, raw, call)).sum();
  const auto found = gradients(GetParam(), x, raw, call, grad);
  EXPECT_TRUE(close((x * found[0]).sum(), product, 1e-10));
  EXPECT_TRUE(close((raw * found[1]).sum(), product, 1e-10));
  const auto shared = gradients(GetParam(), x, weight, light(2), grad);
  EXPECT_TRUE(close((x * shared[0]).sum(), (grad * conv(x, weight, light(2))).sum(), 1e-10));
}

INSTANTIATE_TEST_SUITE_P(Paths, ConvIdentities, ::testing::Values(&run, &light_conv_reference),
                         [](const auto& info) { return info.index ? "Reference" : "Operator"; });

TEST(LeftPadding, ByName) {
  EXPECT_EQ(left_padding("causal", 7), 6);
  EXPECT_EQ(left_padding("same", 7), 3);
  EXPECT_EQ(left_padding("same", 4), 2);
  EXPECT_EQ(left_padding("same", 1), 0);
  const Tensor x = normal({1, 6, 2}, 24), weight = normal({2, 3}, 25);
  LightConvOptions options;
  EXPECT_TRUE(at::equal(light_conv(x, weight, options), run(x, weight, light(1))));
  options.padding = "causal";
  EXPECT_TRUE(at::equal(light_conv(x, weight, options), run(x, weight, light(2))));
  options.padding = 0;
  EXPECT_TRUE(at::equal(light_conv(x, weight, options), run(x, weight, light(0))));
}

}  // namespace
}  // namespace headloom::conv_testing
