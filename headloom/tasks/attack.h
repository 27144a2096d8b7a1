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

struct SearchOptions {
  std::set<std::string> stop_words = {};  // stay
  int64_t budget = 0;  // queries at most, after which the attack has failed; 0: no limit
};

// The greedy search that TextFooler, TextBugger and BAE share. Words (between white space) are
// ranked by how far the probability of the label falls when they are deleted; in that order, the
// candidate that raises 1 - p(label) most takes the place of a word, if any raises it; the search
// ends when the label is no longer the likeliest. No word changes twice. Candidates beyond the
// budget are not tried.
AttackResult attack(const Classifier& classifier, const LabelledText& example,
                    const Candidates& candidates, const SearchOptions& options = {});

// English words that say how others belong together: articles, pronouns, prepositions,
// conjunctions, auxiliaries and negations, in small letters.
const std::set<std::string>& english_stop_words();

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
  int64_t queries, flips;  // a gradient is a query like an answer
};
struct FlipOptions {
  int64_t most_flips = 2, beam = 10;
  double least = 0.8;
  int64_t budget = 0;  // queries at most, after which the attack has failed; 0: no limit
};
FlipResult hot_flip(const FlipVictim& victim, const at::Tensor& tokens, int64_t label,
                    const FlipOptions& options = {});

// Sums over examples. An example that the classifier gets wrong before the attack is skipped, and
// counts in the two accuracies alone. All rates are per cent.
struct AttackReport {
  int64_t skipped = 0, succeeded = 0, failed = 0;
  int64_t queries = 0;        // of those that were attacked
  double changed_shares = 0;  // sum over those that succeeded of changed words / words

  void add(const AttackResult& result);
  int64_t attacked() const { return succeeded + failed; }
  int64_t examples() const { return skipped + attacked(); }
  double clean_accuracy() const;         // attacked / examples
  double accuracy_under_attack() const;  // failed / examples
  double failure_rate() const;           // failed / attacked
  double mean_queries() const;           // of an attacked example
  double words_changed() const;          // mean over the attacks that succeeded
};

}  // namespace headloom::tasks
