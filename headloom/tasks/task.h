#pragma once

#include <torch/nn/module.h>

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "headloom/base/options.h"
#include "headloom/nn/language_model.h"

// B batch, T tokens.
namespace headloom::tasks {

struct Batch {
  at::Tensor tokens;   // [B, T] int64
  at::Tensor targets;  // [B] classes, or [B, T] tokens with -100 where there is nothing to predict
  Masks masks;
  int64_t token_count = 0;  // without padding

  Batch to(at::Device device) const;
};

// What a task trains: a Transformer with the task's head.
class Model : public torch::nn::Module {
 public:
  virtual at::Tensor forward(const Batch& batch) = 0;  // logits
  virtual double flops(int64_t length) const = 0;      // of one forward pass over one sequence
};

// A loss as a sum and the weight that turns it into a mean, so that micro-batches and processes add
// up exactly.
struct Loss {
  at::Tensor sum;       // scalar, differentiable
  double weight = 0.0;  // e.g. tokens or examples
};

using Totals = std::map<std::string, double>;                 // sums over batches
using Metrics = std::vector<std::pair<std::string, double>>;  // values, in the order to show

struct MainMetric {
  std::string name;  // one of metrics()
  bool higher_is_better;
};

// A task reads its data, and owns its head, loss and metrics. Batches are pure functions of the
// seed and an index: a run resumes exactly by going on with the next index.
class Task {
 public:
  virtual ~Task() = default;
  virtual std::string name() const = 0;

  // The task sets what only it knows (vocabulary, causal, and max_length if the recipe's is too
  // short is an error that says so).
  virtual std::shared_ptr<Model> make_model(nn::TransformerConfig config) const = 0;

  virtual Batch train_batch(int64_t index) const = 0;  // index 0, 1, 2, ... without end
  virtual int64_t validation_batches() const = 0;
  virtual Batch validation_batch(int64_t index) const = 0;

  virtual Loss loss(const at::Tensor& logits, const Batch& batch) const = 0;
  // Adds what a batch contributes, then turns the sums into values.
  virtual void measure(const at::Tensor& logits, const Batch& batch, Totals& totals) const = 0;
  virtual Metrics metrics(const Totals& totals) const = 0;
  virtual MainMetric main_metric() const = 0;

  // Length of a typical training sequence, for operation counts.
  virtual int64_t typical_length() const = 0;
};

// A task whose models write text.
class TextGenerator {
 public:
  virtual ~TextGenerator() = default;
  virtual std::vector<int64_t> encode(const std::string& text) const = 0;
  virtual std::string decode(const std::vector<int64_t>& tokens) const = 0;
  virtual nn::LanguageModel& language_model(Model& model) const = 0;
};

struct TaskConfig {
  int64_t batch_size = 32;
  uint64_t seed = 1;
  // Relative paths in a recipe are relative to the folder of the recipe, this one.
  std::string base_folder = ".";
};

using TaskFactory = std::function<std::unique_ptr<Task>(const TaskConfig&, OptionReader&)>;

struct TaskEntry {
  std::string name;     // as recipes write it
  std::string summary;  // one line for `headloom list`
  std::string options;  // "key (default): meaning" lines
  TaskFactory make;
};

// All tasks. The list is in registry.cpp: a static library drops files that nothing names.
const std::vector<TaskEntry>& all_tasks();
// Builds a task; refuses an unknown name and unknown options, naming the nearest.
std::unique_ptr<Task> make_task(const std::string& name, const TaskConfig& config,
                                const Options& options);

}  // namespace headloom::tasks
