#include "headloom/nn/beam_search.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <utility>

#include "headloom/base/check.h"
#include "headloom/base/parallel.h"
#include "headloom/nn/beam_candidates.h"
#include "headloom/nn/evaluation_mode.h"

// R rows: the hypotheses of all sentences in the batch, those of a sentence together.
namespace headloom::nn {
namespace {

using at::Tensor;

constexpr const char* kWhere = "beam search";
constexpr double kImpossible = -std::numeric_limits<double>::infinity();

// What follows rows of tokens, as they grow.
class Continuation {
 public:
  virtual ~Continuation() = default;
  virtual Tensor next(const Tensor& tokens) = 0;  // the newest of each row, [R] -> logits [R, V]
  // Row i goes on as row index[i] did. `within`: as many rows, each of the same sentence as before.
  virtual void reorder(const Tensor& index, bool within) = 0;
};

class CachedContinuation : public Continuation {
 public:
  CachedContinuation(EncoderDecoder& model, const Memory& memory)
      : model_(model), state_(model.new_state(memory)) {}
  Tensor next(const Tensor& tokens) override {
    return model_.next_logits(tokens.unsqueeze(1), state_);
  }
  void reorder(const Tensor& index, bool within) override {
    within ? state_.reorder_within(index) : state_.reorder(index);
  }

 private:
  EncoderDecoder& model_;
  DecoderState state_;
};

class WholeContinuation : public Continuation {
 public:
  WholeContinuation(EncoderDecoder& model, const Memory& memory) : model_(model), memory_(memory) {}
  Tensor next(const Tensor& tokens) override {
    const Tensor column = tokens.unsqueeze(1);
    tokens_ = tokens_.defined() ? at::cat({tokens_, column}, 1) : column;
    return model_.next_logits(tokens_, memory_);
  }
  void reorder(const Tensor& index, bool within) override {
    tokens_ = tokens_.index_select(0, index);
    if (within) return;
    memory_.states = memory_.states.index_select(0, index);
    if (memory_.padding_mask.defined()) {
      memory_.padding_mask = memory_.padding_mask.index_select(0, index);
    }
  }

 private:
  EncoderDecoder& model_;
  Memory memory_;
  Tensor tokens_;  // [R, T]
};

// A hypothesis that has not ended. Those of no probability only fill the batch.
struct Row {
  std::vector<int64_t> tokens;
  double log_probability = 0.0;
};

struct Sentence {
  size_t number = 0;  // in the request
  int64_t limit = 0;  // most tokens without the end
  const std::vector<int64_t>* prefix = nullptr;
  std::vector<Row> rows;
  std::vector<Hypothesis> ended;
  bool done = false;
};

// A continuation of a sentence: its row, and the token that it appends.
struct Candidate {
  int64_t row, token;
  double log_probability;
};

bool ranks_before(const Candidate& a, const Candidate& b) {
  if (a.log_probability != b.log_probability) return a.log_probability > b.log_probability;
  return std::pair(a.row, a.token) < std::pair(b.row, b.token);
}

bool is_identity(const std::vector<int64_t>& index) {
  for (size_t i = 0; i < index.size(); ++i) {
    if (index[i] != static_cast<int64_t>(i)) return false;
  }
  return true;
}

class Search {
 public:
  Search(EncoderDecoder& model, const TargetTokens& tokens, const BeamOptions& options)
      : model_(model), tokens_(tokens), options_(options) {}

  std::vector<std::vector<Hypothesis>> run(const Tensor& source, const Tensor& padding,
                                           const std::vector<std::vector<int64_t>>& prefixes);

 private:
  void begin(const Tensor& source, const Tensor& padding,
             const std::vector<std::vector<int64_t>>& prefixes);
  // Lists the rows that all new rows come from; whether each sentence has as many as before.
  bool advance_all(NextTokens& next, std::vector<int64_t>& index);
  // Each returns the rows that the sentence's new rows come from, counted within the sentence.
  std::vector<int64_t> advance(Sentence& sentence, int64_t first_row, NextTokens& next) const;
  std::vector<int64_t> force(Sentence& sentence, int64_t first_row, const NextTokens& next) const;
  std::vector<int64_t> choose(Sentence& sentence, const std::vector<Candidate>& candidates) const;
  std::vector<Candidate> candidates(const Sentence& sentence, int64_t first_row,
                                    NextTokens& next) const;
  void end(Sentence& sentence, const Row& row, double log_probability) const;
  std::vector<Hypothesis> result(Sentence& sentence) const;

  EncoderDecoder& model_;
  const TargetTokens& tokens_;
  const BeamOptions& options_;
  at::Device device_ = at::kCPU;
  std::vector<Sentence> sentences_;
  std::unique_ptr<Continuation> continuation_;
};

void Search::begin(const Tensor& source, const Tensor& padding,
                   const std::vector<std::vector<int64_t>>& prefixes) {
  static const std::vector<int64_t> kNone;
  const int64_t room = model_.config().max_length - 1;  // the begin takes a position
  const Tensor lengths = padding.defined() ? padding.logical_not().sum(1).to(at::kCPU) : Tensor();
  for (int64_t i = 0; i < source.size(0); ++i) {
    Sentence sentence;
    sentence.number = static_cast<size_t>(i);
    sentence.prefix = prefixes.empty() ? &kNone : &prefixes[i];
    const auto prefix_size = static_cast<int64_t>(sentence.prefix->size());
    HEADLOOM_CHECK(prefix_size <= room, kWhere,
                   cat("a prefix of at most ", room, " tokens, max_length - 1 of the model"),
                   cat(prefix_size, " tokens"));
    const double size =
        static_cast<double>(lengths.defined() ? lengths[i].item<int64_t>() : source.size(1));
    const double wanted =
        std::floor(options_.length_ratio * size) + static_cast<double>(options_.length_extra);
    sentence.limit =
        std::max(prefix_size, static_cast<int64_t>(std::min(wanted, static_cast<double>(room))));
    sentence.rows = {Row{}};
    sentences_.push_back(std::move(sentence));
  }
  const Memory memory = model_.encode(source, padding);
  device_ = source.device();
  if (options_.cache) {
    continuation_ = std::make_unique<CachedContinuation>(model_, memory);
  } else {
    continuation_ = std::make_unique<WholeContinuation>(model_, memory);
  }
}

void Search::end(Sentence& sentence, const Row& row, double log_probability) const {
  if (log_probability == kImpossible) return;
  const auto length = static_cast<int64_t>(row.tokens.size()) + 1;
  sentence.ended.push_back(
      {row.tokens, log_probability, log_probability / length_penalty(options_, length)});
}

// Where there is no choice: in a prefix, and at the greatest length.
std::vector<int64_t> Search::force(Sentence& sentence, int64_t first_row,
                                   const NextTokens& next) const {
  const auto length = static_cast<int64_t>(sentence.rows[0].tokens.size());
  if (length >= sentence.limit) {
    for (size_t r = 0; r < sentence.rows.size(); ++r) {
      const Row& row = sentence.rows[r];
      const double ended = next.log_probability(first_row + static_cast<int64_t>(r), tokens_.end);
      end(sentence, row, row.log_probability + ended);
    }
    sentence.done = true;
    return {};
  }
  const int64_t token = (*sentence.prefix)[length];
  return choose(
      sentence,
      {{0, token, sentence.rows[0].log_probability + next.log_probability(first_row, token)}});
}

std::vector<Candidate> Search::candidates(const Sentence& sentence, int64_t first_row,
                                          NextTokens& next) const {
  const auto count = static_cast<int64_t>(sentence.rows.size());
  std::vector<Candidate> found;
  for (int64_t r = 0; r < count; ++r) {
    const Row& row = sentence.rows[r];
    if (row.log_probability == kImpossible) continue;
    for (const NextTokens::Choice& choice : next.best(first_row + r, 2 * options_.beam)) {
      found.push_back({r, choice.token, row.log_probability + choice.log_probability});
    }
  }
  const size_t kept = std::min(found.size(), static_cast<size_t>(2 * options_.beam));
  std::partial_sort(found.begin(), found.begin() + static_cast<std::ptrdiff_t>(kept), found.end(),
                    ranks_before);
  found.resize(kept);
  return found;
}

std::vector<int64_t> Search::choose(Sentence& sentence,
                                    const std::vector<Candidate>& candidates) const {
  std::vector<Row> rows;
  std::vector<int64_t> parents;
  for (size_t rank = 0; rank < candidates.size(); ++rank) {
    const Candidate& candidate = candidates[rank];
    const Row& parent = sentence.rows[candidate.row];
    if (candidate.token == tokens_.end) {
      if (static_cast<int64_t>(rank) < options_.beam) {
        end(sentence, parent, candidate.log_probability);
      }
    } else if (static_cast<int64_t>(rows.size()) < options_.beam) {
      rows.push_back({parent.tokens, candidate.log_probability});
      rows.back().tokens.push_back(candidate.token);
      parents.push_back(candidate.row);
    }
  }
  sentence.done = rows.empty() || static_cast<int64_t>(sentence.ended.size()) >= options_.beam;
  if (sentence.done) return {};
  while (static_cast<int64_t>(rows.size()) < options_.beam) {
    rows.push_back({rows[0].tokens, kImpossible});
    parents.push_back(parents[0]);
  }
  sentence.rows = std::move(rows);
  return parents;
}

std::vector<int64_t> Search::advance(Sentence& sentence, int64_t first_row,
                                     NextTokens& next) const {
  const auto length = static_cast<int64_t>(sentence.rows[0].tokens.size());
  const auto forced = static_cast<int64_t>(sentence.prefix->size());
  if (length >= sentence.limit || length < forced) return force(sentence, first_row, next);
  for (size_t r = 0; r < sentence.rows.size(); ++r) {
    const int64_t row = first_row + static_cast<int64_t>(r);
    for (const int64_t token : tokens_.never) next.forbid(row, token);
    if (length < options_.min_length) next.forbid(row, tokens_.end);
    const auto& tokens = sentence.rows[r].tokens;
    for (const int64_t token : repeating_tokens(tokens, options_.no_repeat_ngram)) {
      next.forbid(row, token);
    }
  }
  return choose(sentence, candidates(sentence, first_row, next));
}

bool Search::advance_all(NextTokens& next, std::vector<int64_t>& index) {
  const auto count = static_cast<int64_t>(sentences_.size());
  std::vector<int64_t> first_rows(count + 1, 0);
  for (int64_t i = 0; i < count; ++i) {
    first_rows[i + 1] = first_rows[i] + static_cast<int64_t>(sentences_[i].rows.size());
  }
  std::vector<std::vector<int64_t>> parents(count);
  parallel_for(0, count, 4, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) parents[i] = advance(sentences_[i], first_rows[i], next);
  });
  bool within = true;
  for (int64_t i = 0; i < count; ++i) {
    for (const int64_t parent : parents[i]) index.push_back(first_rows[i] + parent);
    within = within && static_cast<int64_t>(index.size()) == first_rows[i + 1];
  }
  return within;
}

std::vector<Hypothesis> Search::result(Sentence& sentence) const {
  std::stable_sort(sentence.ended.begin(), sentence.ended.end(),
                   [](const Hypothesis& a, const Hypothesis& b) { return a.score > b.score; });
  const auto count = std::min(sentence.ended.size(), static_cast<size_t>(options_.n_best));
  return {sentence.ended.begin(), sentence.ended.begin() + static_cast<std::ptrdiff_t>(count)};
}

std::vector<std::vector<Hypothesis>> Search::run(
    const Tensor& source, const Tensor& padding,
    const std::vector<std::vector<int64_t>>& prefixes) {
  std::vector<std::vector<Hypothesis>> results(source.size(0));
  if (source.size(0) == 0) return results;
  begin(source, padding, prefixes);
  std::vector<int64_t> newest(sentences_.size(), tokens_.begin);
  while (true) {
    NextTokens next(continuation_->next(at::tensor(newest, at::kLong).to(device_)));
    std::vector<int64_t> index;
    const bool within = advance_all(next, index);
    newest.clear();
    for (Sentence& sentence : sentences_) {
      if (sentence.done) {
        results[sentence.number] = result(sentence);
        continue;
      }
      for (const Row& row : sentence.rows) newest.push_back(row.tokens.back());
    }
    std::erase_if(sentences_, [](const Sentence& sentence) { return sentence.done; });
    if (sentences_.empty()) return results;
    if (within && is_identity(index)) continue;
    continuation_->reorder(at::tensor(index, at::kLong).to(device_), within);
  }
}

void check_tokens_in(const std::vector<int64_t>& tokens, int64_t vocabulary, const char* what) {
  for (const int64_t token : tokens) {
    HEADLOOM_CHECK(token >= 0 && token < vocabulary, kWhere, cat(what, " in [0, ", vocabulary, ")"),
                   cat(token));
  }
}

void check_options(const BeamOptions& options) {
  const auto at_least = [](const char* key, int64_t value, int64_t least) {
    HEADLOOM_CHECK(value >= least, kWhere, cat(key, " of at least ", least),
                   cat(key, " = ", value));
  };
  at_least("beam", options.beam, 1);
  at_least("n_best", options.n_best, 1);
  at_least("min_length", options.min_length, 0);
  at_least("length_extra", options.length_extra, 0);
  at_least("no_repeat_ngram", options.no_repeat_ngram, 0);
  HEADLOOM_CHECK(options.n_best <= options.beam, kWhere, cat("n_best up to beam = ", options.beam),
                 cat("n_best = ", options.n_best), "Raise beam.");
  HEADLOOM_CHECK(std::isfinite(options.alpha), kWhere, "a finite alpha",
                 cat("alpha = ", options.alpha));
  HEADLOOM_CHECK(options.length_ratio >= 0.0 && std::isfinite(options.length_ratio), kWhere,
                 "a finite length_ratio of at least 0",
                 cat("length_ratio = ", options.length_ratio));
}

}  // namespace

double length_penalty(const BeamOptions& options, int64_t length) {
  const auto tokens = static_cast<double>(length);
  const double base =
      options.length_penalty == LengthPenalty::kGnmt ? (5.0 + tokens) / 6.0 : tokens;
  return std::pow(base, options.alpha);
}

std::vector<std::vector<Hypothesis>> beam_search(
    EncoderDecoder& model, const Tensor& source, const Tensor& source_padding_mask,
    const TargetTokens& tokens, const BeamOptions& options,
    const std::vector<std::vector<int64_t>>& prefixes) {
  check_options(options);
  const int64_t vocabulary = model.config().target_vocabulary;
  check_tokens_in({tokens.begin}, vocabulary, "a begin");
  check_tokens_in({tokens.end}, vocabulary, "an end");
  check_tokens_in(tokens.never, vocabulary, "tokens that are never written");
  HEADLOOM_CHECK(source.dim() == 2, kWhere, "a source of shape [N, S]",
                 cat("shape ", source.sizes()));
  HEADLOOM_CHECK(prefixes.empty() || static_cast<int64_t>(prefixes.size()) == source.size(0),
                 kWhere, cat("one prefix for each of ", source.size(0), " sentences, or none"),
                 cat(prefixes.size()));
  for (const auto& prefix : prefixes) {
    check_tokens_in(prefix, vocabulary, "a prefix with tokens");
    HEADLOOM_CHECK(std::find(prefix.begin(), prefix.end(), tokens.end) == prefix.end(), kWhere,
                   "a prefix without the end", cat("token ", tokens.end));
  }
  const at::NoGradGuard no_grad;
  const EvaluationMode evaluation(model);
  return Search(model, tokens, options).run(source, source_padding_mask, prefixes);
}

}  // namespace headloom::nn
