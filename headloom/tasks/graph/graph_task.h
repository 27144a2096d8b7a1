#pragma once

#include <memory>
#include <mutex>

#include "headloom/tasks/graph/graph_data.h"
#include "headloom/tasks/task.h"

namespace headloom::tasks {

TaskEntry graph_entry();

namespace graph {

struct GraphOptions {
  std::string folder;  // of nodes.tsv and edges.tsv
  bool evaluate_on_test = false;
  bool best_loss = false;  // the main metric: loss instead of accuracy
};

// Classification of nodes: every batch is the whole graph, scored at the nodes of a split. Metrics:
// loss (nats), accuracy, ece (expected calibration error, per cent). Data is read when first asked
// for.
class GraphTask : public Task {
 public:
  GraphTask(const TaskConfig& config, const GraphOptions& options);

  std::string name() const override { return "graph"; }
  std::shared_ptr<Model> make_model(nn::TransformerConfig config) const override;
  Batch train_batch(int64_t index) const override;
  int64_t validation_batches() const override { return 1; }
  Batch validation_batch(int64_t index) const override;
  Loss loss(const at::Tensor& logits, const Batch& batch) const override;
  void measure(const at::Tensor& logits, const Batch& batch, Totals& totals) const override;
  Metrics metrics(const Totals& totals) const override;
  MainMetric main_metric() const override;
  int64_t typical_length() const override;

 private:
  std::shared_ptr<const Graph> graph() const;
  Batch batch_of(Split split) const;

  TaskConfig config_;
  GraphOptions options_;
  mutable std::mutex mutex_;
  mutable std::shared_ptr<const Graph> graph_;
};

}  // namespace graph
}  // namespace headloom::tasks
