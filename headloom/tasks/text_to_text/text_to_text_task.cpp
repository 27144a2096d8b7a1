#include "headloom/tasks/text_to_text/text_to_text_task.h"

#include <ATen/ATen.h>

#include "headloom/base/check.h"
#include "headloom/tasks/binary_metrics.h"
#include "headloom/tasks/encoder_decoder_model.h"
#include "headloom/tasks/target_metrics.h"
#include "headloom/tasks/text_to_text/prompts.h"
#include "headloom/tasks/translator.h"

namespace headloom::tasks {
namespace text_to_text {
namespace {

using at::Tensor;

constexpr const char* kWhere = "task text_to_text";

TextToTextOptions read_options(OptionReader& reader) {
  TextToTextOptions options;
  options.glue = read_glue_options(reader);
  options.tokenizer = read_tokenizer_options(reader, kWhere);
  options.t5 = read_t5_options(reader, kWhere);
  const std::vector<std::string>& words = options.glue.format.words;
  options.words = {reader.text("negative", words[0]), reader.text("positive", words[1])};
  reader.done();
  return options;
}

TokenLists chosen(const TokenLists& all, const std::vector<int64_t>& rows) {
  TokenLists some;
  for (const int64_t row : rows) some.push_back(all[static_cast<size_t>(row)]);
  return some;
}

}  // namespace

TextToTextTask::TextToTextTask(const TaskConfig& config, const TextToTextOptions& options)
    : config_(config), options_(options) {
  check_glue_options(options.glue, kWhere);
}

int64_t TextToTextTask::rows_of_embedding() const {
  return embedding_rows(options_.tokenizer, options_.t5, config_, kWhere);
}

std::shared_ptr<Model> TextToTextTask::make_model(nn::TransformerConfig config) const {
  HEADLOOM_CHECK(config.max_length >= options_.glue.max_length, kWhere,
                 cat("model.max_length of at least task.max_length, ", options_.glue.max_length),
                 cat(config.max_length));
  return make_t5_model(config, config_.parts, rows_of_embedding(), options_.t5);
}

const Vocabularies& TextToTextTask::vocabularies() const {
  const std::lock_guard<std::mutex> lock(vocabulary_mutex_);
  if (vocabularies_) return *vocabularies_;
  const auto tokenizer = std::make_shared<const text::Tokenizer>(open_tokenizer(
      options_.tokenizer, config_,
      [&](text::TokenizerTrainer& trainer) {
        add_sentences(load_glue(options_.glue, config_).train, trainer);
      },
      kWhere));
  vocabularies_ = std::make_unique<Vocabularies>(
      t5_vocabularies(tokenizer, rows_of_embedding(), options_.t5, kWhere));
  return *vocabularies_;
}

TextToTextTask::Rows TextToTextTask::encode(const std::vector<ClassifiedTexts>& rows) const {
  Rows encoded;
  for (const ClassifiedTexts& row : rows) {
    encoded.prompts.push_back(prompt(row, options_.glue.format, *vocabularies().source,
                                     options_.glue.max_length - 1, kWhere));
    encoded.classes.push_back(row.label);
  }
  return encoded;
}

TokenLists TextToTextTask::encode_words() const {
  TokenLists words;
  for (const std::string& word : options_.words) {
    words.push_back(vocabularies().target->encode(word));
  }
  HEADLOOM_CHECK(!words[0].empty() && !words[1].empty() && words[0] != words[1], kWhere,
                 "words for the two classes with tokens that differ",
                 cat('"', options_.words[0], "\" and \"", options_.words[1], '"'),
                 "Set task.negative and task.positive, or take a tokenizer that knows them.");
  return words;
}

TextToTextTask::Data TextToTextTask::read() const {
  const GlueRows rows = load_glue(options_.glue, config_);
  Data data;
  data.words = encode_words();
  data.train = encode(rows.train);
  data.validation = encode(rows.validation);
  data.order = std::make_unique<EpochOrder>(lengths_of(data.train.prompts), config_.batch_size,
                                            options_.glue.bucket_batches, config_.seed);
  data.validation_batches =
      batches_by_length(lengths_of(data.validation.prompts), config_.batch_size);
  return data;
}

const TextToTextTask::Data& TextToTextTask::data() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (!data_) data_ = std::make_unique<Data>(read());
  return *data_;
}

Batch TextToTextTask::train_batch(int64_t index) const {
  const Data& data = this->data();
  const std::vector<int64_t> rows = data.order->batch(index);
  TokenLists targets;
  for (const int64_t row : rows) targets.push_back(data.words[data.train.classes[row]]);
  return pair_batch(chosen(data.train.prompts, rows), targets, vocabularies());
}

int64_t TextToTextTask::validation_batches() const {
  return static_cast<int64_t>(data().validation_batches.size());
}

Batch TextToTextTask::validation_batch(int64_t index) const {
  const Data& data = this->data();
  HEADLOOM_CHECK(index >= 0 && index < validation_batches(), kWhere,
                 cat("a validation batch below ", validation_batches()), cat(index));
  const std::vector<int64_t>& rows = data.validation_batches[static_cast<size_t>(index)];
  // The pairs' other side is the words of all classes, the same for each prompt.
  Batch batch = pair_batch(chosen(data.validation.prompts, rows), data.words, vocabularies());
  batch.choices = batch.targets;
  batch.targets = at::empty({static_cast<int64_t>(rows.size())}, at::kLong);
  for (size_t b = 0; b < rows.size(); ++b) {
    batch.targets.data_ptr<int64_t>()[b] = data.validation.classes[rows[b]];
  }
  batch.token_count *= static_cast<int64_t>(rows.size());
  return batch;
}

Loss TextToTextTask::loss(const Tensor& logits, const Batch& batch) const {
  return target_loss(logits, batch, /*label_smoothing=*/0.0);
}

void TextToTextTask::measure(const Tensor& logits, const Batch& batch, Totals& totals) const {
  add_binary(logits, batch.targets, totals);
}

Metrics TextToTextTask::metrics(const Totals& totals) const {
  return binary_metrics(totals);
}

std::string TextToTextTask::metrics_note() const {
  return cat("classes by the probability of \"", options_.words[0], "\" and \"", options_.words[1],
             "\" after the text; loss: negative log-likelihood in nats; ece: per cent, ten bins");
}

void TextToTextTask::keep(const std::string& run_folder) const {
  keep_tokenizer(*vocabularies().source, run_folder);
}

int64_t TextToTextTask::typical_length() const {
  return mean_length(data().validation.prompts) + 1;
}

std::vector<std::vector<Translation>> TextToTextTask::translate(
    Model& model, const std::vector<std::string>& lines, const TranslateOptions& options,
    int64_t first_line) const {
  return translate_lines(model, vocabularies(), lines, options, first_line);
}

}  // namespace text_to_text

TaskEntry text_to_text_entry() {
  TaskEntry entry;
  entry.name = "text_to_text";
  entry.summary =
      "two classes of sentences or pairs of them, in GLUE's file shapes, as T5 is fine-tuned: "
      "answers in words";
  entry.options =
      cat(kGlueHelp, kTokenizerHelp,
          "negative, positive (T5's): what the model answers for classes 0 and 1\n", kT5Help);
  entry.make = [](const TaskConfig& config, OptionReader& reader) -> std::unique_ptr<Task> {
    return std::make_unique<text_to_text::TextToTextTask>(config,
                                                          text_to_text::read_options(reader));
  };
  entry.encoder_decoder = true;
  return entry;
}

}  // namespace headloom::tasks
