#include "headloom/tasks/text_attack.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <numeric>
#include <utility>

#include "headloom/base/check.h"
#include "headloom/base/nearest.h"
#include "headloom/tasks/random.h"
#include "headloom/tensor/gradients.h"

// B batch, T tokens, V vocabulary, C model width.
namespace headloom::tasks {
namespace {

using at::Tensor;

constexpr const char* kWhere = "attack";
// Texts that are classified together.
constexpr size_t kBatch = 64;
constexpr double kLeastOfWords = 0.5, kLeastOfTokens = 0.8;

void check_plan(const AttackPlan& plan) {
  const auto& names = attack_names();
  HEADLOOM_CHECK(std::find(names.begin(), names.end(), plan.attack) != names.end(), kWhere,
                 cat("an attack among ", join(names)), cat('"', plan.attack, '"'));
  HEADLOOM_CHECK(plan.examples >= 0, kWhere, "0 examples or more", cat(plan.examples));
  HEADLOOM_CHECK(plan.budget >= 0, kWhere, "a budget of 0 queries or more", cat(plan.budget));
  HEADLOOM_CHECK(!plan.least || plan.attack != "character", kWhere,
                 "no least cosine for character edits", cat(*plan.least));
  HEADLOOM_CHECK(!plan.least || (*plan.least >= -1.0 && *plan.least <= 1.0), kWhere,
                 "a least cosine from -1 to 1", cat(*plan.least));
}

std::vector<ClassifiedTexts> drawn(std::vector<ClassifiedTexts> all, const AttackPlan& plan) {
  const auto count = static_cast<int64_t>(all.size());
  if (plan.examples == 0 || plan.examples >= count) return all;
  std::vector<int64_t> order(all.size());
  std::iota(order.begin(), order.end(), int64_t{0});
  RandomStream(plan.seed, Purpose::kAttacked, 0).shuffle(order);
  std::vector<ClassifiedTexts> chosen;
  for (int64_t i = 0; i < plan.examples; ++i) {
    chosen.push_back(std::move(all[static_cast<size_t>(order[static_cast<size_t>(i)])]));
  }
  return chosen;
}

// Words that are one token of the vocabulary within a text, and their rows of the embedding.
Candidates neighbours_of(const text::Tokenizer& tokenizer, const Tensor& embedding, double least) {
  const std::vector<int64_t> before = tokenizer.encode("a");
  std::vector<std::string> words;
  std::vector<int64_t> rows;
  for (int64_t id = 0; id < tokenizer.size(); ++id) {
    if (!tokenizer.token(id) || tokenizer.is_special(id)) continue;
    std::string word = tokenizer.decode({id});
    word.erase(0, word.find_first_not_of(' '));
    std::vector<int64_t> alone = before;
    alone.push_back(id);
    if (word.empty() || tokenizer.encode("a " + word) != alone) continue;
    words.push_back(word);
    rows.push_back(id);
  }
  const Tensor chosen = at::tensor(rows, at::kLong).to(embedding.device());
  return embedding_neighbours(std::move(words), embedding.index_select(0, chosen), 50, least);
}

// What a plan, a model and its task come to.
struct Attacker {
  Model& model;
  const TextClassifier& task;
  const AttackPlan& plan;
  Tensor embedding;       // [V, C]
  Candidates candidates;  // empty for hotflip

  Attacker(Model& the_model, const TextClassifier& the_task, const AttackPlan& the_plan)
      : model(the_model), task(the_task), plan(the_plan), embedding(task.embedding(model)) {
    if (plan.attack == "character") candidates = character_edits(plan.seed);
    if (plan.attack == "embedding") {
      candidates = neighbours_of(task.tokenizer(), embedding, plan.least.value_or(kLeastOfWords));
    }
  }

  Tensor probabilities(const Batch& batch) const {
    const at::NoGradGuard off;
    return model.forward(batch.to(embedding.device())).softmax(1);
  }
  AttackResult search(const ClassifiedTexts& example) const;
  AttackResult flip(const ClassifiedTexts& example) const;
};

AttackResult Attacker::search(const ClassifiedTexts& example) const {
  const Classifier classifier = [&](const std::vector<std::string>& texts) {
    std::vector<Tensor> parts;
    for (size_t begin = 0; begin < texts.size(); begin += kBatch) {
      std::vector<ClassifiedTexts> examples;
      for (size_t i = begin; i < std::min(texts.size(), begin + kBatch); ++i) {
        examples.push_back(example);
        examples.back().sentences.back() = texts[i];
      }
      parts.push_back(probabilities(task.batch_of(examples)));
    }
    return at::cat(parts);
  };
  return attack(classifier, {example.sentences.back(), example.label}, candidates,
                {english_stop_words(), plan.budget});
}

AttackResult Attacker::flip(const ClassifiedTexts& example) const {
  const Tensor tokens = task.batch_of({example}).tokens[0].to(embedding.device());  // [T]
  FlipVictim victim;
  victim.embedding = embedding;
  for (int64_t id = 0; id < task.tokenizer().size(); ++id) {
    if (task.tokenizer().is_special(id)) victim.fixed.insert(id);
  }
  victim.classify = [&](const Tensor& rows) {
    Batch batch;
    batch.tokens = rows;
    return probabilities(batch);
  };
  victim.gradient = [&](const Tensor& row, int64_t label) {
    const Tensor target = at::full({1}, label, row.options());
    const TensorFunction loss = [&](const std::vector<Tensor>& rows) {
      return at::cross_entropy_loss(task.forward_rows(model, rows[0].unsqueeze(0)), target);
    };
    const Tensor rows = embedding.index_select(0, row);  // [T, C]
    return gradients_of(loss, {rows}, {true}, at::ones({}, rows.options()))[0];
  };
  const FlipOptions options{.least = plan.least.value_or(kLeastOfTokens), .budget = plan.budget};
  const FlipResult found = hot_flip(victim, tokens, example.label, options);
  int64_t words = 0;
  for (int64_t t = 0; t < tokens.size(0); ++t) {
    words += victim.fixed.count(tokens[t].item<int64_t>()) == 0;
  }
  return {found.outcome, "", found.queries, words, (found.tokens != tokens).sum().item<int64_t>()};
}

}  // namespace

const std::vector<std::string>& attack_names() {
  static const std::vector<std::string> names = {"character", "embedding", "hotflip"};
  return names;
}

AttackReport attack_model(Model& model, const TextClassifier& task, const AttackPlan& plan) {
  check_plan(plan);
  HEADLOOM_CHECK(!model.is_training(), kWhere, "a model in evaluation mode", "one that trains",
                 "Call its eval().");
  const Attacker attacker(model, task, plan);
  AttackReport report;
  for (const ClassifiedTexts& example : drawn(task.validation_texts(), plan)) {
    report.add(plan.attack == "hotflip" ? attacker.flip(example) : attacker.search(example));
  }
  return report;
}

}  // namespace headloom::tasks
