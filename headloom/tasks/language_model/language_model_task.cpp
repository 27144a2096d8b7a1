#include "headloom/tasks/language_model/language_model_task.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "headloom/base/check.h"
#include "headloom/mechanisms/cross_entropy.h"
#include "headloom/tasks/corpus.h"
#include "headloom/tasks/files.h"
#include "headloom/tasks/random.h"

// B batch, T tokens, V = 256 bytes.
namespace headloom::tasks {
namespace language_model {
namespace {

using at::Tensor;

constexpr const char* kWhere = "task language_model";

class ByteModel : public Model {
 public:
  ByteModel(const nn::TransformerConfig& config, bool tie_embedding)
      : model_(
            register_module("model", std::make_shared<nn::LanguageModel>(config, tie_embedding))) {}
  Tensor forward(const Batch& batch) override {
    return model_->forward(batch.tokens, batch.masks);  // [B, T] -> [B, T, V]
  }
  double flops(int64_t length) const override { return model_->flops(length); }
  nn::LanguageModel& language_model() { return *model_; }

 private:
  std::shared_ptr<nn::LanguageModel> model_;
};

Tensor loss_sum(const Tensor& logits, const Tensor& targets) {
  return cross_entropy_sum(logits.flatten(0, 1), targets.flatten());
}

// One row for each start: the bytes [start, start + length), and as targets those one further on.
Batch windows(const std::string& bytes, const std::vector<int64_t>& starts, int64_t length) {
  const auto rows = static_cast<int64_t>(starts.size());
  Batch batch;
  batch.tokens = at::empty({rows, length}, at::kLong);
  batch.targets = at::empty({rows, length}, at::kLong);
  batch.token_count = rows * length;
  int64_t* tokens = batch.tokens.data_ptr<int64_t>();
  int64_t* targets = batch.targets.data_ptr<int64_t>();
  for (const int64_t start : starts) {
    for (int64_t i = 0; i < length; ++i) {
      *tokens++ = static_cast<unsigned char>(bytes[start + i]);
      *targets++ = static_cast<unsigned char>(bytes[start + i + 1]);
    }
  }
  return batch;
}

LanguageModelOptions read_options(OptionReader& reader) {
  LanguageModelOptions options;
  options.path = reader.text("path", options.path);
  options.context = reader.integer("context", options.context);
  options.train_fraction = reader.number("train_fraction", options.train_fraction);
  options.validation_limit = reader.integer("validation_limit", options.validation_limit);
  options.tie_embedding = reader.boolean("tie_embedding", options.tie_embedding);
  reader.done();
  return options;
}

}  // namespace

LanguageModelTask::LanguageModelTask(const TaskConfig& config, const LanguageModelOptions& options)
    : config_(config), options_(options) {
  HEADLOOM_CHECK(!options.path.empty(), kWhere, "path, a text file or a folder of them", "none");
  HEADLOOM_CHECK(options.context >= 1, kWhere, "context of at least 1", cat(options.context));
  HEADLOOM_CHECK(options.train_fraction > 0.0 && options.train_fraction < 1.0, kWhere,
                 "train_fraction between 0 and 1, both excluded", cat(options.train_fraction));
  HEADLOOM_CHECK(options.validation_limit >= 0, kWhere, "validation_limit of at least 0",
                 cat(options.validation_limit));
}

std::shared_ptr<Model> LanguageModelTask::make_model(nn::TransformerConfig config) const {
  HEADLOOM_CHECK(config.max_length >= options_.context, kWhere,
                 cat("model.max_length of at least the context, ", options_.context),
                 cat(config.max_length));
  config.vocabulary = kVocabulary;
  config.causal = true;
  return std::make_shared<ByteModel>(config, options_.tie_embedding);
}

LanguageModelTask::Corpus LanguageModelTask::read() const {
  const std::filesystem::path path = resolve(config_.base_folder, options_.path);
  Corpus corpus;
  corpus.bytes = read_corpus(path);
  const auto size = static_cast<int64_t>(corpus.bytes.size());
  corpus.train = static_cast<int64_t>(static_cast<double>(size) * options_.train_fraction);
  corpus.validation = size - corpus.train;
  HEADLOOM_CHECK(std::min(corpus.train, corpus.validation) > options_.context, path.string(),
                 cat("at least context + 1 = ", options_.context + 1,
                     " bytes for training and as many for validation"),
                 cat(corpus.train, " and ", corpus.validation, " of ", size, " bytes"),
                 "Give a longer text, or change task.context or task.train_fraction.");
  if (options_.validation_limit > 0) {
    corpus.validation = std::min(corpus.validation, options_.validation_limit);
  }
  return corpus;
}

const LanguageModelTask::Corpus& LanguageModelTask::corpus() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (!corpus_) corpus_ = read();
  return *corpus_;
}

Batch LanguageModelTask::train_batch(int64_t index) const {
  const Corpus& text = corpus();
  RandomStream stream(config_.seed, Purpose::kWindows, static_cast<uint64_t>(index));
  std::vector<int64_t> starts(config_.batch_size);
  for (int64_t& start : starts) {
    start = static_cast<int64_t>(stream.below(text.train - options_.context));
  }
  return windows(text.bytes, starts, options_.context);
}

int64_t LanguageModelTask::validation_batches() const {
  const int64_t bytes = corpus().validation, batch_bytes = options_.context * config_.batch_size;
  const int64_t whole = bytes - bytes % options_.context;
  return (whole + batch_bytes - 1) / batch_bytes + (bytes > whole ? 1 : 0);
}

Batch LanguageModelTask::validation_batch(int64_t index) const {
  const Corpus& text = corpus();
  HEADLOOM_CHECK(index >= 0 && index < validation_batches(), kWhere,
                 cat("a validation batch below ", validation_batches()), cat(index));
  const int64_t whole = text.validation / options_.context;  // windows
  const int64_t first = index * config_.batch_size;
  // The first byte to predict is text.train, so the first window starts one before it.
  const auto start = [&](int64_t window) { return text.train - 1 + window * options_.context; };
  if (first >= whole) {
    return windows(text.bytes, {start(whole)}, text.validation % options_.context);
  }
  std::vector<int64_t> starts;
  for (int64_t window = first; window < std::min(first + config_.batch_size, whole); ++window) {
    starts.push_back(start(window));
  }
  return windows(text.bytes, starts, options_.context);
}

Loss LanguageModelTask::loss(const Tensor& logits, const Batch& batch) const {
  return {loss_sum(logits, batch.targets), static_cast<double>(batch.targets.numel())};
}

void LanguageModelTask::measure(const Tensor& logits, const Batch& batch, Totals& totals) const {
  totals["nats"] += loss_sum(logits, batch.targets).item<double>();
  totals["bytes"] += static_cast<double>(batch.targets.numel());
}

Metrics LanguageModelTask::metrics(const Totals& totals) const {
  const double nats = totals.at("nats") / totals.at("bytes");
  return {{"nats_per_byte", nats},
          {"bits_per_byte", nats / std::log(2.0)},
          {"perplexity", std::exp(nats)}};
}

std::vector<int64_t> LanguageModelTask::encode(const std::string& text) const {
  std::vector<int64_t> tokens;
  tokens.reserve(text.size());
  for (const char c : text) tokens.push_back(static_cast<unsigned char>(c));
  return tokens;
}

std::string LanguageModelTask::decode(const std::vector<int64_t>& tokens) const {
  std::string text;
  text.reserve(tokens.size());
  for (const int64_t token : tokens) {
    HEADLOOM_CHECK(token >= 0 && token < kVocabulary, kWhere, "tokens 0 to 255", cat(token));
    text += static_cast<char>(token);
  }
  return text;
}

nn::LanguageModel& LanguageModelTask::language_model(Model& model) const {
  auto* found = dynamic_cast<ByteModel*>(&model);
  HEADLOOM_CHECK(found, kWhere, "a model that this task made", "another");
  return found->language_model();
}

}  // namespace language_model

TaskEntry language_model_entry() {
  return {
      "language_model",
      "predicts the next byte of a text; writes text",
      "path (required): a text file, or a folder whose files are read in the order of their paths\n"
      "context (64): bytes a training sequence\n"
      "train_fraction (0.9): the first part of the text, for training; the rest is for validation\n"
      "validation_limit (0): bytes of the validation part that are used; 0 uses all\n"
      "tie_embedding (true): one matrix for input and output",
      [](const TaskConfig& config, OptionReader& reader) -> std::unique_ptr<Task> {
        return std::make_unique<language_model::LanguageModelTask>(
            config, language_model::read_options(reader));
      },
  };
}

}  // namespace headloom::tasks
