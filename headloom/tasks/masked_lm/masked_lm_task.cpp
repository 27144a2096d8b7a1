#include "headloom/tasks/masked_lm/masked_lm_task.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "headloom/base/check.h"
#include "headloom/mechanisms/cross_entropy.h"
#include "headloom/tasks/masked_lm/masked_lm_model.h"

// B batch, T tokens, M tokens to predict, V vocabulary.
namespace headloom::tasks {
namespace masked_lm {
namespace {

using at::Tensor;

constexpr const char* kWhere = "task masked_lm";

MaskedLmOptions read_options(OptionReader& reader) {
  MaskedLmOptions options;
  options.corpus = read_corpus_options(reader, kWhere);
  options.context = reader.integer("context", options.context);
  options.mask_probability = reader.number("mask_probability", options.mask_probability);
  options.tie_embedding = reader.boolean("tie_embedding", options.tie_embedding);
  reader.done();
  return options;
}

// Chooses among the tokens that are not special.
std::unique_ptr<Masking> masking_of(const text::Tokenizer& tokenizer, double probability) {
  std::vector<bool> ordinary(static_cast<size_t>(tokenizer.size()));
  for (int64_t id = 0; id < tokenizer.size(); ++id) {
    ordinary[static_cast<size_t>(id)] = tokenizer.token(id) && !tokenizer.is_special(id);
  }
  return std::make_unique<Masking>(
      std::move(ordinary), tokenizer.need_id(text::Tokenizer::Role::kMask, kWhere), probability);
}

// [B, T] -> [M], the originals in the order of the rows.
Tensor chosen_targets(const Batch& batch) {
  return batch.targets.masked_select(batch.targets != kNotPredicted);
}

}  // namespace

MaskedLmTask::MaskedLmTask(const TaskConfig& config, const MaskedLmOptions& options)
    : config_(config), options_(options) {
  check_corpus_options(options.corpus, kWhere);
  HEADLOOM_CHECK(options.context >= 2, kWhere, "context of at least 2", cat(options.context));
  HEADLOOM_CHECK(options.mask_probability > 0.0 && options.mask_probability <= 1.0, kWhere,
                 "mask_probability above 0 and at most 1", cat(options.mask_probability));
}

std::shared_ptr<Model> MaskedLmTask::make_model(nn::TransformerConfig config) const {
  HEADLOOM_CHECK(config.max_length >= options_.context, kWhere,
                 cat("model.max_length of at least the context, ", options_.context),
                 cat(config.max_length));
  config.vocabulary = options_.corpus.tokenizer.vocabulary;
  return std::make_shared<MaskedLanguageModel>(std::move(config), options_.tie_embedding,
                                               options_.mask_probability);
}

MaskedLmTask::Data MaskedLmTask::read() const {
  Data data;
  data.streams = read_streams(options_.corpus, config_, options_.context - 1, kWhere);
  const text::Tokenizer& tokenizer = *data.streams.tokenizer;
  data.masking = masking_of(tokenizer, options_.mask_probability);
  data.begin = tokenizer.need_id(text::Tokenizer::Role::kBegin, kWhere);
  return data;
}

const MaskedLmTask::Data& MaskedLmTask::data() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (!data_) data_ = std::make_unique<Data>(read());
  return *data_;
}

// Rows without a mask yet.
Batch MaskedLmTask::batch_of(const std::vector<int32_t>& stream,
                             const std::vector<int64_t>& starts) const {
  const auto rows = static_cast<int64_t>(starts.size());
  Batch batch;
  batch.tokens = at::empty({rows, options_.context}, at::kLong);
  batch.targets = at::empty({rows, options_.context}, at::kLong);
  batch.token_count = rows * options_.context;
  int64_t* tokens = batch.tokens.data_ptr<int64_t>();
  for (const int64_t start : starts) {
    *tokens++ = data_->begin;
    tokens = std::copy_n(stream.begin() + start, options_.context - 1, tokens);
  }
  return batch;
}

Batch MaskedLmTask::train_batch(int64_t index) const {
  const Data& data = this->data();
  Batch batch = batch_of(data.streams.train, train_starts(data.streams, config_, index));
  RandomStream lots(config_.seed, Purpose::kTrainingMask, static_cast<uint64_t>(index));
  for (int64_t row = 0; row < config_.batch_size; ++row) {
    data.masking->apply(lots, batch.tokens[row].data_ptr<int64_t>(),
                        batch.targets[row].data_ptr<int64_t>(), options_.context);
  }
  return batch;
}

int64_t MaskedLmTask::validation_batches() const {
  return tasks::validation_batches(data().streams, config_);
}

Batch MaskedLmTask::validation_batch(int64_t index) const {
  const Data& data = this->data();
  const std::vector<int64_t> windows = validation_windows(data.streams, config_, index, kWhere);
  std::vector<int64_t> starts;
  for (const int64_t window : windows) starts.push_back(window * data.streams.window);
  Batch batch = batch_of(data.streams.validation, starts);
  for (size_t row = 0; row < windows.size(); ++row) {
    RandomStream lots(kValidationSeed, Purpose::kValidationMask,
                      static_cast<uint64_t>(windows[row]));
    const auto b = static_cast<int64_t>(row);
    data.masking->apply(lots, batch.tokens[b].data_ptr<int64_t>(),
                        batch.targets[b].data_ptr<int64_t>(), options_.context);
  }
  return batch;
}

Loss MaskedLmTask::loss(const Tensor& logits, const Batch& batch) const {
  const Tensor targets = chosen_targets(batch);
  return {cross_entropy_sum(logits, targets), static_cast<double>(targets.numel())};
}

void MaskedLmTask::measure(const Tensor& logits, const Batch& batch, Totals& totals) const {
  const Tensor targets = chosen_targets(batch);
  totals["nats"] += cross_entropy_sum(logits, targets).item<double>();
  totals["right"] += (logits.argmax(1) == targets).sum().item<double>();
  totals["tokens"] += static_cast<double>(targets.numel());
}

void MaskedLmTask::keep(const std::string& run_folder) const {
  keep_tokenizer(*data().streams.tokenizer, run_folder);
}

Metrics MaskedLmTask::metrics(const Totals& totals) const {
  const double tokens = totals.at("tokens"), nats = totals.at("nats") / tokens;
  return {
      {"loss", nats}, {"accuracy", totals.at("right") / tokens}, {"perplexity", std::exp(nats)}};
}

}  // namespace masked_lm

TaskEntry masked_lm_entry() {
  return {
      "masked_lm",
      "fills in masked tokens of a text, as BERT is pre-trained",
      cat(kCorpusHelp, kTokenizerHelp,
          "context (128): tokens a sequence\n"
          "mask_probability (0.15): share of the tokens that are predicted\n"
          "tie_embedding (true): one matrix for input and output"),
      [](const TaskConfig& config, OptionReader& reader) -> std::unique_ptr<Task> {
        return std::make_unique<masked_lm::MaskedLmTask>(config, masked_lm::read_options(reader));
      },
  };
}

}  // namespace headloom::tasks
