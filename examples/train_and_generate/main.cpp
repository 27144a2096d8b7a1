// Teaches a small causal language model of dynamic convolutions to count, byte by byte, and lets it
// go on from a number that it is given:
//
//   train_and_generate [steps [mechanism]]      for instance  train_and_generate 400 dot_product
//
// Prints the loss and the continuation; exits with 1 when the loss has not fallen below 0.5 nats.
#include <torch/torch.h>

#include <iostream>
#include <string>

#include "headloom/nn/generate.h"
#include "headloom/nn/language_model.h"

namespace nn = headloom::nn;

namespace {

constexpr int64_t kBatch = 16, kLength = 96;

// "0 1 2 3 ...", as token ids: bytes.
at::Tensor counting(int64_t bytes) {
  std::string text;
  for (int64_t number = 0; static_cast<int64_t>(text.size()) < bytes; ++number) {
    text += std::to_string(number) + ' ';
  }
  const auto byte = at::TensorOptions().dtype(at::kByte);
  return at::from_blob(text.data(), {bytes}, byte).to(at::kLong);
}

std::string text_of(const at::Tensor& tokens) {
  std::string text;
  for (int64_t i = 0; i < tokens.numel(); ++i) {
    text += static_cast<char>(tokens[i].item<int64_t>());
  }
  return text;
}

nn::TransformerConfig configuration(const std::string& mechanism) {
  nn::TransformerConfig config;
  config.vocabulary = 256;
  config.dim = 64;
  config.layers = 2;
  config.heads = 4;
  config.ffn = 256;
  config.causal = true;
  config.mixer = mechanism;
  return config;
}

// A batch of random pieces of the text, one token longer than the model reads.
at::Tensor pieces_of(const at::Tensor& text) {
  std::vector<at::Tensor> pieces;
  const at::Tensor begins = at::randint(text.size(0) - kLength - 1, {kBatch}, at::kLong);
  for (int64_t b = 0; b < kBatch; ++b) {
    pieces.push_back(text.narrow(0, begins[b].item<int64_t>(), kLength + 1));
  }
  return at::stack(pieces);
}

double train(nn::LanguageModel& model, const at::Tensor& text, int64_t steps) {
  torch::optim::AdamW optimizer(model.parameters(), torch::optim::AdamWOptions(3e-3));
  double average = 0.0;
  for (int64_t step = 1; step <= steps; ++step) {
    const at::Tensor batch = pieces_of(text);
    const at::Tensor logits = model.forward(batch.narrow(1, 0, kLength));
    const at::Tensor loss =
        at::cross_entropy_loss(logits.flatten(0, 1), batch.narrow(1, 1, kLength).flatten());
    optimizer.zero_grad();
    loss.backward();
    optimizer.step();
    average = step == 1 ? loss.item<double>() : 0.95 * average + 0.05 * loss.item<double>();
    if (step % 100 == 0) std::cout << "step " << step << ": " << average << " nats a byte\n";
  }
  return average;
}

}  // namespace

int main(int argc, char** argv) {
  torch::manual_seed(1);
  const int64_t steps = argc > 1 ? std::stoll(argv[1]) : 400;
  nn::LanguageModel model(configuration(argc > 2 ? argv[2] : "dynamic_conv"));
  const double loss = train(model, counting(20000), steps);

  nn::SamplingOptions greedy;
  greedy.temperature = 0.0;
  const at::Tensor prompt = counting(kLength).unsqueeze(0);
  std::cout << text_of(nn::generate(model, prompt, 40, greedy)[0]) << '\n';
  return loss < 0.5 ? 0 : 1;
}
