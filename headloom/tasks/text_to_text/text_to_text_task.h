#pragma once

#include <memory>
#include <mutex>

#include "headloom/tasks/glue.h"
#include "headloom/tasks/order.h"
#include "headloom/tasks/t5_vocabulary.h"

// B batch, K classes.
namespace headloom::tasks {

TaskEntry text_to_text_entry();

namespace text_to_text {

struct TextToTextOptions {
  GlueOptions glue;
  TokenizerOptions tokenizer;
  T5Options t5;
  std::vector<std::string> words;  // what the model answers, by class
};

// GLUE's tasks of two classes from text to text, as T5 is fine-tuned: the encoder reads a row
// worded as a prompt (prompts.h), and the decoder learns to write the word of its class. A row's
// class is the one whose whole text, its end included, is most probable after the prompt: exact, no
// search. The logarithms of these probabilities are the logits [B, K] of the measures, which are
// those of the task classification: loss, accuracy, f1, matthews, ece. Training minimises the cross
// entropy of the right word's tokens; tokens are counted on the target's side. Data is read when
// first asked for; a trained model answers lines of text without it.
class TextToTextTask : public Task, public TextTranslator {
 public:
  TextToTextTask(const TaskConfig& config, const TextToTextOptions& options);

  std::string name() const override { return "text_to_text"; }
  // Refuses a model.max_length below the task's.
  std::shared_ptr<Model> make_model(nn::TransformerConfig config) const override;

  Batch train_batch(int64_t index) const override;
  int64_t validation_batches() const override;
  // Classes as targets [B] and their words as choices.
  Batch validation_batch(int64_t index) const override;

  Loss loss(const at::Tensor& logits, const Batch& batch) const override;  // of training batches
  void measure(const at::Tensor& logits, const Batch& batch, Totals& totals) const override;
  Metrics metrics(const Totals& totals) const override;
  MainMetric main_metric() const override { return {options_.glue.metric, true}; }
  std::string metrics_note() const override;
  void keep(const std::string& run_folder) const override;  // the tokenizer
  int64_t typical_length() const override;                  // mean of the validation's prompts

  // Lines are whole prompts.
  nn::BeamOptions beam_options() const override { return {}; }
  std::vector<std::vector<Translation>> translate(Model& model,
                                                  const std::vector<std::string>& lines,
                                                  const TranslateOptions& options,
                                                  int64_t first_line) const override;
  const Vocabularies& vocabularies() const;

 private:
  struct Rows {
    TokenLists prompts;
    std::vector<int64_t> classes;
  };
  struct Data {
    Rows train, validation;
    TokenLists words;  // by class
    std::unique_ptr<EpochOrder> order;
    std::vector<std::vector<int64_t>> validation_batches;
  };
  const Data& data() const;
  Data read() const;
  Rows encode(const std::vector<ClassifiedTexts>& rows) const;
  TokenLists encode_words() const;
  int64_t rows_of_embedding() const;

  TaskConfig config_;
  TextToTextOptions options_;
  mutable std::mutex vocabulary_mutex_, mutex_;
  mutable std::unique_ptr<Vocabularies> vocabularies_;
  mutable std::unique_ptr<Data> data_;
};

}  // namespace text_to_text
}  // namespace headloom::tasks
