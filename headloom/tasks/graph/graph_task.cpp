#include "headloom/tasks/graph/graph_task.h"

#include <ATen/ATen.h>

#include "headloom/base/check.h"
#include "headloom/mechanisms/cross_entropy.h"
#include "headloom/tasks/files.h"
#include "headloom/tasks/graph/gat_model.h"
#include "headloom/tasks/metrics.h"

namespace headloom::tasks {
namespace graph {
namespace {

using at::Tensor;

constexpr const char* kWhere = "task graph";

Tensor as_tensor(const std::vector<int64_t>& values) {
  return at::tensor(values, at::kLong);
}

}  // namespace

GraphTask::GraphTask(const TaskConfig& config, const GraphOptions& options)
    : config_(config), options_(options) {
  HEADLOOM_CHECK(!options.folder.empty(), kWhere, "folder, with nodes.tsv and edges.tsv", "none");
}

std::shared_ptr<const Graph> GraphTask::graph() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (!graph_) {
    graph_ = std::make_shared<Graph>(read_graph(resolve(config_.base_folder, options_.folder)));
  }
  return graph_;
}

std::shared_ptr<Model> GraphTask::make_model(nn::TransformerConfig config) const {
  return std::make_shared<GatModel>(graph(), config);
}

Batch GraphTask::batch_of(Split split) const {
  const auto all = graph();
  const std::vector<int64_t> nodes = all->nodes_of(split);
  HEADLOOM_CHECK(!nodes.empty(), kWhere, "nodes in every split", "a split without any");
  std::vector<int64_t> labels;
  for (const int64_t node : nodes) labels.push_back(all->labels[static_cast<size_t>(node)]);
  Batch batch;
  batch.tokens = as_tensor(nodes).unsqueeze(0);
  batch.targets = as_tensor(labels);
  batch.token_count = static_cast<int64_t>(nodes.size());
  return batch;
}

Batch GraphTask::train_batch(int64_t) const {
  return batch_of(Split::kTrain);
}

Batch GraphTask::validation_batch(int64_t) const {
  return batch_of(options_.evaluate_on_test ? Split::kTest : Split::kValidation);
}

Loss GraphTask::loss(const Tensor& logits, const Batch& batch) const {
  return {cross_entropy_sum(logits, batch.targets), static_cast<double>(batch.targets.size(0))};
}

void GraphTask::measure(const Tensor& logits, const Batch& batch, Totals& totals) const {
  totals["nats"] += cross_entropy_sum(logits, batch.targets).item<double>();
  totals["right"] += (logits.argmax(1) == batch.targets).sum().item<double>();
  totals["nodes"] += static_cast<double>(batch.targets.size(0));
  add_calibration(logits.softmax(1), batch.targets, totals);
}

Metrics GraphTask::metrics(const Totals& totals) const {
  const double nodes = totals.at("nodes");
  return {{"loss", totals.at("nats") / nodes},
          {"accuracy", totals.at("right") / nodes},
          {"ece", expected_calibration_error(totals)}};
}

MainMetric GraphTask::main_metric() const {
  return options_.best_loss ? MainMetric{"loss", false} : MainMetric{"accuracy", true};
}

int64_t GraphTask::typical_length() const {
  return graph()->nodes();
}

}  // namespace graph

TaskEntry graph_entry() {
  return {
      "graph",
      "classes of a graph's nodes by a two-layer graph attention network (Planetoid form)",
      "folder: of nodes.tsv and edges.tsv\n"
      "evaluate_on (validation): validation or test\n"
      "best (accuracy): accuracy or loss, what is best of the validations",
      [](const TaskConfig& config, OptionReader& reader) -> std::unique_ptr<Task> {
        graph::GraphOptions options;
        options.folder = reader.text("folder", "");
        options.evaluate_on_test =
            reader.choice("evaluate_on", "validation", {"validation", "test"}) == "test";
        options.best_loss = reader.choice("best", "accuracy", {"accuracy", "loss"}) == "loss";
        return std::make_unique<graph::GraphTask>(config, options);
      },
  };
}

}  // namespace headloom::tasks
