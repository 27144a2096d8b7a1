#include "headloom/tasks/span_corruption/span_corruption_task.h"

#include <algorithm>

#include "headloom/base/check.h"

namespace headloom::tasks {
namespace span_corruption {
namespace {

constexpr const char* kWhere = "task span_corruption";

SpanCorruptionOptions read_options(OptionReader& reader) {
  SpanCorruptionOptions options;
  options.corpus = read_corpus_options(reader, kWhere);
  options.t5 = read_t5_options(reader, kWhere);
  options.context = reader.integer("context", options.context);
  options.noise_density = reader.number("noise_density", options.noise_density);
  options.mean_span = reader.number("mean_span", options.mean_span);
  reader.done();
  return options;
}

void add(SpanCorruption::Pair pair, TokenLists& sources, TokenLists& targets) {
  sources.push_back(std::move(pair.input));
  targets.push_back(std::move(pair.target));
}

}  // namespace

SpanCorruptionTask::SpanCorruptionTask(const TaskConfig& config,
                                       const SpanCorruptionOptions& options)
    : config_(config),
      options_(options),
      counts_(longest_text(options.context, options.noise_density, options.mean_span)) {
  check_corpus_options(options.corpus, kWhere);
}

std::shared_ptr<Model> SpanCorruptionTask::make_model(nn::TransformerConfig config) const {
  const int64_t longest = std::max(counts_.inputs, counts_.targets);
  HEADLOOM_CHECK(config.max_length >= longest, kWhere,
                 cat("model.max_length of at least ", longest, ", for inputs of ", counts_.inputs,
                     " and targets of ", counts_.targets, " tokens"),
                 cat(config.max_length));
  return make_t5_model(config, config_.parts,
                       embedding_rows(options_.corpus.tokenizer, options_.t5, config_, kWhere),
                       options_.t5);
}

SpanCorruptionTask::Data SpanCorruptionTask::read() const {
  Data data;
  data.streams = read_streams(options_.corpus, config_, counts_.tokens, kWhere);
  const auto& tokenizer = data.streams.tokenizer;
  const int64_t vocabulary = options_.corpus.tokenizer.vocabulary;
  data.corruption = std::make_unique<SpanCorruption>(
      counts_, sentinel_ids(tokenizer.get(), vocabulary, options_.t5), kWhere);
  data.vocabularies = t5_vocabularies(tokenizer, tokenizer->size(), options_.t5, kWhere);
  return data;
}

const SpanCorruptionTask::Data& SpanCorruptionTask::data() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (!data_) data_ = std::make_unique<Data>(read());
  return *data_;
}

Batch SpanCorruptionTask::train_batch(int64_t index) const {
  const Data& data = this->data();
  RandomStream lots(config_.seed, Purpose::kTrainingMask, static_cast<uint64_t>(index));
  TokenLists sources, targets;
  for (const int64_t start : train_starts(data.streams, config_, index)) {
    add(data.corruption->apply(lots, data.streams.train.data() + start), sources, targets);
  }
  return pair_batch(sources, targets, data.vocabularies);
}

int64_t SpanCorruptionTask::validation_batches() const {
  return tasks::validation_batches(data().streams, config_);
}

Batch SpanCorruptionTask::validation_batch(int64_t index) const {
  const Data& data = this->data();
  TokenLists sources, targets;
  for (const int64_t window : validation_windows(data.streams, config_, index, kWhere)) {
    RandomStream lots(kValidationSeed, Purpose::kValidationMask, static_cast<uint64_t>(window));
    const int32_t* tokens = data.streams.validation.data() + window * data.streams.window;
    add(data.corruption->apply(lots, tokens), sources, targets);
  }
  return pair_batch(sources, targets, data.vocabularies);
}

void SpanCorruptionTask::keep(const std::string& run_folder) const {
  keep_tokenizer(*data().streams.tokenizer, run_folder);
}

}  // namespace span_corruption

TaskEntry span_corruption_entry() {
  TaskEntry entry;
  entry.name = "span_corruption";
  entry.summary = "says what was taken out of a text, as T5 is pre-trained; encoder-decoder";
  entry.options = cat(kCorpusHelp, kTokenizerHelp,
                      "context (512): tokens of an input, sentinels and the end included\n"
                      "noise_density (0.15): share of the tokens that are taken out\n"
                      "mean_span (3): tokens that are taken out together, on average\n",
                      kT5Help);
  entry.make = [](const TaskConfig& config, OptionReader& reader) -> std::unique_ptr<Task> {
    return std::make_unique<span_corruption::SpanCorruptionTask>(
        config, span_corruption::read_options(reader));
  };
  entry.encoder_decoder = true;
  return entry;
}

}  // namespace headloom::tasks
