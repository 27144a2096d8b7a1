#include <CLI/CLI.hpp>

#include "headloom/base/check.h"
#include "headloom/cli/app.h"
#include "headloom/cli/data.h"
#include "headloom/cli/output.h"
#include "headloom/text/tokenizer_trainer.h"

namespace headloom::cli {
namespace {

struct Arguments {
  std::string algorithm = "bpe";
  std::vector<std::string> inputs;
  std::string output;
  bool cased = false, strict = false;
  text::TokenizerTrainerOptions options;
};

int tokenizer_command(const Arguments& arguments) {
  text::TokenizerTrainerOptions options = arguments.options;
  const bool bpe = arguments.algorithm == "bpe";
  options.algorithm = bpe ? text::Algorithm::kBpe : text::Algorithm::kWordPiece;
  options.lowercase = !arguments.cased;
  text::TokenizerTrainer trainer(options);
  for (const std::string& path : arguments.inputs) {
    text::LineReader lines = open_lines(path, arguments.strict);
    trainer.add(lines);
  }
  const text::Tokenizer tokenizer = trainer.train();
  write_file(arguments.output, tokenizer.to_json());
  std::string note;
  if (tokenizer.size() < options.size) note = cat("; no more pairs to merge for ", options.size);
  if (trainer.skipped() > 0) {
    note += cat("; ", trainer.skipped(), " words of more than ",
                text::TokenizerTrainer::kLongestWord, " bytes left out");
  }
  print(cat(arguments.output, ": ", tokenizer.size(), " tokens from ", trainer.words(), " words",
            note, '\n'));
  return kDone;
}

}  // namespace

void add_data_tokenizer(CLI::App& data, Action& action) {
  CLI::App* command = add_command(
      data, "tokenizer", "Learn a tokenizer from text and write it as tokenizer.json.",
      {"headloom data tokenizer --algorithm bpe --size 8000 --input train.en train.de --output "
       "tokenizer.json",
       "headloom data tokenizer --algorithm wordpiece --size 30000 --cased --input wiki.txt "
       "--output tokenizer.json",
       "xz -dc wiki.txt.xz | headloom data tokenizer --input - --output tokenizer.json"},
      "bpe: byte-level byte-pair encoding as in GPT-2; every text has ids. wordpiece: as in BERT.\n"
      "Lines end with LF or CRLF; invalid UTF-8 is repaired (U+FFFD) unless --strict is given.");
  const auto arguments = std::make_shared<Arguments>();
  text::TokenizerTrainerOptions& options = arguments->options;
  command->add_option("--algorithm", arguments->algorithm, "bpe or wordpiece")
      ->check(CLI::IsMember({"bpe", "wordpiece"}))
      ->capture_default_str();
  command->add_option("--size", options.size, "Tokens, special ones included")
      ->capture_default_str();
  command->add_option("--input", arguments->inputs, "Text files; - is standard input")
      ->required()
      ->type_name("FILE");
  command->add_option("--output", arguments->output, "The file to write")
      ->required()
      ->type_name("FILE");
  command
      ->add_option("--min-frequency", options.min_frequency,
                   "Pairs that occur less often are not merged")
      ->capture_default_str();
  command
      ->add_option(
          "--special", options.special,
          "Special tokens, the first ids (default: <s> <pad> </s> <unk> <mask>; wordpiece: "
          "[PAD] [UNK] [CLS] [SEP] [MASK])")
      ->type_name("TOKEN");
  command->add_flag("--prefix-space", options.prefix_space,
                    "bpe: treat the first word of a line like any other");
  command->add_flag("--cased", arguments->cased, "wordpiece: keep capital letters and accents");
  command
      ->add_option("--alphabet-limit", options.alphabet_limit,
                   "wordpiece: most frequent characters to keep; 0 keeps all")
      ->capture_default_str();
  add_strict(command, arguments->strict);
  command->callback(
      [arguments, &action] { action = [arguments] { return tokenizer_command(*arguments); }; });
}

}  // namespace headloom::cli
