// Parameter counts of the published models, from models that are really built.
#include "headloom/nn/conv_models.h"

#include <cmath>

#include "tests/nn/nn_support.h"

namespace headloom::nn {
namespace {

using at::Tensor;
using ::testing::HasSubstr;

constexpr int64_t kVocabulary = 32768;

struct Published {
  const char* mechanism;
  bool glu;
  double millions;  // as published, to one decimal
};

constexpr Published kPublished[] = {{"dynamic_conv", true, 213.0},
                                    {"dynamic_conv", false, 199.4},
                                    {"light_conv", true, 208.7},
                                    {"light_conv", false, 195.0}};

EncoderDecoderConfig big_model(const Published& published) {
  EncoderDecoderConfig config =
      conv_model("wmt_en_de_big", published.mechanism, kVocabulary, kVocabulary);
  config.encoder_mixer.options["glu"] = config.decoder_mixer.options["glu"] = published.glu;
  return config;
}

// The published sizes count matrices only: no biases, no norms, no [H, K] tables.
int64_t count_matrices(const torch::nn::Module& module) {
  int64_t count = 0;
  for (const auto& parameter : module.named_parameters()) {
    const std::string& name = parameter.key();
    const bool table = name.size() >= 12 && name.substr(name.size() - 12) == "mixer.weight";
    if (parameter.value().dim() == 2 && !table) count += parameter.value().numel();
  }
  return count;
}

double in_millions(int64_t count) {
  return std::round(static_cast<double>(count) / 1e5) / 10;
}

// One block at a time, so that 50 MB are held and not 850.
int64_t count_stack(const EncoderDecoderConfig& config, bool decoder) {
  BlockConfig block;
  block.dim = config.dim;
  block.ffn = config.ffn;
  block.norm = config.norm;
  block.activation = config.activation;
  block.layers = decoder ? config.decoder_layers : config.encoder_layers;
  block.causal = decoder;
  block.mixer = decoder ? config.decoder_mixer : config.encoder_mixer;
  if (decoder) block.cross = config.cross_mixer;
  int64_t count = 0, latest = 0;
  for (block.layer = 0; block.layer < block.layers; ++block.layer) {
    // From the fourth layer on all kernels have one width.
    if (block.layer < 4) latest = count_matrices(TransformerBlock(block));
    count += latest;
  }
  return count;
}

TEST(ConvModels, BlocksOfTheBigModelsHaveThePublishedSizes) {
  for (const Published& published : {kPublished[0], kPublished[3]}) {
    const EncoderDecoderConfig config = big_model(published);
    const int64_t embedding = config.source_vocabulary * config.dim;
    const int64_t count = embedding + count_stack(config, false) + count_stack(config, true);
    EXPECT_EQ(in_millions(count), published.millions)
        << published.mechanism << (published.glu ? " with" : " without") << " gate: " << count;
  }
}

TEST(ConvModels, BigModelsHaveThePublishedSizesSlow) {
  for (const Published& published : kPublished) {
    const EncoderDecoder model(big_model(published));
    EXPECT_EQ(in_millions(count_matrices(model)), published.millions) << published.mechanism;
  }
}

// The same count for a small vocabulary and width, from a whole model against the formula, so that
// the sums above miss no part of a model.
TEST(ConvModels, AWholeModelCountsLikeItsParts) {
  EncoderDecoderConfig config = conv_model("wmt_en_de", "dynamic_conv", 40, 40);
  config.dim = 32;
  config.ffn = 48;
  const int64_t parts = 40 * 32 + count_stack(config, false) + count_stack(config, true);
  EXPECT_EQ(count_matrices(EncoderDecoder(config)), parts);
  constexpr int64_t C = 32, F = 48, H = 8, encoder_taps = 149, decoder_taps = 118;
  EXPECT_EQ(parts, 40 * C + 7 * (3 * C * C + 2 * C * F) + 6 * (7 * C * C + 2 * C * F) +
                       C * H * (encoder_taps + decoder_taps));
}

TEST(ConvModels, NamesAreThoseOfTheRecipes) {
  EXPECT_THAT(conv_model_names(),
              ::testing::ElementsAre("iwslt_de_en", "wmt_en_de", "wmt_en_de_big", "wmt_en_fr_big",
                                     "wmt_zh_en_big"));
  const EncoderDecoderConfig config = conv_model("iwslt_de_en", "light_conv", 10, 12);
  EXPECT_EQ(config.dim, 512);
  EXPECT_EQ(config.ffn, 1024);
  EXPECT_EQ(config.decoder_mixer.heads, 4);
  EXPECT_EQ(config.norm, "post");
  EXPECT_FALSE(config.share_embeddings);
  EXPECT_EQ(to_string(config.decoder_mixer.options.at("glu")), "false");
  for (const std::string& name : conv_model_names()) {
    EXPECT_NO_THROW(check_config(conv_model(name, "dynamic_conv", 30, 30)));
  }
}

TEST(ConvModels, OtherNamesAreRefused) {
  EXPECT_EQ(refusal([] { conv_model("wmt_en_de_bg", "light_conv", 10, 10); }),
            "convolution model: expected name to be one of iwslt_de_en, wmt_en_de, wmt_en_de_big, "
            "wmt_en_fr_big, wmt_zh_en_big; found \"wmt_en_de_bg\". Did you mean "
            "\"wmt_en_de_big\"?");
  EXPECT_THAT(refusal([] { conv_model("wmt_en_de", "dot_product", 10, 10); }),
              HasSubstr("mechanism to be one of light_conv, dynamic_conv"));
}

}  // namespace
}  // namespace headloom::nn
