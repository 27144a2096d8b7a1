#pragma once

#include <array>
#include <optional>

#include "headloom/text/scoring.h"

namespace headloom::text {

enum class BleuTokenizer {
  k13a,   // tokenize_13a(), for text as people write it
  kNone,  // the text is tokenised already: words between white space
};

enum class Smoothing { kNone, kExponential, kFloor, kAddK };

struct BleuOptions {
  BleuTokenizer tokenizer = BleuTokenizer::k13a;
  Smoothing smoothing = Smoothing::kExponential;
  std::optional<double> smooth_value;  // of kFloor (0.1) and kAddK (1)
  bool lowercase = false;
  bool effective_order = false;  // leaves out orders that the hypotheses are too short for
  bool split_compounds = false;  // first; see scoring.h
};

constexpr int kBleuOrder = 4;

struct Bleu {
  double score = 0.0;                        // 0 to 100
  std::array<double, kBleuOrder> correct{};  // n-grams; whole numbers but for kAddK
  std::array<double, kBleuOrder> total{};
  std::array<double, kBleuOrder> precision{};  // percent, smoothed
  double brevity_penalty = 1.0;
  int64_t hypothesis_length = 0, reference_length = 0;  // words

  // "70.1/50.2/35.3/24.4 (BP = 1.000 ratio = 1.002 hyp_len = 12130 ref_len = 12103)"
  std::string details() const;
};

// BLEU of a corpus (Papineni et al., 2002): exp of the mean log precision of n-grams, n = 1 .. 4,
// each hypothesis clipped by the most counts of any of its references, times the brevity penalty
// exp(1 - r / c) with the lengths of the closest references. Every reference has as many segments
// as the hypotheses. The figures are sacreBLEU's to the last bit that matters, with one exception:
// lowercase knows no final sigma.
Bleu bleu(const Segments& hypotheses, const std::vector<Segments>& references,
          const BleuOptions& options = {});

// "nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:2.6.0", as sacreBLEU writes it; with split
// compounds, which it does not know, "|compounds:split" before the version.
std::string signature(const BleuOptions& options, size_t references);

}  // namespace headloom::text
