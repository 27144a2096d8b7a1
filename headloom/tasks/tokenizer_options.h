#pragma once

#include <functional>
#include <optional>
#include <string>

#include "headloom/base/options.h"
#include "headloom/tasks/task.h"
#include "headloom/text/tokenizer_trainer.h"

namespace headloom::tasks {

// How a task of words gets its tokenizer.
struct TokenizerOptions {
  std::string file;  // a tokenizer.json; empty: learned anew each time
  text::Algorithm algorithm = text::Algorithm::kWordPiece;
  bool lowercase = true;
  int64_t vocabulary = 8'000;  // tokens to learn; rows of the embedding
};

// The lines that describe the options in `headloom list`.
extern const char* const kTokenizerHelp;

TokenizerOptions read_tokenizer_options(OptionReader& reader, const std::string& where);

// The name of a run's tokenizer in its folder.
constexpr const char* kKeptTokenizer = "tokenizer.json";

// The tokenizer that is there already, by open_tokenizer()'s rule, or nothing.
std::optional<text::Tokenizer> stored_tokenizer(const TokenizerOptions& options,
                                                const TaskConfig& config, const std::string& where);

// The tokenizer that the run kept, else that of the file, else, without a name, that of the run
// that the first weights come from. When there is none, one is learned from what `add_text` adds,
// which does not depend on anything else, and written under the name. Refuses one with more tokens
// than `vocabulary`.
text::Tokenizer open_tokenizer(const TokenizerOptions& options, const TaskConfig& config,
                               const std::function<void(text::TokenizerTrainer&)>& add_text,
                               const std::string& where);

// Writes it into the folder of a run, unless one is there.
void keep_tokenizer(const text::Tokenizer& tokenizer, const std::string& run_folder);

}  // namespace headloom::tasks
