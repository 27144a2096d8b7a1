#pragma once

#include "headloom/text/scoring.h"

namespace headloom::text {

struct ChrfOptions {
  int character_order = 6;
  int word_order = 0;  // 2: chrF++
  int beta = 2;        // recall counts beta times as much as precision
  bool lowercase = false;
  bool whitespace = false;  // counts white space as characters
};

// chrF of a corpus, 0 to 100 (Popovic, 2015; chrF++: 2017): the F score of character n-grams, n = 1
// .. 6, and with word_order also of word n-grams, from precision and recall averaged over the
// orders that occur; of several references the best for each segment. Every reference has as many
// segments as the hypotheses. The figures are sacreBLEU's, with one exception: lowercase knows no
// final sigma.
double chrf(const Segments& hypotheses, const std::vector<Segments>& references,
            const ChrfOptions& options = {});

std::string chrf_name(const ChrfOptions& options);  // chrF2, chrF2++
// "nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|version:2.6.0"
std::string signature(const ChrfOptions& options, size_t references);

}  // namespace headloom::text
