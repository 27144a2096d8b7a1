#include "headloom/tasks/masked_lm/masked_lm_task.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "headloom/base/check.h"
#include "headloom/tasks/corpus.h"
#include "headloom/tasks/cross_entropy.h"
#include "headloom/tasks/files.h"
#include "headloom/tasks/masked_lm/masked_lm_model.h"

// B batch, T tokens, M tokens to predict, V vocabulary.
namespace headloom::tasks {
namespace masked_lm {
namespace {

using at::Tensor;
using Lines = std::vector<std::string>;

constexpr const char* kWhere = "task masked_lm";

// Of every run, so that all are measured on the same tokens.
constexpr uint64_t kValidationSeed = 1;

MaskedLmOptions read_options(OptionReader& reader) {
  MaskedLmOptions options;
  options.path = reader.text("path", options.path);
  options.validation_path = reader.text("validation_path", options.validation_path);
  if (options.validation_path.empty()) {
    options.train_fraction = reader.number("train_fraction", options.train_fraction);
  }
  options.tokenizer = read_tokenizer_options(reader, kWhere);
  options.context = reader.integer("context", options.context);
  options.mask_probability = reader.number("mask_probability", options.mask_probability);
  options.validation_limit = reader.integer("validation_limit", options.validation_limit);
  options.tie_embedding = reader.boolean("tie_embedding", options.tie_embedding);
  reader.done();
  return options;
}

Lines read_lines(const std::filesystem::path& path) {
  text::LineReader reader(text::source_of(read_corpus(path)), path.string());
  Lines lines;
  for (std::string line; reader.next(line);) {
    if (line.find_first_not_of(" \t") != std::string::npos) lines.push_back(line);
  }
  return lines;
}

std::vector<int32_t> stream_of(const Lines& lines, const text::Tokenizer& tokenizer, int64_t end) {
  std::vector<int32_t> stream;
  for (const std::string& line : lines) {
    const std::vector<int64_t> ids = tokenizer.encode(line);
    if (ids.empty()) continue;
    stream.insert(stream.end(), ids.begin(), ids.end());
    stream.push_back(static_cast<int32_t>(end));
  }
  return stream;
}

// [B, T] -> [M], the originals in the order of the rows.
Tensor chosen_targets(const Batch& batch) {
  return batch.targets.masked_select(batch.targets != kNotPredicted);
}

}  // namespace

MaskedLmTask::MaskedLmTask(const TaskConfig& config, const MaskedLmOptions& options)
    : config_(config), options_(options) {
  HEADLOOM_CHECK(!options.path.empty(), kWhere, "path, a text file or a folder of them", "none");
  HEADLOOM_CHECK(options.context >= 2, kWhere, "context of at least 2", cat(options.context));
  HEADLOOM_CHECK(options.train_fraction > 0.0 && options.train_fraction < 1.0, kWhere,
                 "train_fraction between 0 and 1, both excluded", cat(options.train_fraction));
  HEADLOOM_CHECK(options.mask_probability > 0.0 && options.mask_probability <= 1.0, kWhere,
                 "mask_probability above 0 and at most 1", cat(options.mask_probability));
  HEADLOOM_CHECK(options.validation_limit >= 0, kWhere, "validation_limit of at least 0",
                 cat(options.validation_limit));
}

std::shared_ptr<Model> MaskedLmTask::make_model(nn::TransformerConfig config) const {
  HEADLOOM_CHECK(config.max_length >= options_.context, kWhere,
                 cat("model.max_length of at least the context, ", options_.context),
                 cat(config.max_length));
  config.vocabulary = options_.tokenizer.vocabulary;
  return std::make_shared<MaskedLanguageModel>(std::move(config), options_.tie_embedding,
                                               options_.mask_probability);
}

void MaskedLmTask::make_masking(Data& data) const {
  const text::Tokenizer& tokenizer = *data.tokenizer;
  std::vector<bool> ordinary(static_cast<size_t>(tokenizer.size()));
  for (int64_t id = 0; id < tokenizer.size(); ++id) {
    ordinary[static_cast<size_t>(id)] = tokenizer.token(id) && !tokenizer.is_special(id);
  }
  data.masking = std::make_unique<Masking>(std::move(ordinary),
                                           tokenizer.need_id(text::Tokenizer::Role::kMask, kWhere),
                                           options_.mask_probability);
}

MaskedLmTask::Data MaskedLmTask::read() const {
  const std::filesystem::path path = resolve(config_.base_folder, options_.path);
  Lines train = read_lines(path), validation;
  if (options_.validation_path.empty()) {
    const auto kept =
        static_cast<size_t>(static_cast<double>(train.size()) * options_.train_fraction);
    validation.assign(train.begin() + static_cast<std::ptrdiff_t>(kept), train.end());
    train.resize(kept);
  } else {
    validation = read_lines(resolve(config_.base_folder, options_.validation_path));
  }
  Data data;
  data.tokenizer = std::make_unique<text::Tokenizer>(open_tokenizer(
      options_.tokenizer, config_,
      [&](text::TokenizerTrainer& trainer) {
        for (const std::string& line : train) trainer.add(line);
      },
      kWhere));
  make_masking(data);
  data.begin = data.tokenizer->need_id(text::Tokenizer::Role::kBegin, kWhere);
  const int64_t end = data.tokenizer->need_id(text::Tokenizer::Role::kEnd, kWhere);
  data.train = stream_of(train, *data.tokenizer, end);
  data.validation = stream_of(validation, *data.tokenizer, end);
  const int64_t needed = options_.context - 1;
  const auto shortest = static_cast<int64_t>(std::min(data.train.size(), data.validation.size()));
  HEADLOOM_CHECK(shortest >= needed, path.string(),
                 cat("at least ", needed, " tokens for training and as many for validation"),
                 cat(data.train.size(), " and ", data.validation.size()),
                 "Give a longer text, or lower task.context.");
  data.sequences = static_cast<int64_t>(data.validation.size()) / needed;
  if (options_.validation_limit > 0) {
    data.sequences = std::min(data.sequences, options_.validation_limit);
  }
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
  RandomStream places(config_.seed, Purpose::kWindows, static_cast<uint64_t>(index));
  const auto count = static_cast<int64_t>(data.train.size()) - (options_.context - 1) + 1;
  std::vector<int64_t> starts(config_.batch_size);
  for (int64_t& start : starts) {
    start = static_cast<int64_t>(places.below(static_cast<uint64_t>(count)));
  }
  Batch batch = batch_of(data.train, starts);
  RandomStream lots(config_.seed, Purpose::kTrainingMask, static_cast<uint64_t>(index));
  for (int64_t row = 0; row < config_.batch_size; ++row) {
    data.masking->apply(lots, batch.tokens[row].data_ptr<int64_t>(),
                        batch.targets[row].data_ptr<int64_t>(), options_.context);
  }
  return batch;
}

int64_t MaskedLmTask::validation_batches() const {
  return (data().sequences + config_.batch_size - 1) / config_.batch_size;
}

Batch MaskedLmTask::validation_batch(int64_t index) const {
  const Data& data = this->data();
  HEADLOOM_CHECK(index >= 0 && index < validation_batches(), kWhere,
                 cat("a validation batch below ", validation_batches()), cat(index));
  const int64_t first = index * config_.batch_size;
  const int64_t last = std::min(first + config_.batch_size, data.sequences);
  std::vector<int64_t> starts;
  for (int64_t i = first; i < last; ++i) starts.push_back(i * (options_.context - 1));
  Batch batch = batch_of(data.validation, starts);
  for (int64_t i = first; i < last; ++i) {
    RandomStream lots(kValidationSeed, Purpose::kValidationMask, static_cast<uint64_t>(i));
    data.masking->apply(lots, batch.tokens[i - first].data_ptr<int64_t>(),
                        batch.targets[i - first].data_ptr<int64_t>(), options_.context);
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
  keep_tokenizer(*data().tokenizer, run_folder);
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
      cat("path (required): a text file, or a folder whose files are read in the order of their "
          "paths\n"
          "validation_path (none): the same, for validation\n"
          "train_fraction (0.9): without a validation_path, the first lines, for training\n",
          kTokenizerHelp,
          "context (128): tokens a sequence\n"
          "mask_probability (0.15): share of the tokens that are predicted\n"
          "validation_limit (0): validation sequences that are used; 0 uses all\n"
          "tie_embedding (true): one matrix for input and output"),
      [](const TaskConfig& config, OptionReader& reader) -> std::unique_ptr<Task> {
        return std::make_unique<masked_lm::MaskedLmTask>(config, masked_lm::read_options(reader));
      },
  };
}

}  // namespace headloom::tasks
