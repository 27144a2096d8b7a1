#include <unistd.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <optional>

#include "headloom/base/check.h"
#include "headloom/cli/app.h"
#include "headloom/cli/commands.h"
#include "headloom/cli/line_window.h"
#include "headloom/cli/output.h"
#include "headloom/text/lines.h"
#include "headloom/train/run.h"

namespace headloom::cli {
namespace {

struct Arguments {
  std::string folder, weights, prefix, prefix_file;
  std::vector<std::string> overrides;
  std::optional<int64_t> beam, n_best, min_length, no_repeat_ngram;
  std::optional<std::string> length_penalty;
  std::optional<double> alpha;
  int64_t window = 2000;
  tasks::TranslateOptions translate;
  bool no_cache = false, report_speed = false;
};

nn::BeamOptions beam_options(const Arguments& arguments, nn::BeamOptions beam) {
  beam.beam = arguments.beam.value_or(beam.beam);
  beam.n_best = arguments.n_best.value_or(1);
  beam.min_length = arguments.min_length.value_or(0);
  beam.no_repeat_ngram = arguments.no_repeat_ngram.value_or(beam.no_repeat_ngram);
  beam.alpha = arguments.alpha.value_or(beam.alpha);
  if (arguments.length_penalty) {
    beam.length_penalty = *arguments.length_penalty == "gnmt" ? nn::LengthPenalty::kGnmt
                                                              : nn::LengthPenalty::kAverage;
  }
  beam.cache = !arguments.no_cache;
  HEADLOOM_CHECK(beam.beam >= 1, "translate", "--beam from 1 on", cat(beam.beam));
  HEADLOOM_CHECK(beam.n_best >= 1 && beam.n_best <= beam.beam, "translate",
                 cat("--n-best from 1 to the beam, ", beam.beam), cat(beam.n_best));
  HEADLOOM_CHECK(beam.min_length >= 0, "translate", "--min-length from 0 on", cat(beam.min_length));
  HEADLOOM_CHECK(beam.no_repeat_ngram >= 0, "translate", "--no-repeat-ngram from 0 on",
                 cat(beam.no_repeat_ngram));
  return beam;
}

// The prefix of every line, or of each its own.
class Prefixes {
 public:
  explicit Prefixes(const Arguments& arguments) : prefix_(arguments.prefix) {
    if (arguments.prefix_file.empty()) return;
    HEADLOOM_CHECK(prefix_.empty(), "translate", "--prefix or --prefix-file", "both");
    path_ = arguments.prefix_file;
    file_.open(path_, std::ios::binary);
    HEADLOOM_CHECK(file_.is_open(), path_, "a readable file", "none");
    reader_.emplace(
        [this](char* buffer, size_t size) {
          file_.read(buffer, static_cast<std::streamsize>(size));
          return static_cast<size_t>(file_.gcount());
        },
        path_);
  }

  std::vector<std::string> next(size_t count) {
    if (!reader_) {
      return prefix_.empty() ? std::vector<std::string>() : std::vector(count, prefix_);
    }
    std::vector<std::string> lines(count);
    for (std::string& line : lines) {
      HEADLOOM_CHECK(reader_->next(line), path_, "a prefix for each line of the input",
                     cat(reader_->number(), " lines"));
    }
    return lines;
  }

 private:
  std::string prefix_, path_;
  std::ifstream file_;
  std::optional<text::LineReader> reader_;
};

std::string output_of(const std::vector<tasks::Translation>& translations, int64_t line,
                      bool listing) {
  if (!listing) return (translations.empty() ? "" : translations[0].text) + '\n';
  std::string text;
  for (const tasks::Translation& translation : translations) {
    char score[32];
    std::snprintf(score, sizeof score, "%.6f", translation.score);
    text += cat(line, " ||| ", translation.text, " ||| ", score, '\n');
  }
  return text;
}

// On standard error: standard output has the translations.
void report_speed(int64_t sentences, double seconds, const nn::BeamOptions& beam) {
  char rate[32];
  std::snprintf(rate, sizeof rate, "%.2f", static_cast<double>(sentences) / seconds);
  std::fprintf(stderr, "%lld sentences in %.3f s: %s sentences/s (beam %lld, %s)\n",
               static_cast<long long>(sentences), seconds, rate, static_cast<long long>(beam.beam),
               beam.cache ? "cached states" : "no cache");
}

int translate_command(const Arguments& arguments) {
  HEADLOOM_CHECK(arguments.window >= 1, "translate", "--window from 1 on", cat(arguments.window));
  HEADLOOM_CHECK(arguments.translate.batch_tokens >= 1, "translate", "--batch-tokens from 1 on",
                 cat(arguments.translate.batch_tokens));
  Prefixes prefixes(arguments);
  const train::LoadedRun run =
      train::load_run(arguments.folder, arguments.overrides, arguments.weights);
  const auto* translator = dynamic_cast<const tasks::TextTranslator*>(run.task.get());
  HEADLOOM_CHECK(translator, "translate", "a run of a task that translates",
                 cat("task ", run.task->name()), "Train a model of translation or text_to_text.");
  tasks::TranslateOptions options = arguments.translate;
  options.beam = beam_options(arguments, translator->beam_options());
  int64_t sentences = 0;
  std::chrono::duration<double> elapsed{0.0};
  for_windows(STDIN_FILENO, "standard input", arguments.window, [&](const LineWindow& window) {
    options.prefixes = prefixes.next(window.lines.size());
    const auto begin = std::chrono::steady_clock::now();
    const auto translations =
        translator->translate(*run.model, window.lines, options, window.first);
    elapsed += std::chrono::steady_clock::now() - begin;
    std::string text;
    for (size_t i = 0; i < translations.size(); ++i) {
      text += output_of(translations[i], window.first - 1 + static_cast<int64_t>(i),
                        arguments.n_best.has_value());
    }
    sentences += static_cast<int64_t>(window.lines.size());
    print(text);
  });
  if (arguments.report_speed) report_speed(sentences, elapsed.count(), options.beam);
  return kDone;
}

void add_search_options(CLI::App* command, Arguments& arguments) {
  command->add_option("--beam", arguments.beam,
                      "Hypotheses kept at each step; 1 is greedy (default: the recipe's)");
  command
      ->add_option("--length-penalty", arguments.length_penalty,
                   "What scores are divided by: average (L^a, as fairseq) or gnmt (((5+L)/6)^a) "
                   "(default: the recipe's)")
      ->check(CLI::IsMember({"average", "gnmt"}));
  command->add_option("--alpha", arguments.alpha,
                      "a of the length penalty; 0: none (default: the recipe's)");
  command->add_option("--n-best", arguments.n_best,
                      "Print this many translations, each as NUMBER ||| TEXT ||| SCORE with the "
                      "number of its line from 0");
  command->add_option("--min-length", arguments.min_length, "Tokens of a translation (default: 0)");
  command->add_option("--no-repeat-ngram", arguments.no_repeat_ngram,
                      "No n tokens in a row twice; 0 allows all (default: the recipe's)");
  command->add_option("--prefix", arguments.prefix, "Text that every translation begins with");
  command->add_option("--prefix-file", arguments.prefix_file,
                      "File with what the translation of each line begins with");
}

}  // namespace

void add_translate(CLI::App& app, Action& action) {
  CLI::App* command = add_command(
      app, "translate",
      "Translate standard input to standard output, line by line, with the model of a run.",
      {"headloom translate runs/multi30k < test.en > test.out",
       "headloom translate runs/multi30k --beam 1 --weights average.safetensors < test.en",
       "echo \"a man sleeps .\" | headloom translate runs/multi30k --n-best 3 --prefix \"ein "
       "mann\"",
       "headloom translate runs/multi30k --report-speed --no-cache < test.en > /dev/null"},
      "Lines come out in the order in which they came in; an empty line gives an empty line. Bytes "
      "that are\nnot UTF-8 are read as U+FFFD, line ends may be \\n or \\r\\n.");
  const auto arguments = std::make_shared<Arguments>();
  command->add_option("FOLDER", arguments->folder, "Folder of a run")->required();
  command->add_option("--weights", arguments->weights,
                      "best, newest or a safetensors file (default: best)");
  add_search_options(command, *arguments);
  command
      ->add_option("--window", arguments->window,
                   "Lines that are sorted by length together; fewer when the input pauses")
      ->capture_default_str();
  command
      ->add_option("--batch-tokens", arguments->translate.batch_tokens,
                   "Tokens of a batch, hypotheses and padding included")
      ->capture_default_str();
  command->add_flag("--crop", arguments->translate.crop,
                    "Cut lines that are too long for the model instead of refusing them");
  command->add_flag("--no-cache", arguments->no_cache,
                    "Decode whole prefixes again at each step: slow, for comparison");
  command->add_flag("--report-speed", arguments->report_speed,
                    "Print sentences per second on standard error, loading left out");
  add_overrides(command, arguments->overrides);
  command->callback(
      [arguments, &action] { action = [arguments] { return translate_command(*arguments); }; });
}

}  // namespace headloom::cli
