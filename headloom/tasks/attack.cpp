#include "headloom/tasks/attack.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cctype>
#include <map>
#include <numeric>

#include "headloom/base/check.h"
#include "headloom/tasks/random.h"

namespace headloom::tasks {
namespace {

using at::Tensor;

std::vector<std::string> words_of(const std::string& text) {
  std::vector<std::string> words{""};
  for (const char c : text) {
    if (c == ' ') {
      words.emplace_back();
    } else {
      words.back() += c;
    }
  }
  return words;
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
  Oracle(const Classifier& classifier, int64_t label) : classifier_(classifier), label_(label) {}

  struct Answer {
    double score;  // 1 - p(label)
    bool fooled;
  };
  std::vector<Answer> ask(const std::vector<std::string>& texts) {
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
  int64_t label_;
};

size_t best_of(const std::vector<Oracle::Answer>& answers) {
  const auto worse = [](const Oracle::Answer& a, const Oracle::Answer& b) {
    return a.score < b.score;
  };
  return static_cast<size_t>(std::max_element(answers.begin(), answers.end(), worse) -
                             answers.begin());
}

// Positions by the score without their word, highest first.
std::vector<size_t> by_importance(Oracle& oracle, const std::vector<std::string>& words) {
  std::vector<std::string> without;
  for (size_t i = 0; i < words.size(); ++i) without.push_back(join_words(words, i));
  const auto answers = oracle.ask(without);
  std::vector<size_t> order(words.size());
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
                    const Candidates& candidates, const std::set<std::string>& stop_words) {
  Oracle oracle(classifier, example.label);
  std::vector<std::string> words = words_of(example.text);
  AttackResult result{Outcome::kFailed, example.text, 0, static_cast<int64_t>(words.size()), 0};
  const Oracle::Answer before = oracle.ask({example.text}).front();
  if (before.fooled) result.outcome = Outcome::kSkipped;
  double score = before.score;
  const auto order = before.fooled ? std::vector<size_t>{} : by_importance(oracle, words);
  for (const size_t at : order) {
    if (stop_words.count(words[at]) > 0) continue;
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

namespace {

struct Flip {
  double gain;
  int64_t state, position, token;
};

// The best flips of one state.
std::vector<Flip> flips_of(const FlipVictim& victim, const Tensor& tokens, int64_t label,
                           int64_t state, int64_t beam, double least) {
  const Tensor own = victim.embedding.index_select(0, tokens);  // [T, D]
  const Tensor slope = victim.gradient(tokens, label).to(own.scalar_type());
  Tensor gain = at::matmul(slope, victim.embedding.t()) - (slope * own).sum(1, true);  // [T, V]
  const auto unit = [](const Tensor& x) { return x / x.norm(2, 1, true).clamp_min(1e-12); };
  const Tensor far = at::matmul(unit(own), unit(victim.embedding).t()) < least;
  Tensor barred = far.logical_or(gain <= 0);
  for (const int64_t token : victim.fixed) {
    barred.select(1, token).fill_(true);
    barred = barred.logical_or((tokens == token).unsqueeze(1));
  }
  gain = gain.masked_fill(barred, -1.0).to(at::kDouble);
  const int64_t most = std::min(beam, gain.numel());
  const auto [values, indices] = gain.flatten().topk(most);
  std::vector<Flip> flips;
  for (int64_t i = 0; i < most; ++i) {
    const double value = values[i].item<double>();
    if (value <= 0.0) break;
    const int64_t index = indices[i].item<int64_t>();
    flips.push_back({value, state, index / gain.size(1), index % gain.size(1)});
  }
  return flips;
}

}  // namespace

FlipResult hot_flip(const FlipVictim& victim, const Tensor& tokens, int64_t label,
                    int64_t most_flips, int64_t beam, double least) {
  FlipResult result{Outcome::kFailed, tokens, 1, 0};
  const auto predicted = [&](const Tensor& rows) { return victim.classify(rows).argmax(1); };
  if (predicted(tokens.unsqueeze(0))[0].item<int64_t>() != label) {
    result.outcome = Outcome::kSkipped;
    return result;
  }
  std::vector<Tensor> states{tokens};
  for (int64_t round = 1; round <= most_flips; ++round) {
    std::vector<Flip> flips;
    for (size_t s = 0; s < states.size(); ++s) {
      const auto more = flips_of(victim, states[s], label, static_cast<int64_t>(s), beam, least);
      flips.insert(flips.end(), more.begin(), more.end());
      ++result.queries;
    }
    std::stable_sort(flips.begin(), flips.end(),
                     [](const Flip& a, const Flip& b) { return a.gain > b.gain; });
    if (static_cast<int64_t>(flips.size()) > beam) flips.resize(static_cast<size_t>(beam));
    if (flips.empty()) return result;
    std::vector<Tensor> next;
    for (const Flip& flip : flips) {
      next.push_back(states[static_cast<size_t>(flip.state)].clone());
      next.back()[flip.position] = flip.token;
    }
    const Tensor answers = predicted(at::stack(next));
    result.queries += static_cast<int64_t>(next.size());
    result.flips = round;
    result.tokens = next.front();
    for (size_t i = 0; i < next.size(); ++i) {
      if (answers[static_cast<int64_t>(i)].item<int64_t>() == label) continue;
      result.outcome = Outcome::kSucceeded;
      result.tokens = next[i];
      return result;
    }
    states = std::move(next);
  }
  return result;
}

void AttackReport::add(const AttackResult& result) {
  queries += result.queries;
  if (result.outcome == Outcome::kSkipped) {
    ++skipped;
    return;
  }
  ++(result.outcome == Outcome::kSucceeded ? succeeded : failed);
  words += result.words;
  words_changed += result.words_changed;
}

double AttackReport::failure_rate() const {
  const int64_t attacked = succeeded + failed;
  return attacked == 0 ? 0.0 : 100.0 * static_cast<double>(failed) / static_cast<double>(attacked);
}

double AttackReport::mean_queries() const {
  const int64_t all = skipped + succeeded + failed;
  return all == 0 ? 0.0 : static_cast<double>(queries) / static_cast<double>(all);
}

}  // namespace headloom::tasks
