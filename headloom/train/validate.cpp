#include "headloom/train/validate.h"

#include "headloom/tasks/model_mode.h"
#include "headloom/train/generator.h"
#include "headloom/train/step.h"

namespace headloom::train {
namespace {

at::Device device_of(const tasks::Model& model) {
  const auto parameters = model.parameters();
  return parameters.empty() ? at::Device(at::kCPU) : parameters.front().device();
}

}  // namespace

std::optional<tasks::Metrics> validate_unless(const std::function<bool()>& stop,
                                              tasks::Model& model, const tasks::Task& task,
                                              const Recipe& recipe) {
  const at::Device device = device_of(model);
  const GeneratorGuard generators(device);
  const tasks::ModelMode evaluation(model, /*training=*/false);
  const at::NoGradGuard no_grad;
  tasks::Totals totals;
  for (int64_t index = 0; index < task.validation_batches(); ++index) {
    if (stop()) return std::nullopt;
    const tasks::Batch batch = task.validation_batch(index).to(device);
    task.measure(compute_logits(model, batch, recipe.train.precision), batch, totals);
  }
  return task.metrics(totals);
}

std::optional<tasks::Metrics> closing_unless(const std::function<bool()>& stop, tasks::Model& model,
                                             const tasks::Task& task) {
  const GeneratorGuard generators(device_of(model));
  const tasks::ModelMode evaluation(model, /*training=*/false);
  const at::NoGradGuard no_grad;
  return task.closing_metrics(model, stop);
}

tasks::Metrics evaluate(tasks::Model& model, const tasks::Task& task, const Recipe& recipe) {
  tasks::Metrics metrics = validate(model, task, recipe);
  const tasks::Metrics closing = *closing_unless([] { return false; }, model, task);
  metrics.insert(metrics.end(), closing.begin(), closing.end());
  return metrics;
}

tasks::Metrics validate(tasks::Model& model, const tasks::Task& task, const Recipe& recipe) {
  return *validate_unless([] { return false; }, model, task, recipe);
}

}  // namespace headloom::train
