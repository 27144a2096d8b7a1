// Translation models whose weights the Python package imported from another library's names,
// against what the plain model of that library computes (tests/golden/make_fairseq.py).
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "headloom/base/check.h"
#include "headloom/nn/encoder_decoder.h"
#include "headloom/train/safetensors.h"
#include "headloom/train/weights.h"
#include "tests/support/closeness.h"
#include "tests/support/golden.h"

namespace headloom::train {
namespace {

using at::Tensor;
using nn::EncoderDecoder;
using nn::EncoderDecoderConfig;

EncoderDecoderConfig light_config() {
  EncoderDecoderConfig config;
  config.source_vocabulary = config.target_vocabulary = 11;
  config.dim = 8;
  config.ffn = 12;
  config.encoder_layers = config.decoder_layers = 2;
  config.max_length = 20;
  config.share_embeddings = true;
  config.encoder_mixer = {"light_conv", 2, 0.0, {{"kernel_sizes", std::vector<int64_t>{3, 7}}}};
  config.decoder_mixer = {"light_conv", 2, 0.0, {{"kernel_sizes", std::vector<int64_t>{3, 5}}}};
  config.cross_mixer = {"dot_product", 2, 0.0, {}};
  return config;
}

EncoderDecoderConfig dynamic_config() {
  EncoderDecoderConfig config = light_config();
  config.target_vocabulary = 13;
  config.norm = "pre";
  config.positions = "learned";
  config.share_embeddings = config.tie_output = false;
  for (nn::MixerChoice* mixer : {&config.encoder_mixer, &config.decoder_mixer}) {
    mixer->name = "dynamic_conv";
    mixer->heads = 4;
    mixer->options["glu"] = false;
  }
  config.cross_mixer.heads = 4;
  return config;
}

struct Imported {
  const char* kind;
  EncoderDecoderConfig config;
};

TEST(ImportedModel, ComputesWhatTheOriginalComputes) {
  for (const Imported& imported :
       {Imported{"light", light_config()}, Imported{"dynamic", dynamic_config()}}) {
    SCOPED_TRACE(imported.kind);
    const std::string name = cat("fairseq_", imported.kind);
    const std::string path = cat(HEADLOOM_SOURCE_DIR, "/tests/golden/", name, ".safetensors");
    EncoderDecoder model(imported.config);
    model.to(at::kDouble);
    model.eval();
    load_weights(path, read_safetensors(path).tensors, model);
    const auto golden = testing::read_golden(name + ".txt").at(0);
    const Tensor source = golden.arguments["source"].to(at::kLong);
    const Tensor target = golden.arguments["target"].to(at::kLong);
    const Tensor padding = golden.arguments["padding"];
    const Tensor& expected = golden.expected.at("logits");

    const at::NoGradGuard no_grad;
    const nn::Memory memory = model.encode(source, padding);
    const auto whole = testing::differs_from_golden(model.decode(target, memory), expected);
    EXPECT_FALSE(whole) << *whole;
    nn::DecoderState state = model.new_state(memory);
    std::vector<Tensor> steps;
    for (int64_t t = 0; t < target.size(1); ++t) {
      steps.push_back(model.step(target.narrow(1, t, 1), state));
    }
    const auto in_steps = testing::differs_from_golden(at::cat(steps, 1), expected);
    EXPECT_FALSE(in_steps) << *in_steps;
  }
}

}  // namespace
}  // namespace headloom::train
