#include "headloom/tasks/graph/gat_model.h"

#include <ATen/ATen.h>
#include <torch/nn/init.h>
#include <torch/utils.h>

#include <cmath>

#include "headloom/base/check.h"

namespace headloom::tasks::graph {
namespace {

using at::Tensor;

// Glorot-uniform of a linear map a head, whatever the layout.
Tensor glorot(at::IntArrayRef sizes, int64_t in, int64_t out) {
  const double bound = std::sqrt(6.0 / static_cast<double>(in + out));
  return at::empty(sizes, at::kFloat).uniform_(-bound, bound);
}

}  // namespace

GraphAttention::GraphAttention(int64_t columns, int64_t heads, int64_t width, double dropout,
                               double weight_dropout)
    : dropout_(dropout), weight_dropout_(weight_dropout) {
  weight_ = register_parameter("weight", glorot({columns, heads, width}, columns, width));
  left_ = register_parameter("left", glorot({heads, width}, width, 1));
  right_ = register_parameter("right", glorot({heads, width}, width, 1));
  left_bias_ = register_parameter("left_bias", at::zeros({heads}));
  right_bias_ = register_parameter("right_bias", at::zeros({heads}));
  bias_ = register_parameter("bias", at::zeros({heads * width}));
}

Tensor GraphAttention::drop(const Tensor& x, double p) const {
  return at::dropout(x, p, is_training());
}

Tensor GraphAttention::forward(const std::shared_ptr<const SparseRows>& neighbours,
                               const std::shared_ptr<const SparseRows>& rows,
                               const Tensor& values) {
  // Zeros stay zeros, so that dropout of the entries is dropout of the whole.
  const Tensor each = values.unsqueeze(1).expand({values.size(0), weight_.size(1)});
  return attend(neighbours,
                sparse_linear(rows, drop(each.to(weight_.scalar_type()), dropout_), weight_));
}

Tensor GraphAttention::forward(const std::shared_ptr<const SparseRows>& neighbours,
                               const Tensor& x) {
  const int64_t heads = weight_.size(1);
  const Tensor each = drop(x.unsqueeze(0).expand({heads, x.size(0), x.size(1)}), dropout_);
  return attend(neighbours, at::matmul(each, weight_.transpose(0, 1)).transpose(0, 1));
}

Tensor GraphAttention::attend(const std::shared_ptr<const SparseRows>& neighbours,
                              const Tensor& z) {
  const Tensor q = z * left_, k = z * right_;  // [N, H, F]
  note(is_training(), {q.transpose(0, 1).unsqueeze(0), k.transpose(0, 1).unsqueeze(0), {}, {}, {}});
  Tensor keep;
  if (is_training() && weight_dropout_ > 0.0) {
    keep = drop(at::ones({neighbours->size(), z.size(1)}, z.options()), weight_dropout_);
  }
  const Tensor out = neighbourhood_attention(neighbours, drop(z, dropout_), q.sum(2) + left_bias_,
                                             k.sum(2) + right_bias_, keep);
  return out.flatten(1) + bias_;
}

GatModel::GatModel(std::shared_ptr<const Graph> graph, const nn::TransformerConfig& config)
    : graph_(std::move(graph)),
      neighbours_(graph_, &graph_->neighbours),
      features_(graph_, &graph_->features) {
  HEADLOOM_CHECK(config.layers == 2, "task graph", "model.layers = 2", cat(config.layers));
  values_ = at::empty({features_->size()});
  for (int64_t e = 0; e < features_->size(); ++e) {
    const int64_t row = features_->rows[static_cast<size_t>(e)];
    const int64_t count =
        features_->begin[static_cast<size_t>(row) + 1] - features_->begin[static_cast<size_t>(row)];
    values_.data_ptr<float>()[e] = 1.0f / static_cast<float>(count);
  }
  first_ = register_module(
      "first", std::make_shared<GraphAttention>(features_->column_count(), config.heads,
                                                config.dim / config.heads, config.dropout,
                                                config.mixing_dropout));
  second_ = register_module(
      "second", std::make_shared<GraphAttention>(config.dim, 1, graph_->classes, config.dropout,
                                                 config.mixing_dropout));
}

Tensor GatModel::forward(const Batch& batch) {
  const Tensor hidden = at::elu(first_->forward(neighbours_, features_, values_));
  return second_->forward(neighbours_, hidden).index_select(0, batch.tokens.flatten());
}

double GatModel::flops(int64_t) const {
  const auto dim = static_cast<double>(second_->query_width());
  double total = 0.0;
  for (const auto& parameter : first_->named_parameters(false)) {
    if (parameter.key() != "weight") continue;
    const auto width = static_cast<double>(parameter.value().size(1) * parameter.value().size(2));
    total += 2.0 * width * static_cast<double>(features_->size());
    total += 4.0 * width * static_cast<double>(neighbours_->size());
    total += 2.0 * width * dim * static_cast<double>(graph_->nodes());
  }
  return total + 4.0 * dim * static_cast<double>(neighbours_->size());
}

}  // namespace headloom::tasks::graph
