#include "headloom/tasks/tokenizer_options.h"

#include <filesystem>
#include <optional>

#include "headloom/base/check.h"
#include "headloom/tasks/files.h"

namespace headloom::tasks {
namespace {

std::optional<std::filesystem::path> find_tokenizer(const TokenizerOptions& options,
                                                    const TaskConfig& config) {
  std::vector<std::filesystem::path> places;
  if (!config.run_folder.empty()) {
    places.push_back(std::filesystem::path(config.run_folder) / kKeptTokenizer);
  }
  if (!options.file.empty()) {
    places.push_back(resolve(config.base_folder, options.file));
  } else if (!config.initial_folder.empty()) {
    places.push_back(std::filesystem::path(config.initial_folder) / kKeptTokenizer);
  }
  for (const std::filesystem::path& place : places) {
    if (std::filesystem::exists(place)) return place;
  }
  return std::nullopt;
}

}  // namespace

const char* const kTokenizerHelp =
    "tokenizer (none): a tokenizer.json; one that is not there is learned from the training text "
    "and written; without a name it is that of model.initial, or learned\n"
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

std::optional<text::Tokenizer> stored_tokenizer(const TokenizerOptions& options,
                                                const TaskConfig& config,
                                                const std::string& where) {
  const std::optional<std::filesystem::path> found = find_tokenizer(options, config);
  if (!found) return std::nullopt;
  text::Tokenizer tokenizer = text::Tokenizer::parse(read_file(*found), found->string());
  HEADLOOM_CHECK(
      tokenizer.size() <= options.vocabulary, where,
      cat("vocabulary of at least ", tokenizer.size(), ", the tokens of ", found->string()),
      cat(options.vocabulary), "Change task.vocabulary, or name another tokenizer.");
  return tokenizer;
}

text::Tokenizer open_tokenizer(const TokenizerOptions& options, const TaskConfig& config,
                               const std::function<void(text::TokenizerTrainer&)>& add_text,
                               const std::string& where) {
  if (auto stored = stored_tokenizer(options, config, where)) return std::move(*stored);
  text::TokenizerTrainerOptions trainer_options;
  trainer_options.algorithm = options.algorithm;
  trainer_options.size = options.vocabulary;
  trainer_options.lowercase = options.lowercase;
  text::TokenizerTrainer trainer(trainer_options);
  add_text(trainer);
  text::Tokenizer tokenizer = trainer.train();
  if (!options.file.empty()) {
    write_file(resolve(config.base_folder, options.file), tokenizer.to_json());
  }
  return tokenizer;
}

void keep_tokenizer(const text::Tokenizer& tokenizer, const std::string& run_folder) {
  const std::filesystem::path path = std::filesystem::path(run_folder) / kKeptTokenizer;
  if (!std::filesystem::exists(path)) write_file(path, tokenizer.to_json());
}

}  // namespace headloom::tasks
