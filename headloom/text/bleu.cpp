#include "headloom/text/bleu.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <unordered_map>

#include "headloom/base/check.h"
#include "headloom/text/unicode.h"

namespace headloom::text {
namespace {

// An n-gram is its words with spaces between, so that orders do not mix.
using Counts = std::unordered_map<std::string, int64_t>;

std::string prepare(const std::string& segment, const BleuOptions& options) {
  std::string text = options.split_compounds ? split_compounds(segment) : segment;
  if (options.lowercase) text = lower_case(text);
  return options.tokenizer == BleuTokenizer::k13a ? tokenize_13a(text) : text;
}

struct Ngrams {
  std::array<Counts, kBleuOrder> counts;
  int64_t length = 0;  // words
};

Ngrams ngrams_of(const std::string& text) {
  Ngrams result;
  const std::vector<std::string_view> words = words_of(text);
  result.length = static_cast<int64_t>(words.size());
  for (size_t begin = 0; begin < words.size(); ++begin) {
    std::string key;
    for (size_t n = 0; n < kBleuOrder && begin + n < words.size(); ++n) {
      if (n > 0) key += ' ';
      key += words[begin + n];
      ++result.counts[n][key];
    }
  }
  return result;
}

void add_segment(const Ngrams& hypothesis, const std::vector<Ngrams>& references, Bleu& sums) {
  int64_t closest = references[0].length;
  for (const Ngrams& reference : references) {
    const int64_t distance = std::abs(hypothesis.length - reference.length);
    const int64_t best = std::abs(hypothesis.length - closest);
    if (distance < best || (distance == best && reference.length < closest)) {
      closest = reference.length;
    }
  }
  sums.hypothesis_length += hypothesis.length;
  sums.reference_length += closest;
  for (size_t n = 0; n < kBleuOrder; ++n) {
    for (const auto& [ngram, count] : hypothesis.counts[n]) {
      int64_t most = 0;
      for (const Ngrams& reference : references) {
        const auto found = reference.counts[n].find(ngram);
        if (found != reference.counts[n].end()) most = std::max(most, found->second);
      }
      sums.correct[n] += static_cast<double>(std::min(count, most));
      sums.total[n] += static_cast<double>(count);
    }
  }
}

double smooth_value(const BleuOptions& options) {
  return options.smooth_value.value_or(options.smoothing == Smoothing::kFloor ? 0.1 : 1.0);
}

void finish(Bleu& bleu, const BleuOptions& options) {
  const auto hypothesis = static_cast<double>(bleu.hypothesis_length);
  const auto reference = static_cast<double>(bleu.reference_length);
  if (hypothesis < reference) {
    bleu.brevity_penalty = hypothesis > 0 ? std::exp(1 - reference / hypothesis) : 0.0;
  }
  if (std::all_of(bleu.correct.begin(), bleu.correct.end(), [](double c) { return c == 0; })) {
    return;
  }
  double halving = 1.0;
  int order = kBleuOrder;
  for (int n = 0; n < kBleuOrder; ++n) {
    if (options.smoothing == Smoothing::kAddK && n > 0) {
      bleu.correct[n] += smooth_value(options);
      bleu.total[n] += smooth_value(options);
    }
    if (bleu.total[n] == 0) break;
    if (options.effective_order) order = n + 1;
    if (bleu.correct[n] > 0) {
      bleu.precision[n] = 100.0 * bleu.correct[n] / bleu.total[n];
    } else if (options.smoothing == Smoothing::kExponential) {
      halving *= 2;
      bleu.precision[n] = 100.0 / (halving * bleu.total[n]);
    } else if (options.smoothing == Smoothing::kFloor) {
      bleu.precision[n] = 100.0 * smooth_value(options) / bleu.total[n];
    }
  }
  double logarithms = 0.0;
  for (int n = 0; n < order; ++n) logarithms += std::log(bleu.precision[n]);
  bleu.score = bleu.brevity_penalty * std::exp(logarithms / order);
}

std::string formatted(const char* format, double value) {
  char text[64];
  std::snprintf(text, sizeof text, format, value);
  return text;
}

}  // namespace

std::string Bleu::details() const {
  std::string text;
  for (int n = 0; n < kBleuOrder; ++n) text += (n ? "/" : "") + formatted("%.1f", precision[n]);
  const double ratio = reference_length > 0 ? static_cast<double>(hypothesis_length) /
                                                  static_cast<double>(reference_length)
                                            : 0.0;
  return text + cat(" (BP = ", formatted("%.3f", brevity_penalty),
                    " ratio = ", formatted("%.3f", ratio), " hyp_len = ", hypothesis_length,
                    " ref_len = ", reference_length, ")");
}

Bleu bleu(const Segments& hypotheses, const std::vector<Segments>& references,
          const BleuOptions& options) {
  check_segments(hypotheses, references, "BLEU");
  Bleu result;
  for (size_t i = 0; i < hypotheses.size(); ++i) {
    std::vector<Ngrams> of_references;
    for (const Segments& reference : references) {
      of_references.push_back(ngrams_of(prepare(reference[i], options)));
    }
    add_segment(ngrams_of(prepare(hypotheses[i], options)), of_references, result);
  }
  finish(result, options);
  return result;
}

std::string signature(const BleuOptions& options, size_t references) {
  std::string smoothing = "exp";
  if (options.smoothing == Smoothing::kNone) smoothing = "none";
  if (options.smoothing == Smoothing::kFloor) {
    smoothing = cat("floor[", formatted("%.2f", smooth_value(options)), "]");
  }
  if (options.smoothing == Smoothing::kAddK) {
    smoothing = cat("add-k[", formatted("%.2f", smooth_value(options)), "]");
  }
  return cat("nrefs:", references, "|case:", options.lowercase ? "lc" : "mixed",
             "|eff:", options.effective_order ? "yes" : "no",
             "|tok:", options.tokenizer == BleuTokenizer::k13a ? "13a" : "none",
             "|smooth:", smoothing, options.split_compounds ? "|compounds:split" : "",
             "|version:", kSacrebleuVersion);
}

}  // namespace headloom::text
