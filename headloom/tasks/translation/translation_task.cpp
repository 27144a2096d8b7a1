#include "headloom/tasks/translation/translation_task.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "headloom/base/check.h"
#include "headloom/tasks/encoder_decoder_model.h"
#include "headloom/tasks/files.h"
#include "headloom/tasks/target_metrics.h"
#include "headloom/tasks/translator.h"
#include "headloom/text/chrf.h"
#include "headloom/text/tokenizer_trainer.h"

namespace headloom::tasks::translation {
namespace {

using at::Tensor;

constexpr const char* kWhere = "task translation";

void check_stated(const char* key, const std::string& value) {
  HEADLOOM_CHECK(!value.empty(), kWhere, cat(key, ", a text file"), "none");
}

int64_t length_with_end(const TokenRows& rows, int64_t row) {
  return rows.length(row) + 1;
}

// The pairs that training takes: no empty side, and none too long.
TokenPairs trainable(const TokenPairs& all, int64_t longest) {
  TokenPairs kept;
  for (int64_t row = 0; row < all.size(); ++row) {
    const int64_t shorter = std::min(all.source.length(row), all.target.length(row));
    const int64_t longer =
        std::max(length_with_end(all.source, row), length_with_end(all.target, row));
    if (shorter == 0 || longer > longest) continue;
    kept.source.add(all.source.row(row));
    kept.target.add(all.target.row(row));
  }
  return kept;
}

}  // namespace

TranslationTask::TranslationTask(const TaskConfig& config, const TranslationOptions& options)
    : config_(config), options_(options) {
  const bool joint = !options.tokenizer.empty();
  const bool both = !options.source_tokenizer.empty() && !options.target_tokenizer.empty();
  const bool any = !options.source_tokenizer.empty() || !options.target_tokenizer.empty();
  HEADLOOM_CHECK(joint ? !any : both, kWhere, "tokenizer, or source_tokenizer and target_tokenizer",
                 joint ? "tokenizer and another"
                 : any ? "one of the two"
                       : "none",
                 "`headloom data tokenizer` makes one, and so does task.vocabulary.");
  HEADLOOM_CHECK(options.vocabulary >= 0, kWhere, "vocabulary of at least 0",
                 cat(options.vocabulary));
  HEADLOOM_CHECK(options.longest >= 2, kWhere, "longest of at least 2", cat(options.longest));
  HEADLOOM_CHECK(options.max_tokens == 0 || options.max_tokens >= options.longest, kWhere,
                 cat("max_tokens of at least longest = ", options.longest,
                     ", or 0 for batches of train.batch_size"),
                 cat(options.max_tokens));
  HEADLOOM_CHECK(options.label_smoothing >= 0.0 && options.label_smoothing < 1.0, kWhere,
                 "label_smoothing in [0, 1)", cat(options.label_smoothing));
  HEADLOOM_CHECK(joint || !options.share_embeddings, kWhere,
                 "tokenizer, a joint vocabulary, with share_embeddings",
                 "source_tokenizer and target_tokenizer");
  if (joint) {
    const auto tokenizer = open_tokenizer("tokenizer.json", options.tokenizer,
                                          {options.train_source, options.train_target});
    vocabularies_ = make_vocabularies(tokenizer, tokenizer, options.tokenizer);
  } else {
    const auto source =
        open_tokenizer("source_tokenizer.json", options.source_tokenizer, {options.train_source});
    const auto target =
        open_tokenizer("target_tokenizer.json", options.target_tokenizer, {options.train_target});
    vocabularies_ = make_vocabularies(source, target, kWhere);
  }
}

std::string TranslationTask::learn_tokenizer(const std::vector<std::string>& texts) const {
  text::TokenizerTrainerOptions options;
  options.size = options_.vocabulary;
  options.prefix_space = true;  // a word is the same at the start of a sentence
  text::TokenizerTrainer trainer(options);
  for (const std::string& text : texts) {
    check_stated("training text for the vocabulary", text);
    for (const std::string& line : read_lines(resolve(config_.base_folder, text))) {
      trainer.add(line);
    }
  }
  return trainer.train().to_json();
}

std::shared_ptr<const text::Tokenizer> TranslationTask::open_tokenizer(
    const char* kept_name, const std::string& path, const std::vector<std::string>& texts) {
  std::filesystem::path file = resolve(config_.base_folder, path);
  if (!config_.run_folder.empty()) {
    const auto kept = std::filesystem::path(config_.run_folder) / kept_name;
    if (std::filesystem::exists(kept)) file = kept;
  }
  if (options_.vocabulary > 0 && !std::filesystem::exists(file)) {
    write_file(file, learn_tokenizer(texts));
  }
  kept_.emplace_back(kept_name, read_file(file));
  return std::make_shared<const text::Tokenizer>(
      text::Tokenizer::parse(kept_.back().second, file.string()));
}

void TranslationTask::keep(const std::string& run_folder) const {
  for (const auto& [name, bytes] : kept_) {
    const auto path = std::filesystem::path(run_folder) / name;
    if (!std::filesystem::exists(path)) write_file(path, bytes);
  }
}

std::shared_ptr<Model> TranslationTask::make_model(nn::TransformerConfig config) const {
  HEADLOOM_CHECK(config.max_length >= options_.longest, kWhere,
                 cat("model.max_length of at least task.longest, ", options_.longest),
                 cat(config.max_length));
  nn::EncoderDecoderConfig model = encoder_decoder_config(config, config_.parts);
  model.source_vocabulary = vocabularies_.source->size();
  model.target_vocabulary = vocabularies_.target->size();
  model.share_embeddings = options_.share_embeddings;
  model.tie_output = options_.tie_output;
  return std::make_shared<EncoderDecoderModel>(model);
}

std::unique_ptr<TokenBatches> TranslationTask::batches_of(const TokenPairs& pairs) const {
  TokenBatches::Lengths lengths;
  for (int64_t row = 0; row < pairs.size(); ++row) {
    lengths.emplace_back(length_with_end(pairs.source, row), length_with_end(pairs.target, row));
  }
  return std::make_unique<TokenBatches>(std::move(lengths), options_.max_tokens,
                                        options_.max_tokens == 0 ? config_.batch_size : 0,
                                        config_.seed);
}

const TranslationTask::Data& TranslationTask::training() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (training_) return *training_;
  check_stated("train_source", options_.train_source);
  check_stated("train_target", options_.train_target);
  const auto source = resolve(config_.base_folder, options_.train_source);
  const auto target = resolve(config_.base_folder, options_.train_target);
  const TokenPairs all = tokenize(read_line_pairs(source, target), vocabularies_);
  Data data;
  data.pairs = trainable(all, options_.longest);
  HEADLOOM_CHECK(data.pairs.size() > 0, source.string(),
                 cat("pairs with 1 to task.longest = ", options_.longest, " tokens on each side"),
                 cat("none among ", all.size()));
  data.batches = batches_of(data.pairs);
  training_ = std::move(data);
  return *training_;
}

const TranslationTask::Evaluation& TranslationTask::evaluation() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (evaluation_) return *evaluation_;
  const bool test = options_.evaluate_on_test;
  const std::string& source = test ? options_.test_source : options_.validation_source;
  const std::string& target = test ? options_.test_target : options_.validation_target;
  check_stated(test ? "test_source" : "validation_source", source);
  check_stated(test ? "test_target" : "validation_target", target);
  const auto source_path = resolve(config_.base_folder, source);
  Evaluation data;
  data.lines = read_line_pairs(source_path, resolve(config_.base_folder, target));
  HEADLOOM_CHECK(!data.lines.source.empty(), source_path.string(), "at least one line", "none");
  data.pairs = tokenize(data.lines, vocabularies_);
  for (int64_t row = 0; row < data.pairs.size(); ++row) {
    const int64_t longer =
        std::max(length_with_end(data.pairs.source, row), length_with_end(data.pairs.target, row));
    HEADLOOM_CHECK(longer <= options_.longest, cat(source_path.string(), ':', row + 1),
                   cat("at most task.longest = ", options_.longest, " tokens on each side"),
                   cat(longer), "Raise task.longest, and model.max_length with it.");
  }
  data.batches = batches_of(data.pairs);
  evaluation_ = std::move(data);
  return *evaluation_;
}

Batch TranslationTask::make_batch(const TokenPairs& pairs, const std::vector<int64_t>& rows) const {
  TokenLists sources, targets;
  for (const int64_t row : rows) {
    sources.push_back(pairs.source.row(row));
    targets.push_back(pairs.target.row(row));
  }
  return pair_batch(sources, targets, vocabularies_);
}

Batch TranslationTask::train_batch(int64_t index) const {
  const Data& data = training();
  return make_batch(data.pairs, data.batches->batch(index));
}

int64_t TranslationTask::validation_batches() const {
  return evaluation().batches->batches_per_epoch();
}

Batch TranslationTask::validation_batch(int64_t index) const {
  const Evaluation& data = evaluation();
  const int64_t count = data.batches->batches_per_epoch();
  HEADLOOM_CHECK(index >= 0 && index < count, kWhere, cat("a validation batch below ", count),
                 cat(index));
  return make_batch(data.pairs, data.batches->batch(index));
}

Loss TranslationTask::loss(const Tensor& logits, const Batch& batch) const {
  return target_loss(logits, batch, options_.label_smoothing);
}

void TranslationTask::measure(const Tensor& logits, const Batch& batch, Totals& totals) const {
  measure_targets(logits, batch, totals);
}

Metrics TranslationTask::metrics(const Totals& totals) const {
  return target_metrics(totals);
}

std::optional<Metrics> TranslationTask::closing_metrics(Model& model,
                                                        const std::function<bool()>& stop) const {
  const LinePairs& lines = evaluation().lines;
  TranslateOptions options;
  options.beam = options_.beam;
  const Translator translator(encoder_decoder_of(model), vocabularies_, options);
  const auto translations = translator(lines.source, 1, stop);
  if (!translations) return std::nullopt;
  text::Segments hypotheses;
  for (const auto& best : *translations) {
    hypotheses.push_back(best.empty() ? std::string() : best[0].text);
  }
  return Metrics{{"bleu", text::bleu(hypotheses, {lines.target}, options_.bleu).score},
                 {"chrf", text::chrf(hypotheses, {lines.target})}};
}

std::string TranslationTask::metrics_note() const {
  return cat("bleu: ", text::signature(options_.bleu, 1), ", beam ", options_.beam.beam);
}

int64_t TranslationTask::typical_length() const {
  const TokenPairs& pairs = training().pairs;
  int64_t tokens = 0;
  for (int64_t row = 0; row < pairs.size(); ++row) tokens += length_with_end(pairs.target, row);
  return (tokens + pairs.size() / 2) / pairs.size();
}

std::vector<std::vector<Translation>> TranslationTask::translate(
    Model& model, const std::vector<std::string>& lines, const TranslateOptions& options,
    int64_t first_line) const {
  return translate_lines(model, vocabularies_, lines, options, first_line);
}

}  // namespace headloom::tasks::translation
