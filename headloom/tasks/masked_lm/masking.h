#pragma once

#include <cstdint>
#include <vector>

#include "headloom/tasks/random.h"

namespace headloom::tasks::masked_lm {

constexpr int64_t kNotPredicted = -100;

// BERT's corruption of a row (Devlin et al., 2019, appendix A.1). Each token that is not special is
// chosen with `probability`, at least one in a row that has any; a chosen token becomes the mask
// (80 %), a token drawn uniformly from the ordinary ones (10 %), or stays (10 %).
class Masking {
 public:
  // ordinary[i]: whether i may be chosen and drawn. Refuses a vocabulary without ordinary tokens
  // and a probability out of (0, 1].
  Masking(std::vector<bool> ordinary, int64_t mask, double probability);

  // Changes tokens in place; targets get the original where a token was chosen, else kNotPredicted.
  // A function of the tokens and the stream alone.
  void apply(RandomStream& stream, int64_t* tokens, int64_t* targets, int64_t count) const;

 private:
  bool may_choose(int64_t token) const { return ordinary_[static_cast<size_t>(token)]; }
  int64_t corrupted(RandomStream& stream, int64_t token) const;

  std::vector<bool> ordinary_;
  std::vector<int64_t> drawn_;  // the ordinary tokens
  int64_t mask_;
  double probability_;
};

}  // namespace headloom::tasks::masked_lm
