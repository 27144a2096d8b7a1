#include "headloom/text/chrf.h"

#include <algorithm>
#include <unordered_map>

#include "headloom/base/check.h"
#include "headloom/text/unicode.h"
#include "headloom/text/utf8.h"

namespace headloom::text {
namespace {

using Counts = std::unordered_map<std::string, int64_t>;

// Of one order: n-grams in the hypothesis, in the reference, in both.
struct Statistics {
  int64_t hypothesis = 0, reference = 0, both = 0;
};

// A byte that is no part of a longer character.
bool is_ascii_sign(std::string_view character) {
  const auto byte = static_cast<unsigned char>(character[0]);
  return byte < 0x80 && is_punctuation(byte);
}

// Parts a sign from the end of a word, or else from its beginning.
std::vector<std::string_view> words_and_signs(std::string_view text) {
  std::vector<std::string_view> result;
  for (const std::string_view word : words_of(text)) {
    const std::string_view rest = word.substr(0, word.size() - 1), tail = word.substr(1);
    if (count_characters(word) == 1) {
      result.push_back(word);
    } else if (is_ascii_sign(word.substr(rest.size()))) {
      result.insert(result.end(), {rest, word.substr(rest.size())});
    } else if (is_ascii_sign(word.substr(0, 1))) {
      result.insert(result.end(), {word.substr(0, 1), tail});
    } else {
      result.push_back(word);
    }
  }
  return result;
}

void add_character_ngrams(const std::string& text, int order, std::vector<Counts>& counts) {
  std::vector<size_t> starts;
  for (size_t at = 0; at < text.size(); next_character(text, at)) starts.push_back(at);
  starts.push_back(text.size());
  for (int n = 1; n <= order; ++n) {
    Counts& of_order = counts.emplace_back();
    for (size_t i = 0; i + n < starts.size(); ++i) {
      ++of_order[text.substr(starts[i], starts[i + n] - starts[i])];
    }
  }
}

void add_word_ngrams(std::string_view text, int order, std::vector<Counts>& counts) {
  const std::vector<std::string_view> words = words_and_signs(text);
  for (int n = 1; n <= order; ++n) {
    Counts& of_order = counts.emplace_back();
    for (size_t i = 0; i + n <= words.size(); ++i) {
      std::string key;
      for (int j = 0; j < n; ++j) {
        if (j > 0) key += ' ';
        key += words[i + j];
      }
      ++of_order[key];
    }
  }
}

// One entry an order: characters, then words.
std::vector<Counts> ngrams_of(const std::string& segment, const ChrfOptions& options) {
  const std::string text = options.lowercase ? lower_case(segment) : segment;
  std::string characters = text;
  if (!options.whitespace) {
    characters.clear();
    for (const std::string_view word : words_of(text)) characters += word;
  }
  std::vector<Counts> counts;
  add_character_ngrams(characters, options.character_order, counts);
  add_word_ngrams(text, options.word_order, counts);
  return counts;
}

std::vector<Statistics> compare(const std::vector<Counts>& hypothesis,
                                const std::vector<Counts>& reference) {
  std::vector<Statistics> statistics(hypothesis.size());
  for (size_t n = 0; n < hypothesis.size(); ++n) {
    Statistics& of_order = statistics[n];
    for (const auto& [ngram, count] : hypothesis[n]) {
      of_order.hypothesis += count;
      const auto found = reference[n].find(ngram);
      if (found != reference[n].end()) of_order.both += std::min(count, found->second);
    }
    for (const auto& [ngram, count] : reference[n]) of_order.reference += count;
    // As sacreBLEU does: what cannot be matched does not count.
    if (of_order.reference == 0) of_order.hypothesis = 0;
  }
  return statistics;
}

double f_score(const std::vector<Statistics>& statistics, int beta) {
  double precision = 0.0, recall = 0.0;
  int orders = 0;
  for (const Statistics& of_order : statistics) {
    if (of_order.hypothesis == 0 || of_order.reference == 0) continue;
    precision += static_cast<double>(of_order.both) / static_cast<double>(of_order.hypothesis);
    recall += static_cast<double>(of_order.both) / static_cast<double>(of_order.reference);
    ++orders;
  }
  if (precision + recall == 0.0) return 0.0;
  precision /= orders;
  recall /= orders;
  const double factor = static_cast<double>(beta) * beta;
  return 100.0 * (1 + factor) * precision * recall / (factor * precision + recall);
}

}  // namespace

double chrf(const Segments& hypotheses, const std::vector<Segments>& references,
            const ChrfOptions& options) {
  check_segments(hypotheses, references, "chrF");
  std::vector<Statistics> sums(options.character_order + options.word_order);
  for (size_t i = 0; i < hypotheses.size(); ++i) {
    const std::vector<Counts> hypothesis = ngrams_of(hypotheses[i], options);
    std::vector<Statistics> best;
    double best_score = -1.0;
    for (const Segments& reference : references) {
      const auto statistics = compare(hypothesis, ngrams_of(reference[i], options));
      const double score = f_score(statistics, options.beta);
      if (score <= best_score) continue;
      best_score = score;
      best = statistics;
    }
    for (size_t n = 0; n < sums.size(); ++n) {
      sums[n].hypothesis += best[n].hypothesis;
      sums[n].reference += best[n].reference;
      sums[n].both += best[n].both;
    }
  }
  return f_score(sums, options.beta);
}

std::string chrf_name(const ChrfOptions& options) {
  return cat("chrF", options.beta, std::string(static_cast<size_t>(options.word_order), '+'));
}

std::string signature(const ChrfOptions& options, size_t references) {
  return cat("nrefs:", references, "|case:", options.lowercase ? "lc" : "mixed",
             "|eff:yes|nc:", options.character_order, "|nw:", options.word_order,
             "|space:", options.whitespace ? "yes" : "no", "|version:", kSacrebleuVersion);
}

}  // namespace headloom::text
