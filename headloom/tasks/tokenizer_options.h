#pragma once

#include <functional>
#include <string>

#include "headloom/base/options.h"
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

// The tokenizer of the file. When it is not there, or there is no name, one is learned from what
// `add_text` adds, which does not depend on anything else, and written under the name. Refuses one
// with more tokens than `vocabulary`.
text::Tokenizer open_tokenizer(const TokenizerOptions& options, const std::string& base_folder,
                               const std::function<void(text::TokenizerTrainer&)>& add_text,
                               const std::string& where);

}  // namespace headloom::tasks
