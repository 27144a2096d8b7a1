#pragma once

#include <vector>

#include "headloom/mechanisms/linear.h"
#include "headloom/mechanisms/query_key_source.h"
#include "headloom/mechanisms/registry.h"
#include "headloom/mechanisms/symmetric/symmetric.h"
#include "headloom/mechanisms/symmetric/symmetric_convert.h"

namespace headloom {

// Multi-head attention with one projection for queries and keys. Parameters q_proj [Hq D, C],
// v_proj, out_proj [C, C], each with a bias, Xavier-uniform weights and zero biases, and the
// coefficients A of the form. C model width, H heads of width D = C / H. Options of the recipe:
//
//   form ("pairwise")   "symmetric":   A = I, no parameter
//                       "pairwise":    any A_h; parameter pairwise [H, D, D]
//                       "constrained": A_h = (M_h + M_h^T) / 2; parameter pairwise [H, D, D] is M,
//                       of
//                                      which D (D + 1) / 2 numbers a head act
//                       "low_rank":    A_h = diag(s_h) + U_h U'_h^T; parameters diagonal [H, D],
//                                      left [H, D, r], right [H, D, r]
//   rank (8)            r
//   initial ("normal")  "normal": N(0, 1) elementwise, as the paper (low_rank: s = 0 and U U'^T of
//                       that variance); "identity"; "noise": the identity and N(0, noise^2)
//   noise (0.02)
//   decay               what weight decay pulls the coefficients to: "zero", as the paper,
//                       "initial" (the parameter is then the distance from the buffer
//                       <name>_initial) or "none" (the parameter has one axis, which optimizers of
//                       this house do not decay). Default "zero" for normal, else "initial"
//   query_heads (H)     Hq, divides H: neighbouring heads share a projection, not coefficients
//   bias (true)         whether the projections have biases
//   cache ("projections")  what a decoder keeps of a token: its projections, (Hq + H) D numbers, or
//                       its "inputs", C numbers: one tensor serves as keys and values, because the
//                       projections are linear and may act on the queries and on the weighted mean
//                       instead; logits and means are then C wide for each head
//
// Keys may be those of another sequence: cross() projects both with the same weights.
//
// As a QueryKeySource it leaves what ordinary attention would call queries and keys: q A_h, the
// projection folded with the coefficients, and q itself, for each of the H heads.
class SymmetricMixer : public TokenMixer, public QueryKeySource {
 public:
  SymmetricMixer(const MixerConfig& config, OptionReader& options);

  at::Tensor forward(const at::Tensor& x, const Masks& masks) override;
  at::Tensor cross(const at::Tensor& x, const at::Tensor& memory,
                   const at::Tensor& memory_padding_mask) override;
  std::unique_ptr<MixerState> new_cross_state(const at::Tensor& memory,
                                              const at::Tensor& memory_padding_mask) override;
  at::Tensor cross_step(const at::Tensor& x, const MixerState& state) override;
  std::unique_ptr<MixerState> new_state(int64_t batch) const override;
  at::Tensor step(const at::Tensor& x, MixerState& state) override;
  double flops(int64_t length) const override;
  // Refuses the form "symmetric" by name: its queries are its keys, and nothing could align them.
  int64_t query_width() const override;

  // A [H, D, D] as it acts; undefined in the form "symmetric".
  at::Tensor coefficients() const;
  // The ordinary attention that this is; v_proj and out_proj stay as they are.
  OrdinaryProjections to_ordinary() const;
  // Takes the pairwise form nearest to ordinary attention (symmetric_convert.h) and returns its
  // residual [H]. Refused by name unless the form is "pairwise" with Hq = H.
  at::Tensor from_ordinary(const OrdinaryProjections& ordinary);

 private:
  // A learned tensor, which decay pulls where the option says.
  struct Coefficient {
    at::Tensor parameter, initial;
    std::vector<int64_t> shape;
    at::Tensor value() const;
    void assign(const at::Tensor& value);
  };

  void add_coefficient(Coefficient& coefficient, const char* name, const at::Tensor& start);
  void add_coefficients(OptionReader& options);
  // What the operator takes: coefficients before a symmetric part is taken.
  at::Tensor raw_coefficients() const;
  // Leaves q and k [B, Hq, T, D] for who records.
  void leave(const at::Tensor& q, const at::Tensor& k, QueryKeys masks);
  at::Tensor attend(const at::Tensor& q, const at::Tensor& v, SymmetricOptions options) const;
  // k [B, Hq, S, D], v [B, H, S, D]: the memory's projections.
  at::Tensor attend_memory(const at::Tensor& x, const at::Tensor& k, const at::Tensor& v,
                           const at::Tensor& padding_mask);
  at::Tensor step_on_inputs(const at::Tensor& x, const at::Tensor& inputs);
  at::Tensor split_heads(const at::Tensor& x,
                         int64_t heads) const;        // [B, T, .] -> [B, heads, T, D]
  at::Tensor merge_heads(const at::Tensor& x) const;  // [B, H, T, D] -> [B, T, C]
  double dropout() const { return is_training() ? config_.dropout : 0.0; }

  MixerConfig config_;
  int64_t width_, query_heads_;
  std::string form_, decay_;
  bool caches_inputs_;
  Linear q_proj_{nullptr}, v_proj_{nullptr}, out_proj_{nullptr};
  Coefficient pairwise_, diagonal_, left_, right_;
};

}  // namespace headloom
