#include <CLI/CLI.hpp>
#include <charconv>

#include "headloom/base/check.h"
#include "headloom/cli/app.h"
#include "headloom/cli/data.h"
#include "headloom/cli/output.h"
#include "headloom/tasks/files.h"

namespace headloom::cli {
namespace {

struct Arguments {
  std::string tokenizer;
  bool special = false, tokens = false, strict = false;
};

int encode_command(const Arguments& arguments) {
  const text::Tokenizer tokenizer = open_tokenizer(arguments.tokenizer);
  text::LineReader lines = open_lines("-", arguments.strict);
  for (std::string line; lines.next(line);) {
    const std::vector<int64_t> ids =
        arguments.special ? tokenizer.encode_single(line).ids : tokenizer.encode(line);
    std::string row;
    for (const int64_t id : ids) {
      if (!row.empty()) row += ' ';
      row += arguments.tokens ? *tokenizer.token(id) : std::to_string(id);
    }
    print(row + '\n');
  }
  return kDone;
}

std::vector<int64_t> read_ids(std::string_view line, const std::string& where) {
  std::vector<int64_t> ids;
  while (true) {
    const size_t begin = line.find_first_not_of(' ');
    if (begin == std::string_view::npos) return ids;
    line.remove_prefix(begin);
    const std::string_view word = line.substr(0, line.find(' '));
    int64_t id = 0;
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), id);
    HEADLOOM_CHECK(error == std::errc() && end == word.data() + word.size(), where,
                   "ids with spaces between", tasks::excerpt(word));
    ids.push_back(id);
    line.remove_prefix(word.size());
  }
}

int decode_command(const Arguments& arguments) {
  const text::Tokenizer tokenizer = open_tokenizer(arguments.tokenizer);
  text::LineReader lines = open_lines("-", false);
  for (std::string line; lines.next(line);) {
    const std::string where = cat("standard input:", lines.number());
    const std::vector<int64_t> ids = read_ids(line, where);
    for (const int64_t id : ids) {
      HEADLOOM_CHECK(tokenizer.token(id), where, cat("ids of tokens, below ", tokenizer.size()),
                     cat(id));
    }
    print(tokenizer.decode(ids, !arguments.special) + '\n');
  }
  return kDone;
}

void add_tokenizer(CLI::App* command, Arguments& arguments) {
  command->add_option("--tokenizer", arguments.tokenizer, "A tokenizer.json")
      ->required()
      ->type_name("FILE");
}

}  // namespace

void add_data_encode(CLI::App& data, Action& action) {
  CLI::App* command = add_command(
      data, "encode", "Turn lines of standard input into lines of token ids.",
      {"headloom data encode --tokenizer tokenizer.json <text.txt >ids.txt",
       "echo \"Two dogs.\" | headloom data encode --tokenizer tokenizer.json --tokens"});
  const auto arguments = std::make_shared<Arguments>();
  add_tokenizer(command, *arguments);
  command->add_flag("--special-tokens", arguments->special,
                    "Put the tokenizer's special tokens around each line");
  command->add_flag("--tokens", arguments->tokens, "Print tokens instead of ids");
  add_strict(command, arguments->strict);
  command->callback(
      [arguments, &action] { action = [arguments] { return encode_command(*arguments); }; });
}

void add_data_decode(CLI::App& data, Action& action) {
  CLI::App* command =
      add_command(data, "decode", "Turn lines of token ids back into text.",
                  {"headloom data decode --tokenizer tokenizer.json <ids.txt >text.txt"});
  const auto arguments = std::make_shared<Arguments>();
  add_tokenizer(command, *arguments);
  command->add_flag("--special-tokens", arguments->special, "Print special tokens too");
  command->callback(
      [arguments, &action] { action = [arguments] { return decode_command(*arguments); }; });
}

}  // namespace headloom::cli
