#pragma once

#include <torch/nn/module.h>
#include <torch/nn/modules/linear.h>

#include <string>
#include <vector>

#include "headloom/mechanisms/alignment/alignment.h"
#include "headloom/mechanisms/query_key_source.h"

namespace headloom {

// D width of a head, h hidden width.
struct AlignmentConfig {
  // "none", "adversarial" (section 3.1), "optimal_transport" (3.2), "conditional_transport" (3.3)
  // or "discrepancy" (the mean discrepancy, which the paper measures with).
  std::string form = "none";
  double weight = 0.01;               // of the objective beside the task's loss
  std::string schedule = "constant";  // or "ramp": weight (2 / (1 + e^(-10 step / ramp_steps)) - 1)
  int64_t ramp_steps = 1000;
  // "mean" over samples, heads and layers (the released code), or "sum_heads": mean over samples,
  // sum over heads, mean over layers (the paper).
  std::string reduction = "mean";
  bool masks = true;  // padding takes no part; false counts it, as the released code does

  int64_t hidden = 16;              // h
  std::string activation = "relu";  // or "leaky_relu" (slope 0.1), "tanh"
  std::string highway = "paper";  // gate and transform of their own; "shared": one linear for both
  double reversal = 1.0;          // gradients of the adversary times -reversal

  // Conditional transport.
  double temperature = 1.0;
  bool learn_temperature = false;
  double rho = 0.5;
  std::string cost = "cosine";     // or "euclidean"
  bool unit_navigator = false;     // true: of unit length, as in the released code
  bool reverse_navigator = false;  // true: adversarial too, as in the released code

  // Adversarial: true moves the keys alone, as in the released code.
  bool detach_queries = false;

  // Optimal transport, on queries and keys of unit length: costs of raw ones are in the tens, where
  // this eps is no regularisation at all. The sharp cost of the paper.
  double eps = 0.01;
  int64_t max_iter = 100;
  bool debiased = false;
  std::string gradient = "implicit";  // or "envelope"

  double bandwidth = 1.0;  // discrepancy
};

// Refuses impossible values, each by name.
void check_config(const AlignmentConfig& config);

// x, with the gradient times -factor on the way back (Ganin and Lempitsky, 2015).
at::Tensor reverse_gradient(const at::Tensor& x, double factor);

// The networks of one attention layer, shared by its heads (section 3). Linear weights are
// N(0, 0.02), biases 0. Who moves which way is decided by reversing the gradients of parameters:
//
//                              adversarial    optimal transport    conditional transport
//   queries, keys and below    descend        descend              descend
//   discriminator, critic      ascend         -                    ascend
//   navigator, temperature     -              -                    descend
class AlignmentNetworks : public torch::nn::Module {
 public:
  AlignmentNetworks(const AlignmentConfig& config, int64_t width);

  // The distance of each sample and head, [B, H], of q [B, H, Tq, D] and k [B, H, Tk, D]; masks
  // [B, T], true at padding, or undefined.
  at::Tensor forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& query_mask,
                     const at::Tensor& key_mask);

 private:
  at::Tensor adversarial(const at::Tensor& q, const at::Tensor& k, const at::Tensor& query_mask,
                         const at::Tensor& key_mask);
  at::Tensor transport(const at::Tensor& q, const at::Tensor& k, const at::Tensor& query_mask,
                       const at::Tensor& key_mask);
  // What the networks say about points x [B, H, T, D]: the discriminator's logit [B, H, T, 1] or
  // the critic's unit vector, and the navigator's vector (undefined without one).
  struct Features {
    at::Tensor adversary, navigator;
  };
  Features features(const at::Tensor& x) const;
  // Weight and bias, with the gradient reversed for an adversary.
  std::pair<at::Tensor, at::Tensor> parameters_of(const torch::nn::Linear& linear,
                                                  bool reversed) const;
  at::Tensor affine(const torch::nn::Linear& linear, const at::Tensor& x, bool reversed) const;
  at::Tensor activate(const at::Tensor& x) const;

  AlignmentConfig config_;
  torch::nn::Linear gate_{nullptr}, transform_{nullptr}, critic_in_{nullptr}, critic_out_{nullptr};
  torch::nn::Linear navigator_in_{nullptr}, navigator_out_{nullptr};
  at::Tensor log_temperature_;  // undefined unless learned
};

// The training-only objective of Zhang et al. (NeurIPS 2021) on the queries and keys of a model's
// layers. Parameters layer<i>.*; the model itself is not changed, and inference never sees it.
class AlignmentObjective : public torch::nn::Module {
 public:
  // One layer a source, of the given widths D.
  AlignmentObjective(const AlignmentConfig& config, const std::vector<int64_t>& widths);

  // passes[i]: what layer i left. The value that is added to the loss, without the weight; 0 where
  // no layer left anything.
  at::Tensor forward(const std::vector<std::vector<QueryKeys>>& passes);
  // At a step, counted from 1.
  double weight(int64_t step) const;

 private:
  at::Tensor of_pass(AlignmentNetworks& layer, const QueryKeys& pass) const;

  AlignmentConfig config_;
  std::vector<std::shared_ptr<AlignmentNetworks>> layers_;
};

}  // namespace headloom
