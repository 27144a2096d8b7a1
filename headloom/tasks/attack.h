#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <set>
#include <string>
#include <vector>

// Attacks on text classifiers that need nothing but the classifier: character edits, embedding
// neighbours, and gradient flips. They are not the published TextFooler, TextBugger or BAE, whose
// word vectors and sentence encoder they do without: rates are comparable with each other only.
namespace headloom::tasks {

// Probabilities [N, K] of N texts. Every text counts as a query.
using Classifier = std::function<at::Tensor(const std::vector<std::string>& texts)>;

struct LabelledText {
  std::string text;
  int64_t label;
};

enum class Outcome { kSkipped, kSucceeded, kFailed };  // skipped: wrong before the attack

struct AttackResult {
  Outcome outcome;
  std::string text;  // the last one tried
  int64_t queries;
  int64_t words, words_changed;
};

// What may stand in the place of a word.
using Candidates = std::function<std::vector<std::string>(const std::string& word)>;

// The greedy search that TextFooler, TextBugger and BAE share. Words (between spaces) are ranked by
// how far the probability of the label falls when they are deleted; in that order, the candidate
// that raises 1 - p(label) most takes the place of a word, if any raises it; the search ends when
// the label is no longer the likeliest. Stop words stay, and no word changes twice.
AttackResult attack(const Classifier& classifier, const LabelledText& example,
                    const Candidates& candidates, const std::set<std::string>& stop_words = {});

// TextBugger's edits of characters (Li et al., 2019, section 3.2) and one of the keyboard: a space
// within, an inner character deleted, two inner neighbours exchanged, a look-alike, a key next to
// it. Deterministic: the place of an edit depends on the word and the seed. Words of one byte, and
// bytes outside ASCII, stay.
Candidates character_edits(uint64_t seed);

// The nearest of other words by the cosine of their vectors [V, D], at least `least`, at most
// `count` of them.
Candidates embedding_neighbours(std::vector<std::string> words, const at::Tensor& vectors,
                                int64_t count = 50, double least = 0.5);

// HotFlip (Ebrahimi et al., 2018) on token ids, white-box. A state is a row of tokens; a flip puts
// token w at position t, where the gain to first order is (e_w - e_t) . dloss/de_t. Kept: gains
// above 0 with a cosine of e_w and e_t of at least `least`, the best `beam` states of each round.
struct FlipVictim {
  at::Tensor embedding;  // [V, D]
  // Probabilities [N, K] of tokens [N, T].
  std::function<at::Tensor(const at::Tensor& tokens)> classify;
  // dloss/de [T, D] at the tokens [T], for a label.
  std::function<at::Tensor(const at::Tensor& tokens, int64_t label)> gradient;
  std::set<int64_t> fixed;  // tokens that neither change nor appear: padding, special tokens
};
struct FlipResult {
  Outcome outcome;
  at::Tensor tokens;
  int64_t queries, flips;
};
FlipResult hot_flip(const FlipVictim& victim, const at::Tensor& tokens, int64_t label,
                    int64_t most_flips = 2, int64_t beam = 10, double least = 0.8);

// Counts over examples.
struct AttackReport {
  int64_t skipped = 0, succeeded = 0, failed = 0, queries = 0, words = 0, words_changed = 0;

  void add(const AttackResult& result);
  // Of those that were attacked, per cent.
  double failure_rate() const;
  double mean_queries() const;
};

}  // namespace headloom::tasks
