#include "headloom/tasks/classification/classification_task.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <numeric>

#include "headloom/base/check.h"
#include "headloom/mechanisms/cross_entropy.h"
#include "headloom/tasks/binary_metrics.h"
#include "headloom/tasks/metrics.h"
#include "headloom/tasks/model_mode.h"

// B batch, T tokens.
namespace headloom::tasks {
namespace classification {
namespace {

using at::Tensor;
using Ids = std::vector<int64_t>;
using Role = text::Tokenizer::Role;

constexpr const char* kWhere = "task classification";

ClassificationOptions read_options(OptionReader& reader) {
  ClassificationOptions options;
  options.glue = read_glue_options(reader);
  options.tokenizer = read_tokenizer_options(reader, kWhere);
  options.pooling =
      reader.choice("pooling", "cls", {"cls", "mean"}) == "cls" ? Pooling::kFirst : Pooling::kMean;
  options.samples = reader.integer("samples", options.samples);
  reader.done();
  return options;
}

}  // namespace

ClassificationTask::ClassificationTask(const TaskConfig& config,
                                       const ClassificationOptions& options)
    : config_(config), options_(options) {
  check_glue_options(options.glue, kWhere);
  HEADLOOM_CHECK(options.samples == 0 || options.samples >= 2, kWhere,
                 "samples of 0, or of at least 2 for a test to compare", cat(options.samples));
}

std::shared_ptr<Model> ClassificationTask::make_model(nn::TransformerConfig config) const {
  HEADLOOM_CHECK(config.max_length >= options_.glue.max_length, kWhere,
                 cat("model.max_length of at least task.max_length, ", options_.glue.max_length),
                 cat(config.max_length));
  config.vocabulary = options_.tokenizer.vocabulary;
  return std::make_shared<ClassificationModel>(
      std::move(config), static_cast<int64_t>(options_.glue.format.labels.size()),
      options_.pooling);
}

ClassificationTask::Examples ClassificationTask::encode(const std::vector<ClassifiedTexts>& rows,
                                                        const text::Tokenizer& tokenizer) const {
  const bool pairs = options_.glue.format.pairs();
  const size_t special = (pairs ? tokenizer.frame({}, {}) : tokenizer.frame({})).ids.size();
  const size_t room = static_cast<size_t>(options_.glue.max_length) - special;
  Examples examples;
  for (const ClassifiedTexts& row : rows) {
    Ids first = tokenizer.encode(row.sentences[0]);
    Ids second = pairs ? tokenizer.encode(row.sentences[1]) : Ids();
    cut_longer(first, second, room);
    text::Encoding framed = pairs ? tokenizer.frame(first, second) : tokenizer.frame(first);
    examples.tokens.push_back(std::move(framed.ids));
    examples.segments.push_back(std::move(framed.types));
    examples.labels.push_back(row.label);
  }
  return examples;
}

ClassificationTask::Data ClassificationTask::read() const {
  GlueRows rows = load_glue(options_.glue, config_);
  Data data;
  data.tokenizer = std::make_unique<text::Tokenizer>(open_tokenizer(
      options_.tokenizer, config_,
      [&](text::TokenizerTrainer& trainer) { add_sentences(rows.train, trainer); }, kWhere));
  const text::Tokenizer& tokenizer = *data.tokenizer;
  data.pad = tokenizer.need_id(Role::kPad, kWhere);
  const int64_t begin = tokenizer.need_id(Role::kBegin, kWhere);
  const Ids frame = tokenizer.frame({}).ids;
  HEADLOOM_CHECK(!frame.empty() && frame[0] == begin, kWhere,
                 "a tokenizer whose post_processor puts its begin token first", "another");
  data.train = encode(rows.train, tokenizer);
  data.validation = encode(rows.validation, tokenizer);
  data.order = std::make_unique<EpochOrder>(lengths_of(data.train.tokens), config_.batch_size,
                                            options_.glue.bucket_batches, config_.seed);
  data.validation_batches =
      batches_by_length(lengths_of(data.validation.tokens), config_.batch_size);
  data.validation_rows = std::move(rows.validation);
  return data;
}

const ClassificationTask::Data& ClassificationTask::data() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (!data_) data_ = std::make_unique<Data>(read());
  return *data_;
}

Batch ClassificationTask::batch_of(const Examples& examples, const Ids& rows, int64_t pad) const {
  int64_t longest = 0;
  Batch batch;
  for (const int64_t row : rows) {
    const auto length = static_cast<int64_t>(examples.tokens[row].size());
    longest = std::max(longest, length);
    batch.token_count += length;
  }
  const auto size = static_cast<int64_t>(rows.size());
  batch.tokens = at::full({size, longest}, pad, at::kLong);
  batch.segments = at::zeros({size, longest}, at::kLong);
  batch.targets = at::empty({size}, at::kLong);
  const Tensor padding = at::ones({size, longest}, at::kBool);
  for (int64_t i = 0; i < size; ++i) {
    const Ids& tokens = examples.tokens[rows[i]];
    std::copy(tokens.begin(), tokens.end(), batch.tokens.data_ptr<int64_t>() + i * longest);
    const Ids& segments = examples.segments[rows[i]];
    std::copy(segments.begin(), segments.end(), batch.segments.data_ptr<int64_t>() + i * longest);
    std::fill_n(padding.data_ptr<bool>() + i * longest, tokens.size(), false);
    batch.targets.data_ptr<int64_t>()[i] = examples.labels[rows[i]];
  }
  if (batch.token_count < size * longest) batch.masks.key_padding_mask = padding;
  return batch;
}

Batch ClassificationTask::train_batch(int64_t index) const {
  const Data& data = this->data();
  return batch_of(data.train, data.order->batch(index), data.pad);
}

int64_t ClassificationTask::validation_batches() const {
  return static_cast<int64_t>(data().validation_batches.size());
}

Batch ClassificationTask::validation_batch(int64_t index) const {
  const Data& data = this->data();
  HEADLOOM_CHECK(index >= 0 && index < validation_batches(), kWhere,
                 cat("a validation batch below ", validation_batches()), cat(index));
  return batch_of(data.validation, data.validation_batches[static_cast<size_t>(index)], data.pad);
}

Loss ClassificationTask::loss(const Tensor& logits, const Batch& batch) const {
  return {cross_entropy_sum(logits, batch.targets), static_cast<double>(batch.targets.size(0))};
}

void ClassificationTask::measure(const Tensor& logits, const Batch& batch, Totals& totals) const {
  add_binary(logits, batch.targets, totals);
}

void ClassificationTask::keep(const std::string& run_folder) const {
  keep_tokenizer(*data().tokenizer, run_folder);
}

Metrics ClassificationTask::metrics(const Totals& totals) const {
  return binary_metrics(totals);
}

std::string ClassificationTask::metrics_note() const {
  return cat(
      "loss: negative log-likelihood in nats; ece: per cent, ten bins; pavpu, "
      "predictive_entropy and mutual_information of ",
      options_.samples, " passes with dropout");
}

std::optional<Metrics> ClassificationTask::closing_metrics(
    Model& model, const std::function<bool()>& stop) const {
  if (options_.samples == 0) return Metrics{};
  at::manual_seed(config_.seed);
  const at::Device device = embedding(model).device();
  double pavpu = 0.0, welch = 0.0, entropy = 0.0, information = 0.0, examples = 0.0;
  for (int64_t index = 0; index < validation_batches(); ++index) {
    const Batch batch = validation_batch(index).to(device);
    const Tensor right = model.forward(batch).argmax(1) == batch.targets;
    const ModelMode sampling(model, /*training=*/true);
    std::vector<Tensor> passes;
    for (int64_t sample = 0; sample < options_.samples; ++sample) {
      if (stop()) return std::nullopt;
      passes.push_back(model.forward(batch));
    }
    const Tensor logits = at::stack(passes).to(at::kCPU, at::kDouble);  // [S, B, classes]
    const Tensor probabilities = logits.softmax(2);
    const auto size = static_cast<double>(right.size(0));
    examples += size;
    pavpu += size * patch_accuracy_vs_uncertainty(logits, right, Certainty::kPairedLogits);
    welch +=
        size * patch_accuracy_vs_uncertainty(probabilities, right, Certainty::kWelchProbabilities);
    entropy += predictive_entropy(probabilities).sum().item<double>();
    information += mutual_information(probabilities).sum().item<double>();
  }
  return Metrics{{"pavpu", pavpu / examples},
                 {"pavpu_welch", welch / examples},
                 {"predictive_entropy", entropy / examples},
                 {"mutual_information", information / examples}};
}

std::vector<ClassifiedTexts> ClassificationTask::validation_texts() const {
  return data().validation_rows;
}

Batch ClassificationTask::batch_of(const std::vector<ClassifiedTexts>& given) const {
  const Data& data = this->data();
  Ids all(given.size());
  std::iota(all.begin(), all.end(), int64_t{0});
  return batch_of(encode(given, *data.tokenizer), all, data.pad);
}

Tensor ClassificationTask::embedding(const Model& model) const {
  return dynamic_cast<const ClassificationModel&>(model).embedding().detach();
}

Tensor ClassificationTask::forward_rows(Model& model, const Tensor& rows) const {
  return dynamic_cast<ClassificationModel&>(model).forward_rows(rows);
}

int64_t ClassificationTask::typical_length() const {
  return mean_length(data().validation.tokens);
}

}  // namespace classification

TaskEntry classification_entry() {
  return {
      "classification",
      "two classes of sentences or pairs of them, in GLUE's file shapes",
      cat(kGlueHelp, kTokenizerHelp,
          "pooling (cls): cls (the first token) or mean (over the tokens)\n"
          "samples (20): passes with dropout, of which measures of uncertainty are taken at the "
          "end; "
          "0: none"),
      [](const TaskConfig& config, OptionReader& reader) -> std::unique_ptr<Task> {
        return std::make_unique<classification::ClassificationTask>(
            config, classification::read_options(reader));
      },
  };
}

}  // namespace headloom::tasks
