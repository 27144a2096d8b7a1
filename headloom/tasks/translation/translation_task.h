#pragma once

#include <mutex>
#include <optional>

#include "headloom/tasks/task.h"
#include "headloom/tasks/token_batches.h"
#include "headloom/tasks/translation/pairs.h"
#include "headloom/text/bleu.h"

// B batch, S source tokens, T target tokens, V target vocabulary.
namespace headloom::tasks {

TaskEntry translation_entry();

namespace translation {

struct TranslationOptions {
  std::string tokenizer;                           // tokenizer.json of a joint vocabulary, or
  std::string source_tokenizer, target_tokenizer;  // one for each language
  int64_t vocabulary = 0;  // tokens of byte-level BPE to learn from the training text when a
                           // tokenizer is not there; 0: it must be there
  // Text files with a sentence a line; line n of one translates line n of the other.
  std::string train_source, train_target;
  std::string validation_source, validation_target;
  std::string test_source, test_target;
  bool evaluate_on_test = false;
  int64_t max_tokens = 4096;  // of a batch: rows times the longest of either side, padding
                              // included; 0: batches of train.batch_size pairs
  int64_t longest = 250;      // training leaves out pairs with more tokens on a side
  double label_smoothing = 0.1;
  bool share_embeddings = false;  // one table for source and target: needs a joint vocabulary
  bool tie_output = true;         // the output projection is the target's embedding
  nn::BeamOptions beam;           // of the closing metrics and of `translate`
  text::BleuOptions bleu;
};

// Sentence pairs for an encoder-decoder model. A source ends in the end token; the decoder reads
// the begin token and the target, and predicts the target and the end. Batches hold pairs of
// similar lengths (token_batches.h); tokens are counted on the target's side. Metrics:
// nats_per_token (the main one, without label smoothing), perplexity, token_accuracy; closing
// metrics, by decoding: bleu, the headline, and chrf. The texts are read when the first batch is
// asked for, so a trained model translates without them; its tokenizers are kept in the folder of
// the run, and those there are used.
class TranslationTask : public Task, public TextTranslator {
 public:
  TranslationTask(const TaskConfig& config, const TranslationOptions& options);

  std::string name() const override { return "translation"; }
  // Refuses a max_length below `longest`, and shared embeddings without a joint vocabulary.
  std::shared_ptr<Model> make_model(nn::TransformerConfig config) const override;

  Batch train_batch(int64_t index) const override;
  int64_t validation_batches() const override;
  Batch validation_batch(int64_t index) const override;

  Loss loss(const at::Tensor& logits, const Batch& batch) const override;
  void measure(const at::Tensor& logits, const Batch& batch, Totals& totals) const override;
  Metrics metrics(const Totals& totals) const override;
  MainMetric main_metric() const override { return {"nats_per_token", false}; }
  std::optional<Metrics> closing_metrics(Model& model,
                                         const std::function<bool()>& stop) const override;
  MainMetric headline() const override { return {"bleu", true}; }
  std::string metrics_note() const override;
  int64_t typical_length() const override;
  void keep(const std::string& run_folder) const override;

  nn::BeamOptions beam_options() const override { return options_.beam; }
  std::vector<std::vector<Translation>> translate(Model& model,
                                                  const std::vector<std::string>& lines,
                                                  const TranslateOptions& options,
                                                  int64_t first_line) const override;
  const Vocabularies& vocabularies() const { return vocabularies_; }

 private:
  struct Data {
    TokenPairs pairs;
    std::unique_ptr<TokenBatches> batches;
  };
  struct Evaluation : Data {
    LinePairs lines;
  };
  // `texts` is what it would be learned from.
  std::shared_ptr<const text::Tokenizer> open_tokenizer(const char* kept_name,
                                                        const std::string& path,
                                                        const std::vector<std::string>& texts);
  std::string learn_tokenizer(const std::vector<std::string>& texts) const;
  const Data& training() const;
  const Evaluation& evaluation() const;
  std::unique_ptr<TokenBatches> batches_of(const TokenPairs& pairs) const;
  Batch make_batch(const TokenPairs& pairs, const std::vector<int64_t>& rows) const;

  TaskConfig config_;
  TranslationOptions options_;
  std::vector<std::pair<std::string, std::string>> kept_;  // name and bytes of each tokenizer
  Vocabularies vocabularies_;
  mutable std::mutex mutex_;
  mutable std::optional<Data> training_;
  mutable std::optional<Evaluation> evaluation_;
};

}  // namespace translation
}  // namespace headloom::tasks
