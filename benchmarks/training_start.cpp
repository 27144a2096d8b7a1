// What a run starts from, for benchmarks/training.py: the first weights of `headloom train` and its
// first batches, so that another trainer can start from the same and take the same steps.
//
//   training_start RECIPE OUTPUT COUNT [section.key=value ...]
//
// OUTPUT is a safetensors file: model.<name>, and batch.<index>.tokens, .targets, .padding,
// .segments, .decoder_tokens; what a batch does not have is left out.

#include <torch/utils.h>

#include <charconv>
#include <iostream>
#include <string_view>

#include "headloom/base/check.h"
#include "headloom/train/run.h"
#include "headloom/train/safetensors.h"
#include "headloom/train/weights.h"

namespace headloom {
namespace {

int64_t read_count(std::string_view text) {
  int64_t count = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), count);
  HEADLOOM_CHECK(error == std::errc() && end == text.data() + text.size() && count >= 1,
                 "training_start", "a COUNT of 1 or more", text);
  return count;
}

void write_start(const std::string& path, const std::string& output, int64_t count,
                 const std::vector<std::string>& overrides) {
  const train::Recipe recipe = train::load_recipe(path, overrides);
  const auto task = train::make_task(recipe);
  torch::manual_seed(recipe.train.seed);
  const auto model = task->make_model(recipe.model);
  train::NamedTensors tensors = train::under_prefix("model.", train::model_tensors(*model));
  for (int64_t index = 0; index < count; ++index) {
    const tasks::Batch batch = task->train_batch(index);
    const auto put = [&](const char* name, const at::Tensor& tensor) {
      if (tensor.defined()) tensors.emplace_back(cat("batch.", index, '.', name), tensor);
    };
    put("tokens", batch.tokens);
    put("targets", batch.targets);
    put("padding", batch.masks.key_padding_mask);
    put("segments", batch.segments);
    put("decoder_tokens", batch.decoder_tokens);
  }
  train::write_safetensors(output, tensors);
}

}  // namespace
}  // namespace headloom

int main(int count, char** words) {
  try {
    HEADLOOM_CHECK(count >= 4, "training_start", "RECIPE OUTPUT COUNT [section.key=value ...]",
                   headloom::cat(count - 1, " words"));
    headloom::write_start(words[1], words[2], headloom::read_count(words[3]),
                          {words + 4, words + count});
  } catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
  return 0;
}
