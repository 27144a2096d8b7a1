// B batch, S source tokens, T target tokens, C model width, V target vocabulary.
#include "headloom/nn/encoder_decoder.h"

#include <torch/nn/modules/transformerlayer.h>

#include <cmath>

#include "tests/nn/encoder_decoder_support.h"

namespace headloom::nn {
namespace {

using at::Tensor;
using ::testing::HasSubstr;

void copy_attention(torch::OrderedDict<std::string, Tensor>& theirs, const std::string& their_name,
                    const torch::OrderedDict<std::string, Tensor>& mine, const std::string& name) {
  for (const std::string kind : {"weight", "bias"}) {
    theirs[their_name + ".in_proj_" + kind].copy_(
        at::cat({mine[name + ".q_proj." + kind], mine[name + ".k_proj." + kind],
                 mine[name + ".v_proj." + kind]}));
    theirs[their_name + ".out_proj." + kind].copy_(mine[name + ".out_proj." + kind]);
  }
}

// Gives torch's layer the values of one of our blocks.
template <class Layer>
void copy_block(Layer& layer, const torch::OrderedDict<std::string, Tensor>& mine,
                const std::string& name, bool decoder) {
  layer->to(at::kDouble);
  auto values = layer->named_parameters();
  const auto copy_both = [&](const std::string& to, const std::string& from) {
    for (const std::string kind : {".weight", ".bias"}) {
      values[to + kind].copy_(mine[name + from + kind]);
    }
  };
  copy_attention(values, "self_attn", mine, name + ".mixer");
  copy_both("norm1", ".mixer_norm");
  if (decoder) {
    copy_attention(values, "multihead_attn", mine, name + ".cross");
    copy_both("norm2", ".cross_norm");
  }
  copy_both(decoder ? "norm3" : "norm2", ".ffn_norm");
  copy_both("linear1", ".ffn_in");
  copy_both("linear2", ".ffn_out");
}

TEST(EncoderDecoder, PostNormBlocksEqualTorchsLayers) {
  const EncoderDecoderConfig config = small_translator();
  const auto model = build_translator(config).model;
  const torch::NoGradGuard no_grad;
  const auto mine = model->named_parameters();
  const Tensor source = random_tokens(2, 7, 13), target = random_tokens(2, 5);
  const auto embed = [&](const std::string& side, const Tensor& tokens) {     // -> [T, B, C]
    const Tensor x = mine[side + "_embedding.weight"].index({tokens}) * 4.0;  // sqrt(16)
    const Tensor positions = model->named_buffers()[side + "_positions"];
    return (x + positions.narrow(0, 0, tokens.size(1))).transpose(0, 1);
  };
  Tensor memory = embed("source", source);
  for (int64_t i = 0; i < config.encoder_layers; ++i) {
    torch::nn::TransformerEncoderLayer layer(
        torch::nn::TransformerEncoderLayerOptions(16, 2).dim_feedforward(config.ffn).dropout(0.0));
    copy_block(layer, mine, cat("encoder.", i), false);
    memory = layer(memory);
  }
  Tensor x = embed("target", target);
  const Tensor later = at::full({5, 5}, -INFINITY, at::kDouble).triu(1);
  for (int64_t i = 0; i < config.decoder_layers; ++i) {
    torch::nn::TransformerDecoderLayer layer(
        torch::nn::TransformerDecoderLayerOptions(16, 2).dim_feedforward(config.ffn).dropout(0.0));
    copy_block(layer, mine, cat("decoder.", i), true);
    x = layer(x, memory, later);
  }
  const Tensor expected = at::matmul(x.transpose(0, 1), mine["target_embedding.weight"].t());
  expect_close(model->forward(source, target), expected, depth_of(config));
}

std::vector<std::string> names_of(const EncoderDecoderConfig& config) {
  std::vector<std::string> names;
  const EncoderDecoder model(config);
  for (const auto& parameter : model.named_parameters()) names.push_back(parameter.key());
  for (const auto& buffer : model.named_buffers()) names.push_back("buffer " + buffer.key());
  return names;
}

TEST(EncoderDecoder, ParameterNamesAreTheDocumentedOnes) {
  using ::testing::Contains;
  using ::testing::Not;
  EncoderDecoderConfig config = small_translator();
  const auto plain = names_of(config);
  for (const char* name :
       {"source_embedding.weight", "target_embedding.weight", "buffer source_positions",
        "buffer target_positions", "encoder.1.mixer.q_proj.weight", "encoder.0.mixer_norm.bias",
        "encoder.1.ffn_in.weight", "decoder.2.cross.k_proj.weight", "decoder.0.cross_norm.weight",
        "decoder.2.ffn_out.bias", "decoder.2.ffn_norm.weight"}) {
    EXPECT_THAT(plain, Contains(name));
  }
  EXPECT_THAT(plain, Not(Contains(HasSubstr("encoder_norm"))));
  EXPECT_THAT(plain, Not(Contains("output.weight")));
  EXPECT_THAT(plain, Not(Contains(HasSubstr("encoder.0.cross"))));
  config.norm = "pre";
  config.positions = "learned";
  config.tie_output = false;
  config.share_embeddings = true;
  config.target_vocabulary = 13;
  const auto other = names_of(config);
  for (const char* name : {"source_positions", "target_positions", "encoder_norm.weight",
                           "decoder_norm.bias", "output.weight"}) {
    EXPECT_THAT(other, Contains(name));
  }
  EXPECT_THAT(other, Not(Contains("target_embedding.weight")));
}

TEST(EncoderDecoder, SharedEmbeddingsServeThreePlaces) {
  EncoderDecoderConfig config = small_translator();
  config.share_embeddings = true;
  config.target_vocabulary = 13;
  const auto model = build_translator(config).model;
  const Tensor source = random_tokens(1, 4, 13), target = random_tokens(1, 4, 13);
  const torch::NoGradGuard no_grad;
  const Tensor memory = model->encode(source).states;
  model->named_parameters()["source_embedding.weight"].mul_(1.5);
  EXPECT_FALSE(at::equal(model->encode(source).states, memory));
  const Tensor hidden_scale = model->decode(target, {memory, {}});
  model->named_parameters()["source_embedding.weight"][2].zero_();
  EXPECT_EQ(model->decode(target, {memory, {}}).select(2, 2).abs().max().item<double>(), 0.0);
  EXPECT_GT(hidden_scale.select(2, 2).abs().max().item<double>(), 0.0);
}

TEST(EncoderDecoder, DropsInTrainingOnly) {
  for (const int which : {0, 1, 2}) {
    EncoderDecoderConfig config = small_translator();
    if (which == 0) config.dropout = 0.3;
    if (which == 1) config.ffn_dropout = 0.3;
    if (which == 2) config.cross_mixer.dropout = 0.3;
    EncoderDecoder model(config);
    const Tensor source = random_tokens(2, 6, 13), target = random_tokens(2, 6);
    EXPECT_FALSE(at::equal(model.forward(source, target), model.forward(source, target))) << which;
    model.eval();
    EXPECT_TRUE(at::equal(model.forward(source, target), model.forward(source, target))) << which;
  }
}

TEST(EncoderDecoder, NextLogitsAreThoseOfTheLastToken) {
  const EncoderDecoderConfig config = small_translator();
  const auto model = build_translator(config).model;
  const torch::NoGradGuard no_grad;
  const Tensor target = random_tokens(2, 6);
  const Memory memory = model->encode(random_tokens(2, 4, 13));
  DecoderState state = model->new_state(memory);
  const Tensor expected = model->decode(target, memory);
  expect_close(model->next_logits(target.narrow(1, 0, 4), state), expected.select(1, 3),
               depth_of(config));
  EXPECT_EQ(model->step(random_tokens(2, 0), state).sizes(), (std::vector<int64_t>{2, 0, 11}));
  expect_close(model->next_logits(target.narrow(1, 4, 2), state), expected.select(1, 5),
               depth_of(config));
  EXPECT_THAT(refusal([&] { model->next_logits(random_tokens(2, 0), state); }),
              HasSubstr("n at least 1; found shape [2, 0]"));
}

std::string refusal_of(const std::function<void(EncoderDecoderConfig&)>& change) {
  EncoderDecoderConfig config = small_translator();
  change(config);
  return refusal([&] { EncoderDecoder model(config); });
}

TEST(EncoderDecoder, RefusesImpossibleConfigurationsByName) {
  EXPECT_EQ(refusal_of([](auto& c) { c.source_vocabulary = 0; }),
            "encoder-decoder: expected source_vocabulary of at least 1; found source_vocabulary = "
            "0.");
  EXPECT_THAT(refusal_of([](auto& c) { c.target_vocabulary = 0; }), HasSubstr("target_vocabulary"));
  EXPECT_THAT(refusal_of([](auto& c) { c.dim = -2; }), HasSubstr("dim = -2"));
  EXPECT_THAT(refusal_of([](auto& c) { c.ffn = 0; }), HasSubstr("ffn = 0"));
  EXPECT_THAT(refusal_of([](auto& c) { c.encoder_layers = 0; }), HasSubstr("encoder_layers = 0"));
  EXPECT_THAT(refusal_of([](auto& c) { c.decoder_layers = 0; }), HasSubstr("decoder_layers = 0"));
  EXPECT_THAT(refusal_of([](auto& c) { c.max_length = 0; }), HasSubstr("max_length = 0"));
  EXPECT_THAT(refusal_of([](auto& c) { c.norm = "prr"; }), HasSubstr("Did you mean \"pre\"?"));
  EXPECT_THAT(refusal_of([](auto& c) { c.positions = "learn"; }), HasSubstr("\"learned\"?"));
  EXPECT_THAT(refusal_of([](auto& c) { c.activation = "rel"; }), HasSubstr("\"relu\"?"));
  EXPECT_THAT(refusal_of([](auto& c) { c.dropout = 1.0; }), HasSubstr("dropout in [0, 1)"));
  EXPECT_THAT(refusal_of([](auto& c) { c.ffn_dropout = -1; }), HasSubstr("ffn_dropout = -1"));
  EXPECT_EQ(refusal_of([](auto& c) { c.cross_mixer.heads = 3; }),
            "encoder-decoder: expected cross_mixer.heads to divide dim; found dim = 16, "
            "cross_mixer.heads = 3.");
  EXPECT_THAT(refusal_of([](auto& c) { c.encoder_mixer.name = "light_con"; }),
              HasSubstr("\"light_conv\"?"));
  EXPECT_THAT(refusal_of([](auto& c) { c.share_embeddings = true; }),
              HasSubstr("equal vocabularies with share_embeddings; found source_vocabulary = 13, "
                        "target_vocabulary = 11"));
}

TEST(EncoderDecoder, RefusesWhatItCannotDecode) {
  EncoderDecoder model(small_translator());
  const Tensor source = random_tokens(2, 4, 13), target = random_tokens(2, 4);
  EXPECT_THAT(refusal([&] {
                model.encode(at::full({1, 2}, 13, at::kLong));
              }),
              HasSubstr("token ids in [0, 13); found token id 13"));
  EXPECT_THAT(refusal([&] { model.encode(random_tokens(1, 33, 13)); }),
              HasSubstr("at most max_length = 32 tokens; found 33 tokens"));
  EXPECT_THAT(refusal([&] {
                model.encode(source, at::zeros({2, 3}, at::kBool));
              }),
              HasSubstr("source_padding_mask of shape [2, 4] and dtype bool; found shape [2, 3]"));
  EXPECT_THAT(refusal([&] {
                model.forward(source, target, {}, at::zeros({2, 4}));
              }),
              HasSubstr("target_padding_mask"));
  const Memory memory = model.encode(source);
  EXPECT_THAT(refusal([&] { model.decode(random_tokens(3, 4), memory); }),
              HasSubstr("targets of the 2 rows of the memory; found shape [3, 4]"));
  DecoderState state = model.new_state(memory);
  EXPECT_THAT(refusal([&] { model.step(random_tokens(3, 1), state); }),
              HasSubstr("tokens of the 2 rows of the state; found shape [3, 1]"));
  model.step(random_tokens(2, 30), state);
  EXPECT_THAT(refusal([&] { model.step(random_tokens(2, 3), state); }),
              HasSubstr("found 30 tokens seen and 3 new ones"));
  EXPECT_EQ(state.position, 30);
  DecoderState empty;
  EXPECT_THAT(refusal([&] { model.step(random_tokens(0, 1), empty); }),
              HasSubstr("a state of 3 layers, as new_state() makes; found 0 layers"));
}

TEST(EncoderDecoder, RefusesACrossMixerWithoutACrossForm) {
  EncoderDecoderConfig config = small_translator();
  config.cross_mixer.name = "light_conv";
  EncoderDecoder model(config);
  EXPECT_THAT(refusal([&] { model.forward(random_tokens(1, 4, 13), random_tokens(1, 4)); }),
              HasSubstr("mixer light_conv: expected a mechanism with a cross form"));
  DecoderState state = model.new_state(model.encode(random_tokens(1, 4, 13)));
  EXPECT_THAT(refusal([&] { model.step(random_tokens(1, 1), state); }),
              HasSubstr("mixer light_conv: expected a mechanism with a cross form"));
}

}  // namespace
}  // namespace headloom::nn
