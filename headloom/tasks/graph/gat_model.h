#pragma once

#include "headloom/mechanisms/query_key_source.h"
#include "headloom/tasks/graph/graph_ops.h"
#include "headloom/tasks/task.h"

// N nodes, H heads, F features a head, C columns of the input, D = H F.
namespace headloom::tasks::graph {

// One layer of graph attention. z = W x, per head; scores a_l.z_i + b_l + a_r.z_j + b_r; dropout on
// the inputs and on z, a mask a head, and on the weights. Its queries and keys, for an objective
// that watches them, are the channel vectors whose sums the scores are: q_i = a_l * z_i and
// k_j = a_r * z_j, both [1, H, N, F]. Parameters weight [C, H, F], left and right [H, F], left_bias
// and right_bias [H], bias [D]; Glorot-uniform a head, biases 0.
class GraphAttention : public torch::nn::Module, public QueryKeySource {
 public:
  GraphAttention(int64_t columns, int64_t heads, int64_t width, double dropout,
                 double weight_dropout);

  // Inputs as sparse rows of values [entries]; -> [N, D].
  at::Tensor forward(const std::shared_ptr<const SparseRows>& neighbours,
                     const std::shared_ptr<const SparseRows>& rows, const at::Tensor& values);
  // x [N, C] -> [N, D]
  at::Tensor forward(const std::shared_ptr<const SparseRows>& neighbours, const at::Tensor& x);
  int64_t query_width() const override { return weight_.size(2); }

 private:
  at::Tensor drop(const at::Tensor& x, double p) const;
  at::Tensor attend(const std::shared_ptr<const SparseRows>& neighbours, const at::Tensor& z);

  double dropout_, weight_dropout_;
  at::Tensor weight_, left_, right_, left_bias_, right_bias_, bias_;
};

// Two layers: H heads of dim / H features each, concatenated, ELU; then one head of a feature a
// class (Velickovic et al., 2018, section 3.3).
class GatModel : public Model {
 public:
  GatModel(std::shared_ptr<const Graph> graph, const nn::TransformerConfig& config);

  at::Tensor forward(const Batch& batch) override;  // nodes [1, n] -> [n, classes]
  double flops(int64_t length) const override;

 private:
  std::shared_ptr<const Graph> graph_;
  std::shared_ptr<const SparseRows> neighbours_, features_;  // of the graph
  at::Tensor values_;                                        // [entries]: 1 / features of the node
  std::shared_ptr<GraphAttention> first_, second_;
};

}  // namespace headloom::tasks::graph
