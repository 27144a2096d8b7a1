// What makes a model one of T5 1.1's shape: root-mean-square norms, gated GELU, biases by distance,
// no biases in the layers.
#include <ATen/ATen.h>

#include <cmath>

#include "tests/nn/encoder_decoder_support.h"

namespace headloom::nn {
namespace {

using at::Tensor;
using ::testing::HasSubstr;

TEST(Norm, LayerIsTorchs) {
  Norm norm("layer", 6, 1e-5);
  norm->to(at::kDouble);
  const at::NoGradGuard no_grad;
  for (Tensor& parameter : norm->parameters()) parameter.add_(at::randn_like(parameter));
  const auto named = norm->named_parameters();
  const Tensor x = at::randn({2, 3, 6}, at::kDouble);
  EXPECT_TRUE(at::equal(norm(x), at::layer_norm(x, {6}, named["weight"], named["bias"], 1e-5)));
}

TEST(Norm, RmsIsItsFormulaInAnyPrecision) {
  Norm norm("rms", 6, 1e-2);
  norm->to(at::kDouble);
  const at::NoGradGuard no_grad;
  EXPECT_EQ(norm->parameters().size(), 1u) << "no bias";
  const Tensor weight = norm->named_parameters()["weight"];
  EXPECT_TRUE(at::equal(weight, at::ones({6}, at::kDouble)));
  weight.add_(at::randn({6}, at::kDouble));
  const Tensor x = at::randn({2, 3, 6}, at::kDouble);
  const Tensor expected = at::empty_like(x);
  for (int64_t b = 0; b < 2; ++b) {
    for (int64_t t = 0; t < 3; ++t) {
      double squares = 0.0;
      for (int64_t c = 0; c < 6; ++c) squares += std::pow(x[b][t][c].item<double>(), 2);
      for (int64_t c = 0; c < 6; ++c) {
        expected[b][t][c] = x[b][t][c] / std::sqrt(squares / 6 + 1e-2) * weight[c];
      }
    }
  }
  TransformerConfig shallow;
  shallow.layers = 1;
  shallow.dim = 6;
  shallow.ffn = 6;
  expect_close(norm(x), expected, shallow);
  norm->to(at::kBFloat16);
  const Tensor rounded = norm(x.to(at::kBFloat16));
  EXPECT_EQ(rounded.scalar_type(), at::kBFloat16);
  // Sums of squares would lose what is added to 256 in bfloat16.
  const Tensor large = at::ones({1, 4096}, at::kBFloat16);
  Norm wide("rms", 4096, 1e-6);
  wide->to(at::kBFloat16);
  EXPECT_TRUE(at::equal(wide(large), large));
}

TEST(Norm, RefusesOtherKinds) {
  EXPECT_THAT(refusal([] { Norm("rmsnorm", 4, 1e-5); }),
              HasSubstr("norm_type to be one of layer, rms"));
}

// T5 1.1's base model but for its size in depth and vocabulary. T5 has one table of biases for a
// stack, here each layer has its own.
EncoderDecoderConfig t5_base(int64_t layers, int64_t vocabulary) {
  EncoderDecoderConfig config;
  config.source_vocabulary = config.target_vocabulary = vocabulary;
  config.dim = 768;
  config.ffn = 2048;
  config.encoder_layers = config.decoder_layers = layers;
  config.norm = "pre";
  config.norm_type = "rms";
  config.positions = "none";
  config.activation = "gated_gelu";
  config.share_embeddings = true;
  config.tie_output = false;
  config.cross_mixer = {"talking_heads", 12, 0.0, {{"mixing", std::string("none")}}};
  config.encoder_mixer = config.cross_mixer;
  config.encoder_mixer.options["relative_bias"] = std::string("t5");
  config.decoder_mixer = config.encoder_mixer;
  return config;
}

int64_t parameters_of(const EncoderDecoderConfig& config) {
  int64_t count = 0;
  const EncoderDecoder model(config);
  for (const Tensor& parameter : model.parameters()) count += parameter.numel();
  return count;
}

TEST(T5Shape, HasThePublishedParameters) {
  // Every further layer and every further token adds as many; building all twelve takes a gigabyte.
  const int64_t one = parameters_of(t5_base(1, 8)), two = parameters_of(t5_base(2, 8));
  const int64_t token = (parameters_of(t5_base(1, 9)) - one);
  EXPECT_EQ(token, 2 * 768);
  const int64_t whole = one + 11 * (two - one) + (32'128 - 8) * token;
  const int64_t tables = 2 * 11 * 12 * 32;  // of the layers after a stack's first
  EXPECT_EQ(whole - tables, 247'577'856) << "google/t5-v1_1-base";
}

EncoderDecoderConfig small_t5() {
  EncoderDecoderConfig config = small_translator();
  const EncoderDecoderConfig base = t5_base(1, 13);
  config.target_vocabulary = 13;
  config.norm = base.norm;
  config.norm_type = base.norm_type;
  config.positions = base.positions;
  config.activation = base.activation;
  config.share_embeddings = true;
  config.tie_output = false;
  config.encoder_mixer = base.encoder_mixer;
  config.decoder_mixer = base.decoder_mixer;
  config.cross_mixer = base.cross_mixer;
  for (MixerChoice* mixer : {&config.encoder_mixer, &config.decoder_mixer, &config.cross_mixer}) {
    mixer->heads = 2;
  }
  return config;
}

TEST(T5Shape, ParameterNamesAreTheDocumentedOnes) {
  const auto model = build_translator(small_t5()).model;
  const auto names = model->named_parameters();
  for (const char* name : {"encoder.0.ffn_gate.weight", "decoder.2.ffn_gate.weight",
                           "encoder.1.mixer.relative_bias", "decoder_norm.weight"}) {
    EXPECT_TRUE(names.contains(name)) << name;
  }
  for (const auto& parameter : names) {
    EXPECT_THAT(parameter.key(), ::testing::Not(::testing::EndsWith(".bias")));
  }
}

TEST(T5Shape, StepsEqualTheWhole) {
  const auto model = build_translator(small_t5()).model;
  const at::NoGradGuard no_grad;
  const Tensor source = random_tokens(2, 7, 13), target = random_tokens(2, 9, 13);
  const Memory memory = model->encode(source, mask_of({".......", ".....xx"}));
  const Tensor whole = model->decode(target, memory);
  DecoderState state = model->new_state(memory);
  std::vector<Tensor> steps;
  for (const Tensor& piece : target.split_with_sizes({1, 3, 5}, 1)) {
    steps.push_back(model->step(piece, state));
  }
  expect_close(at::cat(steps, 1), whole, depth_of(small_t5()));
}

TEST(T5Shape, FeedForwardIsItsFormula) {
  BlockConfig config;
  config.dim = 4;
  config.ffn = 6;
  config.norm_type = "rms";
  config.activation = "gated_gelu";
  config.mixer.heads = 1;
  TransformerBlock block(config);
  block.to(at::kDouble);
  const at::NoGradGuard no_grad;
  const auto names = block.named_parameters();
  names["mixer.out_proj.weight"].zero_();  // the mixer adds nothing
  const Tensor x = at::randn({1, 3, 4}, at::kDouble);
  const Tensor y = x * at::rsqrt(x.square().mean(2, true) + config.norm_eps);
  const Tensor gate = y.matmul(names["ffn_gate.weight"].t());
  const double root = std::sqrt(2.0 / M_PI);
  const Tensor gelu = 0.5 * gate * (1.0 + at::tanh(root * (gate + 0.044715 * gate.pow(3))));
  const Tensor hidden = gelu * y.matmul(names["ffn_in.weight"].t());
  TransformerConfig depth;
  depth.layers = 1;
  depth.dim = 4;
  depth.ffn = 6;
  expect_close(block.forward(x, {}), x + hidden.matmul(names["ffn_out.weight"].t()), depth);
  EXPECT_EQ(block.flops(10) - block.mixer().flops(10), 10.0 * 2 * 3 * 4 * 6);
}

TEST(T5Shape, RefusesOtherWords) {
  EncoderDecoderConfig config = small_translator();
  config.activation = "geglu";
  EXPECT_THAT(refusal([&] { EncoderDecoder model(config); }),
              HasSubstr("activation to be one of relu, gelu, gated_gelu"));
  config = small_translator();
  config.norm_type = "rmsnorm";
  EXPECT_THAT(refusal([&] { EncoderDecoder model(config); }),
              HasSubstr("norm_type to be one of layer, rms"));
  config = small_translator();
  config.norm_eps = 0.0;
  EXPECT_THAT(refusal([&] { EncoderDecoder model(config); }), HasSubstr("norm_eps above 0"));
}

}  // namespace
}  // namespace headloom::nn
