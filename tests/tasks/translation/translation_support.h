#pragma once

#include <torch/torch.h>

#include "headloom/tasks/translation/translation_task.h"
#include "headloom/text/tokenizer_trainer.h"
#include "tests/tasks/support.h"

// Number words and the digits for them, in reverse order.
namespace headloom::tasks::translation {

inline const char* const kWords[] = {"zero", "one", "two",   "three", "four",
                                     "five", "six", "seven", "eight", "nine"};

struct NumberText {
  std::string words, digits;
};

inline NumberText number_text(int64_t lines, int64_t seed) {
  NumberText text;
  for (int64_t line = 0; line < lines; ++line) {
    std::string words, digits;
    const int64_t count = 1 + (line + seed) % 5;
    for (int64_t i = 0; i < count; ++i) {
      const int64_t digit = (line * 7 + i * (line / 3 + 3) + seed * 5 + line * line / 7) % 10;
      words += (i ? " " : "") + std::string(kWords[digit]);
      digits = std::to_string(digit) + (i ? " " : "") + digits;
    }
    text.words += words + '\n';
    text.digits += digits + '\n';
  }
  return text;
}

inline std::string number_tokenizer() {
  text::TokenizerTrainerOptions options;
  options.size = 290;
  options.prefix_space = true;
  text::TokenizerTrainer trainer(options);
  const NumberText text = number_text(100, 0);
  trainer.add(text.words);
  trainer.add(text.digits);
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
