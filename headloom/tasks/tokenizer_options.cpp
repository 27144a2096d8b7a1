#include "headloom/tasks/tokenizer_options.h"

#include "headloom/base/check.h"
#include "headloom/tasks/files.h"

namespace headloom::tasks {

const char* const kTokenizerHelp =
    "tokenizer (none): a tokenizer.json; one that is not there is learned from the training text "
    "and written, without a name one is learned at each start\n"
    "tokenizer_algorithm (wordpiece): wordpiece or bpe, when it is learned\n"
    "tokenizer_lowercase (true): wordpiece without capital letters and accents, when it is "
    "learned\n"
    "vocabulary (8000): tokens to learn, rows of the embedding; a tokenizer may have fewer\n";

TokenizerOptions read_tokenizer_options(OptionReader& reader, const std::string& where) {
  TokenizerOptions options;
  options.file = reader.text("tokenizer", options.file);
  const std::string algorithm =
      reader.choice("tokenizer_algorithm", "wordpiece", {"wordpiece", "bpe"});
  options.algorithm = algorithm == "bpe" ? text::Algorithm::kBpe : text::Algorithm::kWordPiece;
  options.lowercase = reader.boolean("tokenizer_lowercase", options.lowercase);
  options.vocabulary = reader.integer("vocabulary", options.vocabulary);
  HEADLOOM_CHECK(options.vocabulary >= 1, where, "vocabulary of at least 1",
                 cat(options.vocabulary));
  return options;
}

text::Tokenizer open_tokenizer(const TokenizerOptions& options, const std::string& base_folder,
                               const std::function<void(text::TokenizerTrainer&)>& add_text,
                               const std::string& where) {
  const std::filesystem::path path = resolve(base_folder, options.file);
  const bool named = !options.file.empty();
  if (named && std::filesystem::exists(path)) {
    text::Tokenizer tokenizer = text::Tokenizer::parse(read_file(path), path.string());
    HEADLOOM_CHECK(
        tokenizer.size() <= options.vocabulary, where,
        cat("vocabulary of at least ", tokenizer.size(), ", the tokens of ", path.string()),
        cat(options.vocabulary), "Change task.vocabulary, or name another tokenizer.");
    return tokenizer;
  }
  text::TokenizerTrainerOptions trainer_options;
  trainer_options.algorithm = options.algorithm;
  trainer_options.size = options.vocabulary;
  trainer_options.lowercase = options.lowercase;
  text::TokenizerTrainer trainer(trainer_options);
  add_text(trainer);
  text::Tokenizer tokenizer = trainer.train();
  if (named) write_file(path, tokenizer.to_json());
  return tokenizer;
}

}  // namespace headloom::tasks
