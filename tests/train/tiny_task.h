#pragma once

#include <torch/torch.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <limits>

#include "headloom/base/rng.h"
#include "headloom/train/checkpoint.h"
#include "headloom/train/metrics_json.h"
#include "headloom/train/run.h"

// A task that trains in microseconds: which of two classes is a row of random tokens in?
namespace headloom::train {

constexpr int64_t kTinyTokens = 8, kTinyLength = 6, kTinyClasses = 2;

// Draws from torch's generator (dropout) and changes a buffer, so that a resume which loses either
// shows.
class TinyModel : public tasks::Model {
 public:
  TinyModel(int64_t dim, double dropout) : dropout_(dropout) {
    embedding_ = register_module("embedding", torch::nn::Embedding(kTinyTokens, dim));
    output_ = register_module("output", torch::nn::Linear(dim, kTinyClasses));
    seen_ = register_buffer("seen", torch::zeros({1}));
  }
  at::Tensor forward(const tasks::Batch& batch) override {
    if (is_training()) seen_.add_(1);
    const at::Tensor hidden = embedding_(batch.tokens).mean(1);
    return output_(torch::dropout(hidden, dropout_, is_training()));
  }
  double flops(int64_t length) const override { return 2.0 * static_cast<double>(length); }

 private:
  double dropout_;
  torch::nn::Embedding embedding_{nullptr};
  torch::nn::Linear output_{nullptr};
  at::Tensor seen_;
};

class TinyTask : public tasks::Task {
 public:
  explicit TinyTask(int64_t batch_size = 4) : batch_size_(batch_size) {}

  // Called with each batch's index; what a test wants to happen in the middle of a run.
  std::function<void(int64_t)> on_train_batch, on_validation_batch;
  int64_t nan_loss_at = -1, nan_gradient_at = -1;  // batch indices
  std::function<double(double)> change_metric = [](double value) { return value; };
  at::ScalarType dtype = at::kFloat;

  std::string name() const override { return "tiny"; }
  std::shared_ptr<tasks::Model> make_model(nn::TransformerConfig config) const override {
    auto model = std::make_shared<TinyModel>(config.dim, config.dropout);
    model->to(dtype);
    return model;
  }
  // Row r of batch i is example i batch_size + r: two batches equal one of twice the size.
  tasks::Batch train_batch(int64_t index) const override {
    if (on_train_batch) on_train_batch(index);
    last_index_ = index;
    return make_batch(/*seed=*/1, index);
  }
  int64_t validation_batches() const override { return 3; }
  tasks::Batch validation_batch(int64_t index) const override {
    if (on_validation_batch) on_validation_batch(index);
    return make_batch(/*seed=*/2, index);
  }
  tasks::Loss loss(const at::Tensor& logits, const tasks::Batch& batch) const override {
    at::Tensor sum = torch::nn::functional::cross_entropy(
        logits, batch.targets,
        torch::nn::functional::CrossEntropyFuncOptions().reduction(torch::kSum));
    constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
    if (last_index_ == nan_loss_at) sum = sum * kNan;
    // The root of 0 is 0, and its slope infinite.
    if (last_index_ == nan_gradient_at) sum = sum + (logits.sum() * 0).sqrt();
    return {sum, batch.targets.ge(0).sum().item<double>()};
  }
  void measure(const at::Tensor& logits, const tasks::Batch& batch,
               tasks::Totals& totals) const override {
    const at::Tensor known = batch.targets.ge(0);
    totals["right"] += logits.argmax(1).eq(batch.targets).sum().item<double>();
    totals["all"] += known.sum().item<double>();
    totals["loss"] += loss(logits, batch).sum.item<double>();
  }
  tasks::Metrics metrics(const tasks::Totals& totals) const override {
    return {{"loss", change_metric(totals.at("loss") / totals.at("all"))},
            {"accuracy", totals.at("right") / totals.at("all")}};
  }
  tasks::MainMetric main_metric() const override { return {"loss", false}; }
  int64_t typical_length() const override { return kTinyLength; }

 private:
  tasks::Batch make_batch(uint64_t seed, int64_t index) const {
    tasks::Batch batch;
    batch.tokens = torch::empty({batch_size_, kTinyLength}, torch::kLong);
    batch.targets = torch::empty({batch_size_}, torch::kLong);
    for (int64_t row = 0; row < batch_size_; ++row) {
      const int64_t example = index * batch_size_ + row;
      int64_t high = 0;
      for (int64_t t = 0; t < kTinyLength; ++t) {
        const int64_t token = random_word(seed, example * kTinyLength + t) % kTinyTokens;
        batch.tokens[row][t] = token;
        high += token >= kTinyTokens / 2;
      }
      // Every fifth row has nothing to predict, so that batches differ in weight.
      batch.targets[row] = example % 5 == 4 ? int64_t{-100} : int64_t{high > kTinyLength / 2};
    }
    batch.token_count = batch_size_ * kTinyLength;
    return batch;
  }

  int64_t batch_size_;
  mutable int64_t last_index_ = -2;  // none
};

inline Recipe tiny_recipe() {
  Recipe recipe;
  recipe.path = "tiny.toml";
  recipe.task = "tiny";
  recipe.base_folder = "/";
  recipe.model.dim = 8;
  recipe.model.dropout = 0.25;
  recipe.optimizer.lr = 0.02;
  recipe.optimizer.weight_decay = 0.1;
  recipe.schedule.name = "cosine";
  recipe.schedule.warmup = 3;
  recipe.train.steps = 13;
  recipe.train.threads = 1;  // tensors this small gain nothing from more
  recipe.train.accumulate = 2;
  recipe.train.clip = 0.5;
  recipe.train.ema = 0.9;
  recipe.train.log_every = 3;
  recipe.train.validate_every = 4;
  recipe.train.checkpoint_every = 5;
  return recipe;
}

// A folder that lives as long as this object; in memory where there is such a place, for every
// checkpoint waits for the disk.
class ScratchFolder {
 public:
  ScratchFolder() {
    const std::filesystem::path memory = "/dev/shm";
    const bool in_memory = std::filesystem::is_directory(memory);
    std::string pattern =
        (in_memory ? memory : std::filesystem::temp_directory_path()) / "headloom-test-XXXXXX";
    path_ = ::mkdtemp(pattern.data());
  }
  ~ScratchFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  std::string operator/(const std::string& name) const { return path_ + '/' + name; }

 private:
  std::string path_;
};

inline RunOptions quiet(const std::string& folder) {
  RunOptions options;
  options.folder = folder;
  options.quiet = true;
  return options;
}

// metrics.jsonl, all events or those of one kind.
inline std::vector<Json> read_events(const std::string& folder, const std::string& kind = "") {
  std::ifstream file(folder + "/metrics.jsonl");
  std::vector<Json> events;
  for (std::string line; std::getline(file, line);) {
    const Json event = Json::parse(line);
    if (kind.empty() || event["event"] == kind) events.push_back(event);
  }
  return events;
}

// What a run measured, as text, without what depends on the clock.
inline std::vector<std::string> curve(const std::string& folder) {
  std::vector<std::string> lines;
  for (Json event : read_events(folder)) {
    if (event["event"] != "train" && event["event"] != "validation") continue;
    event.erase("seconds");
    event.erase("tokens_per_second");
    lines.push_back(dump(event));
  }
  return lines;
}

inline Checkpoint newest(const std::string& folder) {
  std::vector<std::string> warnings;
  auto checkpoint = CheckpointFolder(folder + "/checkpoints").load_newest(warnings);
  if (!checkpoint) throw std::runtime_error(folder + " has no checkpoint");
  return *checkpoint;
}

}  // namespace headloom::train
