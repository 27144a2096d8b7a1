#include "headloom/train/step.h"

#include <torch/cuda.h>

#include <chrono>
#include <cmath>

#include "headloom/base/check.h"
#include "headloom/train/precision.h"
#include "headloom/train/schedule.h"

namespace headloom::train {
namespace {

const char* const kDivergenceAdvice =
    "Nothing was updated. A lower optimizer.lr, a longer schedule.warmup or train.clip = 1.0 may "
    "help.";

// The input was fine: what failed is the run.
void require_finite(double value, const std::string& where, const char* what) {
  if (std::isfinite(value)) return;
  throw RunError(
      cat(where, ": expected a finite ", what, "; found ", value, ". ", kDivergenceAdvice));
}

}  // namespace

at::Device device_of(const Recipe& recipe) {
  if (recipe.train.device != "cuda") return at::Device(recipe.train.device);
  HEADLOOM_CHECK(torch::cuda::is_available(), "train.device",
                 "\"cuda\" where torch has CUDA and sees a GPU", "neither or no GPU",
                 "Use --set train.device=cpu.");
  // With its index, for tensors name theirs.
  return at::Device(at::kCUDA, 0);
}

at::Tensor compute_logits(tasks::Model& model, const tasks::Batch& batch,
                          const std::string& precision) {
  AutocastGuard autocast(precision, batch.tokens.device().type());
  const at::Tensor logits = model.forward(batch);
  const bool half = logits.scalar_type() == at::kBFloat16 || logits.scalar_type() == at::kHalf;
  return half ? logits.to(at::kFloat) : logits;
}

Stepper::Stepper(const Recipe& recipe, const tasks::Task& task, tasks::Model& model,
                 Optimizer& optimizer)
    : recipe_(recipe),
      task_(task),
      model_(model),
      optimizer_(optimizer),
      device_(device_of(recipe)),
      alignment_(model) {}

std::string Stepper::name(int64_t step) const {
  const int64_t count = recipe_.train.accumulate, first = (step - 1) * count;
  return count == 1 ? cat("step ", step, " (batch ", first, ')')
                    : cat("step ", step, " (batches ", first, " to ", first + count - 1, ')');
}

void Stepper::accumulate(int64_t step, int64_t index, StepResult& total) {
  const tasks::Batch batch = task_.train_batch(index).to(device_);
  const tasks::Loss loss =
      task_.loss(compute_logits(model_, batch, recipe_.train.precision), batch);
  const double sum = loss.sum.item<double>();
  require_finite(sum, cat("batch ", index), "loss");
  HEADLOOM_CHECK(loss.weight > 0.0, cat("batch ", index), "something to predict",
                 cat("a loss of weight ", loss.weight));
  if (alignment_) {
    // Beside the mean that the task's sum becomes.
    const at::Tensor objective = alignment_.weighted(step);
    require_finite(objective.item<double>(), cat("batch ", index), "alignment objective");
    (loss.sum + loss.weight * objective).backward();
  } else {
    loss.sum.backward();
  }
  total.loss += sum;
  total.weight += loss.weight;
  total.tokens += batch.token_count;
}

StepResult Stepper::operator()(int64_t step) {
  const auto begin = std::chrono::steady_clock::now();
  const TrainConfig& config = recipe_.train;
  StepResult result;
  try {
    optimizer_.zero_grad();
    for (int64_t m = 0; m < config.accumulate; ++m) {
      accumulate(step, (step - 1) * config.accumulate + m, result);
    }
  } catch (const c10::OutOfMemoryError& error) {
    fail(name(step), cat("enough memory for batches of ", config.batch_size, " sequences"),
         error.what_without_backtrace(),
         "Halve train.batch_size and double train.accumulate: the result is the same.");
  } catch (const RunError& error) {
    throw RunError(cat(name(step), ", ", error.what()));
  } catch (const Error& error) {
    throw Error(cat(name(step), ", ", error.what()));
  }
  result.grad_norm = optimizer_.scale_and_clip(1.0 / result.weight, config.clip);
  require_finite(result.grad_norm, name(step), "gradient norm");
  result.lr = learning_rate(recipe_.schedule, recipe_.optimizer.lr, config.steps, step);
  optimizer_.step(result.lr);
  result.loss /= result.weight;
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - begin;
  result.seconds = elapsed.count();
  return result;
}

}  // namespace headloom::train
