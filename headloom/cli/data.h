#pragma once

#include <string>

#include "headloom/cli/commands.h"
#include "headloom/text/lines.h"
#include "headloom/text/tokenizer.h"

// The commands below `headloom data`.
namespace headloom::cli {

void add_data_tokenizer(CLI::App& data, Action& action);
void add_data_encode(CLI::App& data, Action& action);
void add_data_decode(CLI::App& data, Action& action);
void add_data_score(CLI::App& data, Action& action);
void add_data_import(CLI::App& data, Action& action);

// The lines of a file, or of standard input when the path is "-".
text::LineReader open_lines(const std::string& path, bool strict);
text::Tokenizer open_tokenizer(const std::string& path);

// --strict, for commands that read text.
void add_strict(CLI::App* command, bool& strict);

}  // namespace headloom::cli
