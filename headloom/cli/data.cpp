#include "headloom/cli/data.h"

#include <unistd.h>

#include <CLI/CLI.hpp>

#include "headloom/tasks/files.h"

namespace headloom::cli {

text::LineReader open_lines(const std::string& path, bool strict) {
  text::LineOptions options;
  if (strict) options.invalid = text::InvalidUtf8::kRefuse;
  if (path == "-") {
    return {text::source_of_descriptor(STDIN_FILENO), "standard input", options};
  }
  return {text::source_of(tasks::read_file(path)), path, options};
}

text::Tokenizer open_tokenizer(const std::string& path) {
  return text::Tokenizer::parse(tasks::read_file(path), path);
}

void add_strict(CLI::App* command, bool& strict) {
  command->add_flag("--strict", strict,
                    "Refuse text that is not valid UTF-8 instead of repairing it");
}

void add_data(CLI::App& app, Action& action) {
  CLI::App* data =
      add_command(app, "data", "Prepare text, score it, import models.",
                  {"headloom data tokenizer --algorithm bpe --size 8000 --input train.txt --output "
                   "tokenizer.json",
                   "headloom data encode --tokenizer tokenizer.json <text.txt >ids.txt",
                   "headloom data score --metric bleu --references test.de <translated.de",
                   "headloom data import bert-base-uncased --output runs/bert"});
  data->require_subcommand(1);
  add_data_tokenizer(*data, action);
  add_data_encode(*data, action);
  add_data_decode(*data, action);
  add_data_score(*data, action);
  add_data_import(*data, action);
}

}  // namespace headloom::cli
