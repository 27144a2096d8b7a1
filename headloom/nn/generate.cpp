#include "headloom/nn/generate.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <vector>

#include "headloom/base/check.h"
#include "headloom/nn/evaluation_mode.h"
#include "headloom/nn/sampling.h"

namespace headloom::nn {
namespace {

using at::Tensor;

void check_request(const Tensor& prompts, int64_t length) {
  HEADLOOM_CHECK(prompts.dim() == 2 && prompts.size(1) >= 1 && prompts.scalar_type() == at::kLong,
                 "generate", "prompts of shape [B, T], T at least 1, and dtype int64",
                 cat("shape ", prompts.sizes(), ", ", prompts.scalar_type()),
                 "Start from at least one token, for example a line end.");
  HEADLOOM_CHECK(length >= 0, "generate", "a length of at least 0", cat("length = ", length));
}

// The newest half of what a model can hold, with room for as much again.
Tensor newest(const std::vector<Tensor>& columns, int64_t max_length) {
  const Tensor text = at::cat(columns, 1);  // [B, T]
  const int64_t kept = std::min(text.size(1), std::max<int64_t>(1, max_length / 2));
  return text.narrow(1, text.size(1) - kept, kept);
}

}  // namespace

Tensor generate(LanguageModel& model, const Tensor& prompts, int64_t length,
                const SamplingOptions& options,
                const std::function<bool(const Tensor&)>& on_token) {
  check_sampling(options);
  check_request(prompts, length);
  const at::NoGradGuard no_grad;
  const EvaluationMode evaluation(model);

  const int64_t max_length = model.config().max_length;
  DecoderState state = model.new_state(prompts.size(0));
  std::vector<Tensor> columns{prompts};
  Tensor unseen = prompts;  // what the state has not seen yet
  for (int64_t i = 0; i < length; ++i) {
    if (state.position + unseen.size(1) > max_length) {
      state = model.new_state(prompts.size(0));
      unseen = newest(columns, max_length);
    }
    const Tensor next = sample(model.next_logits(unseen, state), options, i);  // [B]
    unseen = next.unsqueeze(1);
    columns.push_back(unseen);
    if (on_token && !on_token(next)) break;
  }
  return at::cat(columns, 1);
}

}  // namespace headloom::nn
