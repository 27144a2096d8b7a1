#pragma once

#include <cstdint>
#include <vector>

#include "headloom/nn/encoder_decoder.h"

// N sentences, S source tokens, V target vocabulary, L tokens of a translation with its end.
namespace headloom::nn {

// By what the log probability of a whole translation is divided, so that long ones may win.
enum class LengthPenalty {
  kGnmt,     // ((5 + L) / 6)^alpha: Wu et al., 2016, equation 14
  kAverage,  // L^alpha: alpha = 1 is the mean log probability of a token (fairseq's lenpen)
};

struct BeamOptions {
  int64_t beam = 5;  // hypotheses kept at each step; 1 is greedy
  LengthPenalty length_penalty = LengthPenalty::kAverage;
  double alpha = 1.0;           // 0: no penalty
  int64_t n_best = 1;           // translations of a sentence, at most `beam`
  int64_t min_length = 0;       // of a translation, in tokens without the end
  double length_ratio = 0.0;    // at most length_ratio S + length_extra tokens without the end,
  int64_t length_extra = 200;   // and never more than fit into the model's max_length
  int64_t no_repeat_ngram = 0;  // no n tokens in a row twice; 0 allows all
  // False decodes whole prefixes again at each step: slow, for comparison.
  bool cache = true;
};

// What the vocabulary means to a search.
struct TargetTokens {
  int64_t begin = 0;           // what a decoder reads first
  int64_t end = 0;             // ends a translation
  std::vector<int64_t> never;  // never written, e.g. padding and the begin
};

struct Hypothesis {
  std::vector<int64_t> tokens;   // without begin and end
  double log_probability = 0.0;  // of the tokens and the end
  double score = 0.0;            // divided by the length penalty
};

// Beam search over the incremental states of a model, in evaluation mode and without gradients. At
// each step the 2 beam best continuations of a sentence are looked at: of the first `beam` those
// that end are put aside, and the first `beam` that do not end go on; among equals the earlier
// hypothesis and the smaller token. A sentence is done when `beam` hypotheses have ended, and
// leaves the batch. At the greatest length everything ends. Log probabilities are those of the
// model: tokens that are ruled out do not raise those of the others.
//
// source [N, S] int64, source_padding_mask [N, S] bool or undefined. prefixes: nothing, or for each
// sentence the tokens that its translations begin with. Returns for each sentence at most n_best
// translations, best first; fewer when there are no more. Refuses impossible options, tokens
// outside the vocabulary, and prefixes that hold the end or do not fit the model.
std::vector<std::vector<Hypothesis>> beam_search(
    EncoderDecoder& model, const at::Tensor& source, const at::Tensor& source_padding_mask,
    const TargetTokens& tokens, const BeamOptions& options,
    const std::vector<std::vector<int64_t>>& prefixes = {});

// What log probabilities are divided by. length counts the end.
double length_penalty(const BeamOptions& options, int64_t length);

}  // namespace headloom::nn
