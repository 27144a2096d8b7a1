#include "tests/kernels/attention_reference.h"

#include <algorithm>
#include <cmath>

#include "headloom/base/rng.h"

namespace headloom::kernels::testing {
namespace {

// One query of one head.
class Query {
 public:
  Query(const AttentionCase& c, const AttentionNumbers& x, AttentionResults& r, int64_t b,
        int64_t h, int64_t i)
      : c_(c),
        x_(x),
        r_(r),
        b_(b),
        h_(h),
        i_(i),
        shared_(b * (c.heads / c.group) + h / c.group),
        own_(b * c.heads + h),
        query_((c.tied ? shared_ : own_) * c.queries + i),
        folded_(static_cast<size_t>(c.width)) {}

  void run() {
    fold();
    if (!weigh()) return;
    const std::vector<double> grad_logits = attend();
    differentiate(grad_logits);
  }

 private:
  size_t at(int64_t row, int64_t width, int64_t column) const {
    return static_cast<size_t>(row * width + column);
  }
  int64_t key_row(int64_t j) const { return shared_ * c_.keys + j; }
  const std::vector<double>& keys() const { return c_.tied ? x_.q : x_.k; }
  double fold_of(int64_t row, int64_t column) const {
    return x_.fold[at(h_ * c_.width + row, c_.width, column)];
  }
  size_t bias_at(int64_t j) const {
    const auto pick = [](int64_t size, int64_t index) { return size == 1 ? 0 : index; };
    const int64_t head = pick(c_.bias_batches, b_) * c_.bias_heads + pick(c_.bias_heads, h_);
    const int64_t row = head * c_.bias_queries + pick(c_.bias_queries, i_);
    return at(row, c_.bias_keys, pick(c_.bias_keys, j));
  }

  void fold() {
    for (int64_t d = 0; d < c_.width; ++d) {
      double sum = c_.fold ? 0.0 : x_.q[at(query_, c_.width, d)];
      for (int64_t e = 0; c_.fold && e < c_.width; ++e) {
        sum += x_.q[at(query_, c_.width, e)] * fold_of(e, d);
      }
      folded_[static_cast<size_t>(d)] = sum;
    }
  }

  // False where there is no key.
  bool weigh() {
    double most = -INFINITY, sum = 0;
    weights_.assign(static_cast<size_t>(c_.keys), -INFINITY);
    for (int64_t j = 0; j < c_.keys; ++j) {
      if (c_.causal && j > i_ + c_.keys - c_.queries) continue;
      if (c_.padding && x_.padding[at(b_, c_.keys, j)]) continue;
      double logit = 0;
      for (int64_t d = 0; d < c_.width; ++d) {
        logit += folded_[static_cast<size_t>(d)] * keys()[at(key_row(j), c_.width, d)];
      }
      logit /= std::sqrt(static_cast<double>(c_.width));
      if (c_.bias_keys) logit += x_.bias[bias_at(j)];
      weights_[static_cast<size_t>(j)] = logit;
      most = std::max(most, logit);
    }
    double& log2_sum = r_.log2_sum[at(own_, c_.queries, i_)];
    log2_sum = -INFINITY;
    if (most == -INFINITY) return false;
    for (double& w : weights_) sum += w = std::exp(w - most);
    for (double& w : weights_) w /= sum;
    log2_sum = (most + std::log(sum)) / std::log(2.0);
    return true;
  }

  // The output and the gradient of the values; returns that of the logits.
  std::vector<double> attend() {
    std::vector<double> grad(weights_.size());
    double mean = 0;
    for (int64_t j = 0; j < c_.keys; ++j) {
      const size_t key = static_cast<size_t>(j);
      double kept = 1;
      if (c_.dropout_p > 0) {
        const int64_t element = (own_ * c_.queries + i_) * c_.keys + j;
        const bool keeps = dropout_keeps(kAttentionSeed, static_cast<uint64_t>(element),
                                         drop_threshold(c_.dropout_p));
        kept = keeps ? 1 / (1 - c_.dropout_p) : 0;
      }
      for (int64_t e = 0; e < c_.value_width; ++e) {
        const size_t value = at(own_ * c_.keys + j, c_.value_width, e);
        const size_t output = at(own_ * c_.queries + i_, c_.value_width, e);
        r_.out[output] += weights_[key] * kept * x_.v[value];
        grad[key] += kept * x_.grad_out[output] * x_.v[value];
        r_.grad_v[value] += weights_[key] * kept * x_.grad_out[output];
      }
      mean += weights_[key] * grad[key];
    }
    for (size_t j = 0; j < grad.size(); ++j) grad[j] = weights_[j] * (grad[j] - mean);
    return grad;
  }

  void differentiate(const std::vector<double>& grad_logits) {
    std::vector<double> grad_folded(folded_.size());
    for (int64_t j = 0; j < c_.keys; ++j) {
      const double grad = grad_logits[static_cast<size_t>(j)];
      if (c_.bias_keys) r_.grad_bias[bias_at(j)] += grad;
      const double scaled = grad / std::sqrt(static_cast<double>(c_.width));
      for (int64_t d = 0; d < c_.width; ++d) {
        const size_t key = at(key_row(j), c_.width, d);
        grad_folded[static_cast<size_t>(d)] += scaled * keys()[key];
        r_.grad_k[key] += scaled * folded_[static_cast<size_t>(d)];
      }
    }
    std::vector<double>& grad_q = c_.tied ? r_.grad_k : r_.grad_q;
    for (int64_t d = 0; d < c_.width; ++d) {
      const double grad = grad_folded[static_cast<size_t>(d)];
      if (!c_.fold) grad_q[at(query_, c_.width, d)] += grad;
      for (int64_t e = 0; c_.fold && e < c_.width; ++e) {
        const size_t element = at(query_, c_.width, e);
        grad_q[element] += grad * fold_of(e, d);
        // The half-tile form gives the symmetric part.
        const double part = x_.q[element] * grad * (c_.symmetric ? 0.5 : 1.0);
        r_.grad_fold[at(h_ * c_.width + e, c_.width, d)] += part;
        if (c_.symmetric) r_.grad_fold[at(h_ * c_.width + d, c_.width, e)] += part;
      }
    }
  }

  const AttentionCase& c_;
  const AttentionNumbers& x_;
  AttentionResults& r_;
  int64_t b_, h_, i_, shared_, own_, query_;
  std::vector<double> folded_, weights_;
};

}  // namespace

AttentionResults attend(const AttentionCase& c, const AttentionNumbers& x) {
  AttentionResults r;
  r.out.resize(x.grad_out.size());
  r.log2_sum.resize(static_cast<size_t>(c.batches * c.heads * c.queries));
  r.grad_q.resize(x.q.size());
  r.grad_k.resize(c.tied ? x.q.size() : x.k.size());
  r.grad_v.resize(x.v.size());
  r.grad_fold.resize(x.fold.size());
  r.grad_bias.resize(x.bias.size());
  for (int64_t b = 0; b < c.batches; ++b) {
    for (int64_t h = 0; h < c.heads; ++h) {
      for (int64_t i = 0; i < c.queries; ++i) Query(c, x, r, b, h, i).run();
    }
  }
  return r;
}

}  // namespace headloom::kernels::testing
