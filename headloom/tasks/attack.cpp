#include "headloom/tasks/attack.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <iterator>
#include <limits>
#include <map>
#include <numeric>
#include <sstream>

#include "headloom/base/check.h"
#include "headloom/tasks/random.h"

namespace headloom::tasks {
namespace {

using at::Tensor;

std::vector<std::string> words_of(const std::string& text) {
  std::istringstream words(text);
  return {std::istream_iterator<std::string>(words), {}};
}

std::string join_words(const std::vector<std::string>& words, size_t without) {
  std::string text;
  for (size_t i = 0; i < words.size(); ++i) {
    if (i == without) continue;
    if (!text.empty()) text += ' ';
    text += words[i];
  }
  return text;
}
constexpr size_t kNone = static_cast<size_t>(-1);

// Answers about one example, counted.
class Oracle {
 public:
  Oracle(const Classifier& classifier, int64_t label, int64_t budget)
      : classifier_(classifier), label_(label), budget_(budget) {}

  struct Answer {
    double score;  // 1 - p(label)
    bool fooled;
  };
  // The answers to as many of the texts as the budget allows.
  std::vector<Answer> ask(std::vector<std::string> texts) {
    const int64_t left = budget_ == 0 ? std::numeric_limits<int64_t>::max() : budget_ - queries;
    if (static_cast<int64_t>(texts.size()) > left) texts.resize(static_cast<size_t>(left));
    if (texts.empty()) return {};
    queries += static_cast<int64_t>(texts.size());
    const Tensor p = classifier_(texts).to(at::kCPU, at::kDouble);
    std::vector<Answer> answers;
    for (int64_t i = 0; i < p.size(0); ++i) {
      answers.push_back(
          {1.0 - p[i][label_].item<double>(), p[i].argmax().item<int64_t>() != label_});
    }
    return answers;
  }
  int64_t queries = 0;

 private:
  const Classifier& classifier_;
  int64_t label_, budget_;
};

size_t best_of(const std::vector<Oracle::Answer>& answers) {
  const auto worse = [](const Oracle::Answer& a, const Oracle::Answer& b) {
    return a.score < b.score;
  };
  return static_cast<size_t>(std::max_element(answers.begin(), answers.end(), worse) -
                             answers.begin());
}

// Positions by the score without their word, highest first; those that were asked about.
std::vector<size_t> by_importance(Oracle& oracle, const std::vector<std::string>& words) {
  std::vector<std::string> without;
  for (size_t i = 0; i < words.size(); ++i) without.push_back(join_words(words, i));
  const auto answers = oracle.ask(without);
  std::vector<size_t> order(answers.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return answers[a].score > answers[b].score; });
  return order;
}

const std::map<char, std::string>& look_alikes() {
  static const std::map<char, std::string> all = {{'a', "@"}, {'e', "3"}, {'i', "1"}, {'l', "1"},
                                                  {'o', "0"}, {'s', "$"}, {'t', "+"}, {'b', "6"},
                                                  {'g', "9"}, {'z', "2"}};
  return all;
}

// The key to the right, or to the left at the end of a row.
char neighbour_key(char key) {
  for (const std::string row : {"qwertyuiop", "asdfghjkl", "zxcvbnm"}) {
    const size_t at = row.find(key);
    if (at == std::string::npos) continue;
    return at + 1 < row.size() ? row[at + 1] : row[at - 1];
  }
  return key;
}

bool is_ascii(const std::string& word) {
  return std::all_of(word.begin(), word.end(),
                     [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

uint64_t number_of(const std::string& word) {
  uint64_t hash = 14695981039346656037u;  // FNV-1a
  for (const char c : word) hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211u;
  return hash & ((uint64_t{1} << 56) - 1);
}

std::vector<std::string> edits_of(const std::string& word, uint64_t seed) {
  if (word.size() < 2 || !is_ascii(word)) return {};
  RandomStream draw(seed, Purpose::kEdits, number_of(word));
  const auto inner = [&](size_t room) { return 1 + static_cast<size_t>(draw.below(room)); };
  std::vector<std::string> edits;
  edits.push_back(std::string(word).insert(inner(word.size() - 1), " "));
  if (word.size() > 2) edits.push_back(std::string(word).erase(inner(word.size() - 2), 1));
  if (word.size() > 3) {
    const size_t at = inner(word.size() - 3);
    edits.push_back(word);
    std::swap(edits.back()[at], edits.back()[at + 1]);
  }
  for (size_t i = 0; i < word.size(); ++i) {
    const auto found = look_alikes().find(word[i]);
    if (found == look_alikes().end()) continue;
    edits.push_back(std::string(word).replace(i, 1, found->second));
    break;
  }
  const size_t at = inner(word.size() - 1);
  edits.push_back(word);
  edits.back()[at] = neighbour_key(word[at]);
  std::erase(edits, word);
  return edits;
}

}  // namespace

AttackResult attack(const Classifier& classifier, const LabelledText& example,
                    const Candidates& candidates, const SearchOptions& options) {
  HEADLOOM_CHECK(options.budget >= 0, "attack", "a budget of 0 queries or more",
                 cat(options.budget));
  Oracle oracle(classifier, example.label, options.budget);
  std::vector<std::string> words = words_of(example.text);
  AttackResult result{Outcome::kFailed, example.text, 0, static_cast<int64_t>(words.size()), 0};
  const Oracle::Answer before = oracle.ask({example.text}).front();
  if (before.fooled) result.outcome = Outcome::kSkipped;
  double score = before.score;
  const auto order = before.fooled ? std::vector<size_t>{} : by_importance(oracle, words);
  for (const size_t at : order) {
    if (options.stop_words.count(words[at]) > 0) continue;
    const std::vector<std::string> choices = candidates(words[at]);
    std::vector<std::string> texts;
    for (const std::string& choice : choices) {
      std::vector<std::string> changed = words;
      changed[at] = choice;
      texts.push_back(join_words(changed, kNone));
    }
    const auto answers = oracle.ask(texts);
    if (answers.empty()) continue;
    const size_t best = best_of(answers);
    if (answers[best].score <= score) continue;
    score = answers[best].score;
    words[at] = choices[best];
    result.text = texts[best];
    ++result.words_changed;
    if (answers[best].fooled) {
      result.outcome = Outcome::kSucceeded;
      break;
    }
  }
  result.queries = oracle.queries;
  return result;
}

Candidates character_edits(uint64_t seed) {
  return [seed](const std::string& word) { return edits_of(word, seed); };
}

Candidates embedding_neighbours(std::vector<std::string> words, const Tensor& vectors,
                                int64_t count, double least) {
  HEADLOOM_CHECK(vectors.dim() == 2 && vectors.size(0) == static_cast<int64_t>(words.size()),
                 "embedding_neighbours", cat("vectors [", words.size(), ", D]"),
                 cat(vectors.sizes()));
  const Tensor wide = vectors.to(at::kCPU, at::kFloat);
  const Tensor units = wide / wide.norm(2, 1, /*keepdim=*/true).clamp_min(1e-12);
  std::map<std::string, int64_t> places;
  for (size_t i = 0; i < words.size(); ++i) places.emplace(words[i], static_cast<int64_t>(i));
  return [=, words = std::move(words)](const std::string& word) {
    std::vector<std::string> found;
    const auto place = places.find(word);
    if (place == places.end()) return found;
    const Tensor cosines = at::mv(units, units[place->second]);
    const int64_t most = std::min<int64_t>(count + 1, cosines.size(0));
    const auto [values, indices] = cosines.topk(most);
    for (int64_t i = 0; i < most; ++i) {
      const int64_t index = indices[i].item<int64_t>();
      if (index == place->second || values[i].item<double>() < least) continue;
      if (static_cast<int64_t>(found.size()) < count) {
        found.push_back(words[static_cast<size_t>(index)]);
      }
    }
    return found;
  };
}

const std::set<std::string>& english_stop_words() {
  static const std::set<std::string> all = [] {
    std::istringstream words(
        "a an the this that these those some any each every no not nor none never n't "
        "i me my mine myself we us our ours ourselves you your yours yourself he him his himself "
        "she her hers herself it its itself they them their theirs themselves one who whom whose "
        "which what there here 's 'll 're 've 'd 'm "
        "of in on at by for from to into onto with without within about above below over under "
        "between among through during before after against toward towards upon off out up down "
        "and or but if then than so as because while when where why how though although until "
        "unless since whether both either neither "
        "am is are was were be been being do does did doing have has had having can could may "
        "might must shall should will would");
    return std::set<std::string>(std::istream_iterator<std::string>(words), {});
  }();
  return all;
}

namespace {

double per_cent(int64_t part, int64_t whole) {
  return whole == 0 ? 0.0 : 100.0 * static_cast<double>(part) / static_cast<double>(whole);
}

}  // namespace

void AttackReport::add(const AttackResult& result) {
  if (result.outcome == Outcome::kSkipped) {
    ++skipped;
    return;
  }
  queries += result.queries;
  if (result.outcome == Outcome::kFailed) {
    ++failed;
    return;
  }
  ++succeeded;
  changed_shares += static_cast<double>(result.words_changed) / static_cast<double>(result.words);
}

double AttackReport::clean_accuracy() const {
  return per_cent(attacked(), examples());
}

double AttackReport::accuracy_under_attack() const {
  return per_cent(failed, examples());
}

double AttackReport::failure_rate() const {
  return per_cent(failed, attacked());
}

double AttackReport::mean_queries() const {
  return per_cent(queries, attacked()) / 100.0;
}

double AttackReport::words_changed() const {
  return succeeded == 0 ? 0.0 : 100.0 * changed_shares / static_cast<double>(succeeded);
}

}  // namespace headloom::tasks
