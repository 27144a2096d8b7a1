#include <CLI/CLI.hpp>
#include <cstdio>

#include "headloom/base/check.h"
#include "headloom/cli/app.h"
#include "headloom/cli/data.h"
#include "headloom/cli/output.h"
#include "headloom/text/bleu.h"
#include "headloom/text/chrf.h"

namespace headloom::cli {
namespace {

struct Arguments {
  std::string metric = "bleu", tokenize = "13a", smoothing = "exp", hypotheses = "-";
  std::vector<std::string> references;
  bool lowercase = false, split_compounds = false, strict = false;
};

text::Segments read_segments(const std::string& path, bool strict) {
  text::LineReader lines = open_lines(path, strict);
  text::Segments segments;
  for (std::string line; lines.next(line);) segments.push_back(line);
  return segments;
}

std::string two_digits(double score) {
  char text[32];
  std::snprintf(text, sizeof text, "%.2f", score);
  return text;
}

text::Smoothing smoothing_of(const std::string& name) {
  if (name == "none") return text::Smoothing::kNone;
  if (name == "floor") return text::Smoothing::kFloor;
  return name == "add-k" ? text::Smoothing::kAddK : text::Smoothing::kExponential;
}

int score_command(const Arguments& arguments) {
  std::vector<text::Segments> references;
  for (const std::string& path : arguments.references) {
    references.push_back(read_segments(path, arguments.strict));
  }
  const text::Segments hypotheses = read_segments(arguments.hypotheses, arguments.strict);
  if (arguments.metric == "bleu") {
    text::BleuOptions options;
    options.tokenizer =
        arguments.tokenize == "13a" ? text::BleuTokenizer::k13a : text::BleuTokenizer::kNone;
    options.smoothing = smoothing_of(arguments.smoothing);
    options.lowercase = arguments.lowercase;
    options.split_compounds = arguments.split_compounds;
    const text::Bleu bleu = text::bleu(hypotheses, references, options);
    print(cat("BLEU|", text::signature(options, references.size()), " = ", two_digits(bleu.score),
              ' ', bleu.details(), '\n'));
    return kDone;
  }
  HEADLOOM_CHECK(!arguments.split_compounds, "data score", "--split-compounds with --metric bleu",
                 arguments.metric);
  text::ChrfOptions options;
  options.word_order = arguments.metric == "chrf++" ? 2 : 0;
  options.lowercase = arguments.lowercase;
  const double score = text::chrf(hypotheses, references, options);
  print(cat(text::chrf_name(options), '|', text::signature(options, references.size()), " = ",
            two_digits(score), '\n'));
  return kDone;
}

}  // namespace

void add_data_score(CLI::App& data, Action& action) {
  CLI::App* command = add_command(
      data, "score", "Score lines of text against references: BLEU and chrF as sacreBLEU has them.",
      {"headloom data score --references test.de <translated.de",
       "headloom data score --tokenize none --references test.tok.de --hypotheses "
       "translated.tok.de",
       "headloom data score --tokenize none --split-compounds --references test.tok.de "
       "<translated.tok.de",
       "headloom data score --metric chrf++ --references one.de two.de <translated.de"},
      "Prints the signature, the score and, for BLEU, what it is made of. Figures of different\n"
      "signatures cannot be compared; tokenised, split BLEU runs higher than 13a.");
  const auto arguments = std::make_shared<Arguments>();
  command->add_option("--metric", arguments->metric, "bleu, chrf or chrf++")
      ->check(CLI::IsMember({"bleu", "chrf", "chrf++"}))
      ->capture_default_str();
  command
      ->add_option("--tokenize", arguments->tokenize,
                   "BLEU: 13a for plain text, none for text that is tokenised already")
      ->check(CLI::IsMember({"13a", "none"}))
      ->capture_default_str();
  command
      ->add_option("--references", arguments->references,
                   "Files with a line for each line to score")
      ->required()
      ->type_name("FILE");
  command->add_option("--hypotheses", arguments->hypotheses, "The lines; - is standard input")
      ->capture_default_str()
      ->type_name("FILE");
  command->add_option("--smoothing", arguments->smoothing, "BLEU: exp, floor, add-k or none")
      ->check(CLI::IsMember({"exp", "floor", "add-k", "none"}))
      ->capture_default_str();
  command->add_flag("--split-compounds", arguments->split_compounds,
                    "BLEU: cut words at hyphens first");
  command->add_flag("--lowercase", arguments->lowercase, "Ignore case");
  add_strict(command, arguments->strict);
  command->callback(
      [arguments, &action] { action = [arguments] { return score_command(*arguments); }; });
}

}  // namespace headloom::cli
