#include "headloom/nn/conv_models.h"

#include "headloom/nn/tokens.h"

namespace headloom::nn {
namespace {

struct Row {
  const char* name;
  int64_t dim, ffn, heads;
  bool glu;
  double dropout, attention_dropout, weight_dropout, input_dropout;
  bool share;
};

constexpr Row kRows[] = {
    {"iwslt_de_en", 512, 1024, 4, false, 0.3, 0.1, 0.1, 0.0, false},
    {"wmt_en_de", 512, 2048, 8, true, 0.1, 0.0, 0.0, 0.1, true},
    {"wmt_en_de_big", 1024, 4096, 16, true, 0.3, 0.1, 0.1, 0.1, true},
    {"wmt_en_fr_big", 1024, 4096, 16, true, 0.1, 0.1, 0.1, 0.1, true},
    {"wmt_zh_en_big", 1024, 4096, 16, true, 0.2, 0.2, 0.2, 0.1, false},
};

}  // namespace

std::vector<std::string> conv_model_names() {
  std::vector<std::string> names;
  for (const Row& row : kRows) names.emplace_back(row.name);
  return names;
}

EncoderDecoderConfig conv_model(const std::string& name, const std::string& mechanism,
                                int64_t source_vocabulary, int64_t target_vocabulary) {
  check_choice("convolution model", "name", name, conv_model_names());
  check_choice("convolution model", "mechanism", mechanism, {"light_conv", "dynamic_conv"});
  const Row* row = kRows;
  while (row->name != name) ++row;
  EncoderDecoderConfig config;
  config.source_vocabulary = source_vocabulary;
  config.target_vocabulary = target_vocabulary;
  config.dim = row->dim;
  config.ffn = row->ffn;
  config.encoder_layers = 7;
  config.decoder_layers = 6;
  config.dropout = row->dropout;
  config.share_embeddings = row->share;
  config.encoder_mixer = {mechanism,
                          row->heads,
                          row->weight_dropout,
                          {{"glu", row->glu},
                           {"input_dropout", row->input_dropout},
                           {"kernel_sizes", std::vector<int64_t>{3, 7, 15, 31, 31, 31, 31}}}};
  config.decoder_mixer = config.encoder_mixer;
  config.cross_mixer = {"dot_product", row->heads, row->attention_dropout, {}};
  return config;
}

}  // namespace headloom::nn
