#pragma once

#include <torch/torch.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "headloom/mechanisms/registry.h"
#include "headloom/tasks/task.h"
#include "tests/tasks/support.h"

// Small texts, and what the tests of tasks of words do with them.
namespace headloom::tasks {

inline nn::TransformerConfig small_transformer(int64_t max_length) {
  nn::TransformerConfig config;
  config.dim = 16;
  config.layers = 1;
  config.heads = 2;
  config.ffn = 32;
  config.max_length = max_length;
  return config;
}

// For each mechanism that this task can be made of, its name and a small model.
inline void for_models(const Task& task, int64_t max_length,
                       const std::function<void(const std::string&, Model&)>& body) {
  for (const Mechanism* mechanism : mechanisms()) {
    nn::TransformerConfig config = small_transformer(max_length);
    config.mixer = mechanism->name;
    std::shared_ptr<Model> model;
    try {
      model = task.make_model(config);
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), ::testing::HasSubstr(mechanism->name));
      continue;
    }
    body(mechanism->name, *model);
  }
}

// Trains, and returns the mean loss of the first and of the last batch.
inline std::pair<double, double> learn(const Task& task, Model& model, int64_t steps) {
  torch::optim::Adam optimizer(model.parameters(), torch::optim::AdamOptions(1e-2));
  double first = 0.0, last = 0.0;
  for (int64_t step = 0; step < steps; ++step) {
    const Batch batch = task.train_batch(step);
    const Loss loss = task.loss(model.forward(batch), batch);
    const at::Tensor mean = loss.sum / loss.weight;
    optimizer.zero_grad();
    mean.backward();
    optimizer.step();
    last = mean.item<double>();
    if (step == 0) first = last;
  }
  return {first, last};
}

inline Metrics measured(const Task& task, Model& model) {
  model.eval();
  const at::NoGradGuard no_grad;
  Totals totals;
  for (int64_t i = 0; i < task.validation_batches(); ++i) {
    const Batch batch = task.validation_batch(i);
    task.measure(model.forward(batch), batch, totals);
  }
  return task.metrics(totals);
}

// A tensor of all validation batches, one after the other.
inline at::Tensor all_validation(const Task& task, at::Tensor Batch::*member) {
  std::vector<at::Tensor> rows;
  for (int64_t i = 0; i < task.validation_batches(); ++i) {
    rows.push_back(task.validation_batch(i).*member);
  }
  return at::cat(rows);
}

// A task of running text: 400 lines of numbered words, with blank ones among them.
class CorpusTest : public ::testing::Test {
 protected:
  CorpusTest(std::string task, Options defaults)
      : task_(std::move(task)), defaults_(std::move(defaults)) {
    std::string text;
    for (int i = 0; i < 400; ++i) {
      text += cat("the weaver of row ", i % 7, " counts ", i % 11, " threads\n");
      if (i % 10 == 0) text += " \n";
    }
    folder_.write("text", text);
  }

  std::unique_ptr<Task> make(Options options = {}, int64_t batch_size = 4, uint64_t seed = 1) {
    options.emplace("path", std::string("text"));
    options.insert(defaults_.begin(), defaults_.end());
    TaskConfig config = config_;
    config.batch_size = batch_size;
    config.seed = seed;
    config.base_folder = folder_.path().string();
    return make_task(task_, config, options);
  }

  // Training batches depend on the seed and the index alone; validation batches on neither.
  void expect_pure_batches() {
    const auto one = make(), two = make(), other = make({}, 4, 2);
    for (const auto member : {&Batch::tokens, &Batch::targets}) {
      EXPECT_TRUE(at::equal(one->train_batch(3).*member, two->train_batch(3).*member));
      EXPECT_FALSE(at::equal(one->train_batch(3).*member, one->train_batch(4).*member));
      EXPECT_FALSE(at::equal(one->train_batch(3).*member, other->train_batch(3).*member));
      EXPECT_TRUE(at::equal(one->validation_batch(1).*member, other->validation_batch(1).*member));
    }
  }
  void expect_validation_of_any_batch_size() {
    const auto one = make({}, 1), four = make({}, 4);
    for (const auto member : {&Batch::tokens, &Batch::targets}) {
      EXPECT_TRUE(at::equal(all_validation(*one, member), all_validation(*four, member)));
    }
    const auto limited = make({{"validation_limit", int64_t{5}}});
    EXPECT_EQ(all_validation(*limited, &Batch::targets).size(0), 5);
    EXPECT_THAT(message_of([&] { one->validation_batch(one->validation_batches()); }),
                ::testing::HasSubstr("expected a validation batch below"));
  }

  TaskConfig config_;
  TempFolder folder_;

 private:
  std::string task_;
  Options defaults_;
};

inline std::string single_rows(int count) {
  std::string text = "sentence\tlabel\n";
  for (int i = 0; i < count; ++i) {
    text += cat("row ", i, i % 2 ? " is a good and even row" : " is bad", '\t', i % 2, '\n');
  }
  return text;
}

inline std::string pair_rows(int count) {
  std::string text = "index\tsentence1\tsentence2\tlabel\n";
  for (int i = 0; i < count; ++i) {
    text += cat(i, "\tthe loom stands in room number ", i, " of this house\tthe loom stands\t",
                i % 2 ? "entailment" : "not_entailment", '\n');
  }
  return text;
}

// A task of GLUE's files.
class GlueTest : public ::testing::Test {
 protected:
  explicit GlueTest(std::string task, Options defaults = {})
      : task_(std::move(task)), defaults_(std::move(defaults)) {
    folder_.write("train.tsv", single_rows(64));
    folder_.write("dev.tsv", single_rows(21));
    folder_.write("train_pairs.tsv", pair_rows(32));
    folder_.write("dev_pairs.tsv", pair_rows(9));
  }

  std::unique_ptr<Task> make(Options options = {}, uint64_t seed = 1) {
    options.emplace("train_file", std::string("train.tsv"));
    options.emplace("validation_file", std::string("dev.tsv"));
    options.emplace("max_length", int64_t{32});
    options.emplace("vocabulary", int64_t{120});
    options.insert(defaults_.begin(), defaults_.end());
    TaskConfig config = config_;
    config.batch_size = 8;
    config.seed = seed;
    config.base_folder = folder_.path().string();
    return make_task(task_, config, options);
  }
  std::unique_ptr<Task> make_pairs(Options options = {}) {
    options.emplace("format", std::string("rte"));
    options.emplace("train_file", std::string("train_pairs.tsv"));
    options.emplace("validation_file", std::string("dev_pairs.tsv"));
    return make(std::move(options));
  }

  void expect_pure_batches() {
    const auto one = make(), two = make(), other = make({}, 2);
    bool differs = false;
    for (int64_t i = 0; i < 8; ++i) {
      EXPECT_TRUE(at::equal(one->train_batch(i).tokens, two->train_batch(i).tokens));
      EXPECT_TRUE(at::equal(one->train_batch(i).targets, two->train_batch(i).targets));
      differs |= !at::equal(one->train_batch(i).targets, other->train_batch(i).targets);
    }
    EXPECT_TRUE(differs);
  }
  void expect_every_validation_row_once() {
    const auto task = make();
    const at::Tensor classes = all_validation(*task, &Batch::targets);
    EXPECT_EQ(classes.numel(), 21);
    EXPECT_EQ(classes.sum().item<int64_t>(), 10);
    EXPECT_GT(task->typical_length(), 4);
    EXPECT_THAT(message_of([&] { task->validation_batch(3); }),
                ::testing::HasSubstr("expected a validation batch below 3; found 3"));
  }

  TaskConfig config_;
  TempFolder folder_;

 private:
  std::string task_;
  Options defaults_;
};

}  // namespace headloom::tasks
