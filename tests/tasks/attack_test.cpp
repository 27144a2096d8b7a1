#include "headloom/tasks/attack.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>

#include <cmath>

#include "headloom/base/check.h"

namespace headloom::tasks {
namespace {

using at::Tensor;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Not;

// Class 1 from the words that it knows: "good" speaks for it, "bad" against it.
Tensor opinion(const std::vector<std::string>& texts) {
  std::vector<double> p;
  for (const std::string& text : texts) {
    double score = 0.0;
    const std::string padded = " " + text + " ";
    for (const auto& [word, weight] :
         {std::pair{" good ", 2.0}, {" fine ", 1.0}, {" bad ", -2.0}}) {
      if (padded.find(word) != std::string::npos) score += weight;
    }
    const double positive = 1 / (1 + std::exp(-score + 0.5));
    p.insert(p.end(), {1 - positive, positive});
  }
  return at::tensor(p, at::kDouble).view({-1, 2});
}

TEST(Attack, BreaksTheWordThatCounts) {
  const AttackResult result = attack(opinion, {"a good film", 1}, character_edits(1));
  EXPECT_EQ(result.outcome, Outcome::kSucceeded);
  EXPECT_EQ(result.words, 3);
  EXPECT_EQ(result.words_changed, 1);
  EXPECT_EQ(result.text.find(" good "), std::string::npos);
  EXPECT_EQ(result.text.substr(0, 2), "a ");
  // The text itself, three deletions, the edits of one word.
  EXPECT_EQ(result.queries, 4 + static_cast<int64_t>(character_edits(1)("good").size()));
}

TEST(Attack, SkipsWhatIsWrongAlreadyAndStopsAtStopWords) {
  EXPECT_EQ(attack(opinion, {"a bad film", 1}, character_edits(1)).outcome, Outcome::kSkipped);
  const AttackResult kept =
      attack(opinion, {"a good film", 1}, character_edits(1), {.stop_words = {"good"}});
  EXPECT_EQ(kept.outcome, Outcome::kFailed);
  EXPECT_EQ(kept.words_changed, 0);
}

TEST(Attack, ChangesAsManyWordsAsItNeeds) {
  const AttackResult result = attack(opinion, {"good fine film", 1}, character_edits(1));
  EXPECT_EQ(result.outcome, Outcome::kSucceeded);
  EXPECT_EQ(result.words_changed, 2);
}

TEST(Attack, ReportsRates) {
  AttackReport report;
  report.add({Outcome::kSkipped, "", 1, 3, 0});
  report.add({Outcome::kSucceeded, "", 9, 4, 1});
  report.add({Outcome::kSucceeded, "", 7, 2, 1});
  report.add({Outcome::kFailed, "", 8, 4, 2});
  EXPECT_EQ(report.examples(), 4);
  EXPECT_EQ(report.attacked(), 3);
  EXPECT_EQ(report.clean_accuracy(), 75.0);
  EXPECT_EQ(report.accuracy_under_attack(), 25.0);
  EXPECT_NEAR(report.failure_rate(), 100.0 / 3.0, 1e-12);
  EXPECT_NEAR(report.mean_queries(), 8.0, 1e-12);
  EXPECT_NEAR(report.words_changed(), 37.5, 1e-12);
  EXPECT_EQ(AttackReport().failure_rate(), 0.0);
  EXPECT_EQ(AttackReport().words_changed(), 0.0);
}

TEST(Attack, StopsAtTheBudget) {
  const LabelledText example{"good fine film", 1};
  const int64_t needed = attack(opinion, example, character_edits(1)).queries;
  for (int64_t budget = 1; budget <= needed; ++budget) {
    const AttackResult result = attack(opinion, example, character_edits(1), {.budget = budget});
    EXPECT_LE(result.queries, budget);
    if (budget < 5) {
      EXPECT_EQ(result.outcome, Outcome::kFailed) << budget;
    }
  }
  EXPECT_EQ(attack(opinion, example, character_edits(1), {.budget = needed}).outcome,
            Outcome::kSucceeded);
  EXPECT_THROW(attack(opinion, example, character_edits(1), {.budget = -1}), Error);
}

TEST(Attack, KnowsStopWords) {
  for (const char* word : {"the", "not", "n't", "of", "would"}) {
    EXPECT_EQ(english_stop_words().count(word), 1u) << word;
  }
  EXPECT_EQ(english_stop_words().count("film"), 0u);
}

TEST(CharacterEdits, AreTheSameForTheSameSeedAndNeverTheWord) {
  for (const char* word : {"it", "the", "film", "terrible", "zzzz"}) {
    const auto edits = character_edits(3)(word);
    EXPECT_THAT(edits, Not(IsEmpty())) << word;
    EXPECT_EQ(edits, character_edits(3)(word));
    for (const std::string& edit : edits) EXPECT_NE(edit, word);
  }
  EXPECT_THAT(character_edits(3)("a"), IsEmpty());
  EXPECT_THAT(character_edits(3)("caf\xc3\xa9"), IsEmpty());
}

TEST(EmbeddingNeighbours, AreTheNearest) {
  const Tensor vectors = at::tensor({1., 0., 2., .2, .9, .5, 0., 1.}, at::kDouble).view({4, 2});
  const std::vector<std::string> words{"good", "great", "fine", "table"};
  EXPECT_THAT(embedding_neighbours(words, vectors)("good"), ElementsAre("great", "fine"));
  EXPECT_THAT(embedding_neighbours(words, vectors, 1)("good"), ElementsAre("great"));
  EXPECT_THAT(embedding_neighbours(words, vectors)("unknown"), IsEmpty());
  EXPECT_THROW(embedding_neighbours(words, vectors.t()), Error);
}

// A linear classifier of the mean embedding, whose gradient is known.
FlipVictim linear_victim() {
  FlipVictim victim;
  victim.embedding =
      at::tensor({0., 1., 1., .2, .8, -.2, .5, -.6, -1., 0.}, at::kDouble).view({5, 2});
  const Tensor direction = at::tensor({0.1, 1.0}, at::kDouble);
  victim.classify = [=, table = victim.embedding](const Tensor& tokens) {
    const Tensor positive = at::matmul(table.index_select(0, tokens.flatten()), direction)
                                .view(tokens.sizes())
                                .mean(1)
                                .sigmoid();
    return at::stack({1 - positive, positive}, 1);
  };
  victim.gradient = [=](const Tensor& tokens, int64_t label) {
    const Tensor slope = label == 1 ? -direction : direction;
    return slope.unsqueeze(0).expand({tokens.size(0), 2}) / tokens.size(0);
  };
  return victim;
}

TEST(HotFlip, FlipsTowardsTheLoss) {
  const FlipVictim victim = linear_victim();
  const Tensor tokens = at::tensor({1, 1}, at::kLong);
  const FlipResult result = hot_flip(victim, tokens, 1, {.least = 0.7});
  EXPECT_EQ(result.outcome, Outcome::kSucceeded);
  EXPECT_LE(result.flips, 2);
  EXPECT_GT(result.queries, 1);
  EXPECT_FALSE(at::equal(result.tokens, tokens));
  EXPECT_EQ(hot_flip(victim, tokens, 0).outcome, Outcome::kSkipped);
  EXPECT_EQ(hot_flip(victim, tokens, 1, {.least = 0.9999}).outcome, Outcome::kFailed);
}

TEST(HotFlip, StopsAtTheBudget) {
  const FlipVictim victim = linear_victim();
  const Tensor tokens = at::tensor({1, 1}, at::kLong);
  const int64_t needed = hot_flip(victim, tokens, 1, {.least = 0.7}).queries;
  for (int64_t budget = 1; budget <= needed; ++budget) {
    EXPECT_LE(hot_flip(victim, tokens, 1, {.least = 0.7, .budget = budget}).queries, budget);
  }
  EXPECT_EQ(hot_flip(victim, tokens, 1, {.least = 0.7, .budget = 2}).outcome, Outcome::kFailed);
  EXPECT_EQ(hot_flip(victim, tokens, 1, {.least = 0.7, .budget = needed}).outcome,
            Outcome::kSucceeded);
}

TEST(HotFlip, LeavesFixedTokensAlone) {
  FlipVictim victim = linear_victim();
  victim.fixed = {1};
  EXPECT_EQ(hot_flip(victim, at::tensor({1, 1}, at::kLong), 1).outcome, Outcome::kFailed);
}

}  // namespace
}  // namespace headloom::tasks
