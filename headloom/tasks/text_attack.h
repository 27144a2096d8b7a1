#pragma once

#include <optional>
#include <string>
#include <vector>

#include "headloom/tasks/attack.h"
#include "headloom/tasks/task.h"

namespace headloom::tasks {

// Which attack on which examples.
//
//   character   character_edits() of words, by the greedy search
//   embedding   in the same search, words by their neighbours among the words that are one token of
//               the vocabulary, by the model's own embedding
//   hotflip     hot_flip() on tokens, special ones excepted; a word is then a token
//
// Of a pair the second text is attacked, as published attacks do with a hypothesis; hotflip may
// flip tokens of both. English stop words stay in the searches. Deterministic for a seed, with the
// same examples for every attack and model.
struct AttackPlan {
  std::string attack = "character";
  int64_t examples = 200;  // drawn from the validation data; 0, or more than there are: all
  int64_t budget = 0;      // queries an example, see SearchOptions and FlipOptions
  // Cosine of what is exchanged, at least; by default 0.5 for embedding and 0.8 for hotflip.
  std::optional<double> least = {};
  uint64_t seed = 1;  // of the draw, and of the places of character edits
};

const std::vector<std::string>& attack_names();

// Attacks a model in evaluation mode, which it must be in, on its device. Refuses an unknown
// attack, negative numbers, and a cosine for the attack "character", which has none.
AttackReport attack_model(Model& model, const TextClassifier& task, const AttackPlan& plan);

}  // namespace headloom::tasks
