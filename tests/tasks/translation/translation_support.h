#pragma once

#include <torch/torch.h>

#include <random>
#include <sstream>

#include "headloom/tasks/translation/translation_task.h"
#include "headloom/text/tokenizer_trainer.h"
#include "tests/tasks/support.h"

// Number words and the digits for them.
namespace headloom::tasks::translation {

inline const char* const kWords[] = {"zero", "one", "two",   "three", "four",
                                     "five", "six", "seven", "eight", "nine"};

struct NumberText {
  std::string words, digits;
};

inline NumberText number_text(int64_t lines, int64_t seed) {
  NumberText text;
  std::mt19937 random(static_cast<uint32_t>(seed));
  for (int64_t line = 0; line < lines; ++line) {
    std::string words, digits;
    const uint32_t count = 1 + random() % 5;
    for (uint32_t i = 0; i < count; ++i) {
      const uint32_t digit = random() % 10;
      words += (i ? " " : "") + std::string(kWords[digit]);
      digits += (i ? " " : "") + std::to_string(digit);
    }
    text.words += words + '\n';
    text.digits += digits + '\n';
  }
  return text;
}

inline std::string number_tokenizer() {
  text::TokenizerTrainerOptions options;
  options.size = 320;  // whole words
  options.prefix_space = true;
  text::TokenizerTrainer trainer(options);
  const NumberText text = number_text(100, 0);
  for (const std::string& lines : {text.words, text.digits}) {
    std::istringstream stream(lines);
    for (std::string line; std::getline(stream, line);) trainer.add(line);
  }
  return trainer.train().to_json();
}

// A folder with texts and a tokenizer, and a task of them.
class NumberFolder {
 public:
  explicit NumberFolder(int64_t train_lines = 200, int64_t validation_lines = 20) {
    const NumberText train = number_text(train_lines, 0);
    const NumberText validation = number_text(validation_lines, 3);
    folder_.write("tokenizer.json", number_tokenizer());
    folder_.write("train.words", train.words);
    folder_.write("train.digits", train.digits);
    folder_.write("validation.words", validation.words);
    folder_.write("validation.digits", validation.digits);
  }

  const TempFolder& files() const { return folder_; }
  TaskConfig config() const {
    TaskConfig config;
    config.base_folder = folder_.path().string();
    return config;
  }
  static Options options() {
    return {{"tokenizer", std::string("tokenizer.json")},
            {"train_source", std::string("train.words")},
            {"train_target", std::string("train.digits")},
            {"validation_source", std::string("validation.words")},
            {"validation_target", std::string("validation.digits")},
            {"max_tokens", int64_t{256}},
            {"longest", int64_t{64}},
            {"bleu_tokenizer", std::string("none")}};
  }
  std::unique_ptr<Task> make(const Options& changes = {}) const {
    Options all = options();
    for (const auto& [key, value] : changes) all[key] = value;
    return make_task("translation", config(), all);
  }

 private:
  TempFolder folder_;
};

inline nn::TransformerConfig small_model() {
  nn::TransformerConfig config;
  config.dim = 32;
  config.layers = 1;
  config.heads = 2;
  config.ffn = 64;
  config.norm = "post";
  config.positions = "sinusoidal";
  config.activation = "relu";
  config.max_length = 64;
  return config;
}

inline const TranslationTask& as_translation(const Task& task) {
  return dynamic_cast<const TranslationTask&>(task);
}

}  // namespace headloom::tasks::translation
