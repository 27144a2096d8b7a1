// Each documented refusal, and what its message says.
#include <gmock/gmock.h>

#include "headloom/mechanisms/light_conv/light_conv.h"
#include "headloom/mechanisms/registry.h"
#include "tests/mechanisms/light_conv/light_conv_cases.h"

namespace headloom::conv_testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

std::string message_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const std::exception& error) {
    return error.what();
  }
  return "no refusal";
}

const Tensor& x() {
  static const Tensor tensor = normal({2, 5, 6}, 1);
  return tensor;
}

std::string light_message(const Tensor& weight, const LightConvOptions& options = {},
                          const Tensor& input = x()) {
  return message_of([&] { light_conv(input, weight, options); });
}

std::string dynamic_message(const Tensor& logits, const DynamicConvOptions& options = {},
                            const Tensor& input = x()) {
  return message_of([&] { dynamic_conv(input, logits, options); });
}

TEST(ConvRefusals, Shapes) {
  EXPECT_THAT(light_message(normal({4, 3}, 1)),
              AllOf(StartsWith("light_conv"), HasSubstr("a head count H that divides"),
                    HasSubstr("H = 4, C = 6")));
  EXPECT_THAT(light_message(normal({0, 3}, 1)), HasSubstr("H = 0"));
  EXPECT_THAT(light_message(normal({2, 0}, 1)),
              AllOf(HasSubstr("a kernel width K of 1 to 1023"), HasSubstr("K = 0")));
  EXPECT_THAT(light_message(normal({2, 1024}, 1)), HasSubstr("K = 1024"));
  EXPECT_THAT(light_message(normal({2, 3, 1}, 1)), HasSubstr("weight of shape [H, K]"));
  EXPECT_THAT(light_message(normal({2, 3}, 1), {}, normal({5, 6}, 1)),
              HasSubstr("x of shape [B, T, C]"));
  EXPECT_THAT(light_message(normal({2, 3}, 1).to(at::kFloat)),
              HasSubstr("weight of the dtype of x"));
  EXPECT_THAT(light_message(normal({2, 3}, 1), {}, at::ones({2, 5, 6}, at::kLong)),
              HasSubstr("x of dtype float64, float32, bfloat16 or float16"));
  EXPECT_THAT(dynamic_message(normal({2, 4, 3, 3}, 1)),
              AllOf(StartsWith("dynamic_conv"), HasSubstr("kernel_logits of shape [B, T, H, K]"),
                    HasSubstr("T = 5 as in x"), HasSubstr("[2, 4, 3, 3]")));
  EXPECT_THAT(dynamic_message(normal({2, 3}, 1)), HasSubstr("kernel_logits of shape"));
}

TEST(ConvRefusals, Padding) {
  LightConvOptions options;
  options.padding = -1;
  EXPECT_THAT(light_message(normal({2, 3}, 1), options),
              AllOf(HasSubstr("a left padding P of at least 0"), HasSubstr("P = -1")));
  options.padding = "valid";
  EXPECT_THAT(
      light_message(normal({2, 3}, 1), options),
      AllOf(HasSubstr("padding \"same\", \"causal\" or a whole number"), HasSubstr("\"valid\"")));
}

TEST(ConvRefusals, Options) {
  const Tensor weight = normal({2, 3}, 1), logits = normal({2, 5, 2, 3}, 1);
  LightConvOptions options;
  options.dropconnect = "channel";
  EXPECT_THAT(light_message(weight, options),
              AllOf(HasSubstr("dropconnect \"shared\" or \"per_position\""), HasSubstr("channel")));
  options = {};
  options.weight_dropout = 1.0;
  EXPECT_THAT(light_message(weight, options), HasSubstr("weight_dropout in [0, 1)"));
  options = {};
  options.conv_bias = normal({5}, 1);
  EXPECT_THAT(light_message(weight, options), HasSubstr("conv_bias of shape [C]"));
  options = {};
  options.key_padding_mask = at::zeros({2, 4}, at::kBool);
  EXPECT_THAT(light_message(weight, options), HasSubstr("key_padding_mask of shape [B, T]"));
  options.key_padding_mask = at::zeros({2, 5});
  EXPECT_THAT(light_message(weight, options), HasSubstr("key_padding_mask of dtype bool"));
  DynamicConvOptions dynamic_options;
  dynamic_options.renorm_padding = true;
  dynamic_options.weight_softmax = false;
  EXPECT_THAT(dynamic_message(logits, dynamic_options),
              HasSubstr("weight_softmax with renorm_padding"));
  ConvCall call = dynamic(1);
  call.weight_dropout = .5;
  EXPECT_THAT(message_of([&] { run(x(), logits, call); }), HasSubstr("a seed"));
}

TEST(ConvRefusals, Packing) {
  const Tensor weight = normal({2, 3}, 1);
  LightConvOptions options;
  options.cu_seqlens = at::tensor({0, 5}, at::kLong);
  EXPECT_THAT(light_message(weight, options), HasSubstr("B = 1 with cu_seqlens"));
  const Tensor one = normal({1, 5, 6}, 1);
  options.cu_seqlens = at::tensor({0, 4}, at::kLong);
  EXPECT_THAT(light_message(weight, options, one),
              AllOf(HasSubstr("end at the packed length 5"), HasSubstr("last 4")));
  options.cu_seqlens = at::tensor({0, 3, 2, 5}, at::kLong);
  EXPECT_THAT(light_message(weight, options, one), HasSubstr("never to decrease"));
}

TEST(ConvRefusals, GradientOfAnotherShape) {
  EXPECT_THAT(message_of([&] {
                call_conv_backward<LightConvOp>(normal({2, 5, 4}, 1), x(), normal({2, 3}, 1),
                                                {true, true, false}, light(1));
              }),
              AllOf(HasSubstr("grad_out of shape [2, 5, 6]"), HasSubstr("[2, 5, 4]")));
}

std::string mixer_message(const std::string& name, const Options& options) {
  MixerConfig config;
  config.dim = 8;
  config.heads = 2;
  return message_of([&] { make_mixer(name, config, options); });
}

TEST(ConvRefusals, MixerOptions) {
  EXPECT_THAT(mixer_message("light_conv", {{"kernel_sizes", std::vector<int64_t>{}}}),
              AllOf(StartsWith("mixer light_conv"), HasSubstr("kernel_sizes")));
  EXPECT_THAT(mixer_message("light_conv", {{"kernel_sizes", std::vector<int64_t>{3, 0}}}),
              HasSubstr("kernel_sizes of 1 to 1023"));
  EXPECT_THAT(mixer_message("light_conv", {{"renorm_padding", true}}), HasSubstr("renorm_padding"));
  EXPECT_THAT(mixer_message("light_conv", {{"dropconnect", std::string("share")}}),
              HasSubstr("Did you mean \"shared\"?"));
  EXPECT_THAT(mixer_message("dynamic_conv", {{"weight_dropout", 1.5}}),
              AllOf(StartsWith("mixer dynamic_conv"), HasSubstr("weight_dropout in [0, 1)")));
  EXPECT_THAT(mixer_message("dynamic_conv", {{"input_dropout", -0.1}}),
              HasSubstr("input_dropout in [0, 1)"));
  EXPECT_THAT(mixer_message("dynamic_conv", {{"weight_softmax", false}, {"renorm_padding", true}}),
              HasSubstr("weight_softmax with renorm_padding"));
  EXPECT_THAT(mixer_message("dynamic_conv", {{"kernel_size", int64_t{3}}}),
              HasSubstr("Did you mean \"kernel_sizes\"?"));
}

}  // namespace
}  // namespace headloom::conv_testing
