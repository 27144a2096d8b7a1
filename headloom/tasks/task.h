#pragma once

#include <torch/nn/module.h>

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "headloom/base/options.h"
#include "headloom/nn/beam_search.h"
#include "headloom/nn/language_model.h"
#include "headloom/text/tokenizer.h"

// B batch, T tokens.
namespace headloom::tasks {

struct Batch {
  at::Tensor tokens;   // [B, T] int64
  at::Tensor targets;  // [B] classes, or [B, T] tokens with -100 where there is nothing to predict
  Masks masks;
  at::Tensor decoder_tokens;  // [B, T'] int64, what the decoder of an encoder-decoder model reads
  // [K, T'] int64 with -100 behind: texts whose probabilities after each source are asked for. The
  // decoder tokens are then theirs, [K, T'].
  at::Tensor choices;
  at::Tensor segments;      // [B, T] int64: 0 in the first text, 1 in the second; may be undefined
  int64_t token_count = 0;  // without padding

  Batch to(at::Device device) const;
};

// What a task trains: a Transformer with the task's head.
class Model : public torch::nn::Module {
 public:
  virtual at::Tensor forward(const Batch& batch) = 0;  // logits
  virtual double flops(int64_t length) const = 0;      // of one forward pass over one sequence
};

// A loss as a sum and the weight that turns it into a mean, so that micro-batches and processes add
// up exactly.
struct Loss {
  at::Tensor sum;       // scalar, differentiable
  double weight = 0.0;  // e.g. tokens or examples
};

using Totals = std::map<std::string, double>;                 // sums over batches
using Metrics = std::vector<std::pair<std::string, double>>;  // values, in the order to show

struct MainMetric {
  std::string name;  // one of metrics()
  bool higher_is_better;
};

// A task reads its data, and owns its head, loss and metrics. Batches are pure functions of the
// seed and an index: a run resumes exactly by going on with the next index.
class Task {
 public:
  virtual ~Task() = default;
  virtual std::string name() const = 0;

  // The task sets what only it knows (vocabulary, causal, and max_length if the recipe's is too
  // short is an error that says so).
  virtual std::shared_ptr<Model> make_model(nn::TransformerConfig config) const = 0;

  virtual Batch train_batch(int64_t index) const = 0;  // index 0, 1, 2, ... without end
  virtual int64_t validation_batches() const = 0;
  virtual Batch validation_batch(int64_t index) const = 0;

  virtual Loss loss(const at::Tensor& logits, const Batch& batch) const = 0;
  // Adds what a batch contributes, then turns the sums into values.
  virtual void measure(const at::Tensor& logits, const Batch& batch, Totals& totals) const = 0;
  virtual Metrics metrics(const Totals& totals) const = 0;
  virtual MainMetric main_metric() const = 0;

  // Metrics that take more than a pass over the validation data, such as those of decoded text:
  // taken of a finished model, once. Nothing when `stop` says so before they are ready.
  virtual std::optional<Metrics> closing_metrics(Model&,
                                                 const std::function<bool()>& /*stop*/) const {
    return Metrics{};
  }
  // What finished runs are compared by: one of metrics() or of closing_metrics().
  virtual MainMetric headline() const { return main_metric(); }
  // How the metrics were taken, for who reads them; may be empty.
  virtual std::string metrics_note() const { return ""; }

  // Writes into the folder of a run what its model cannot be used without, such as tokenizers, so
  // that a run does not depend on files that change.
  virtual void keep(const std::string& /*run_folder*/) const {}

  // Length of a typical training sequence, for operation counts.
  virtual int64_t typical_length() const = 0;
};

// A task whose models write text.
class TextGenerator {
 public:
  virtual ~TextGenerator() = default;
  virtual std::vector<int64_t> encode(const std::string& text) const = 0;
  virtual std::string decode(const std::vector<int64_t>& tokens) const = 0;
  virtual nn::LanguageModel& language_model(Model& model) const = 0;
};

// One sentence or text, or the two of a pair, and their class.
struct ClassifiedTexts {
  std::vector<std::string> sentences;
  int64_t label = 0;
};

// A task whose models sort texts, or pairs of them, into classes.
class TextClassifier {
 public:
  virtual ~TextClassifier() = default;
  virtual std::vector<ClassifiedTexts> validation_texts() const = 0;
  virtual const text::Tokenizer& tokenizer() const = 0;
  // What a model reads of examples [B], as in validation.
  virtual Batch batch_of(const std::vector<ClassifiedTexts>& examples) const = 0;
  // Rows of the model's embedding by token, [V, C]; and the logits [B, classes] of such rows
  // [B, T, C] in the place of tokens, without padding.
  virtual at::Tensor embedding(const Model& model) const = 0;
  virtual at::Tensor forward_rows(Model& model, const at::Tensor& rows) const = 0;
};

// A mechanism as a section of a recipe names it; without a name, the section is not there.
struct NamedMixer {
  std::string name;
  Options options;
};

// What a recipe says about the parts of encoder-decoder models alone.
struct EncoderDecoderParts {
  int64_t decoder_layers = 0;               // 0: as many as the encoder has, model.layers
  double ffn_dropout = 0.0;                 // after the activation
  NamedMixer encoder_mixer, decoder_mixer;  // not there: the recipe's [mixer]
  NamedMixer cross_mixer;                   // not there: dot_product
};

struct TaskConfig {
  int64_t batch_size = 32;
  uint64_t seed = 1;
  // Relative paths in a recipe are relative to the folder of the recipe, this one.
  std::string base_folder = ".";
  std::string run_folder = "";      // what keep() wrote is read from here; empty: there is none
  std::string initial_folder = "";  // of the run that the first weights come from; empty: none
  EncoderDecoderParts parts = {};
};

using TaskFactory = std::function<std::unique_ptr<Task>(const TaskConfig&, OptionReader&)>;

struct Translation {
  std::string text;
  double score = 0.0;
};

struct TranslateOptions {
  nn::BeamOptions beam;
  int64_t batch_tokens = 16384;       // of a batch, padding and all hypotheses included
  bool crop = false;                  // cut lines that are too long for the model
  std::vector<std::string> prefixes;  // none, or what the translation of each line begins with
};

// A task whose models turn a text into another.
class TextTranslator {
 public:
  virtual ~TextTranslator() = default;
  // As the recipe states it.
  virtual nn::BeamOptions beam_options() const = 0;
  // At most n_best translations of each line, best first, in the order of the lines; an empty line
  // has one, which is empty. Lines of similar length share a batch. Refuses a line that is too long
  // for the model, by its number from `first_line` on.
  virtual std::vector<std::vector<Translation>> translate(Model& model,
                                                          const std::vector<std::string>& lines,
                                                          const TranslateOptions& options,
                                                          int64_t first_line = 1) const = 0;
};

struct TaskEntry {
  std::string name;     // as recipes write it
  std::string summary;  // one line for `headloom list`
  std::string options;  // "key (default): meaning" lines
  TaskFactory make;
  // Whether the recipe may describe the parts of an encoder-decoder model.
  bool encoder_decoder = false;
};

// All tasks. The list is in registry.cpp: a static library drops files that nothing names.
const std::vector<TaskEntry>& all_tasks();
std::vector<std::string> task_names();
// Builds a task; refuses an unknown name and unknown options, naming the nearest.
std::unique_ptr<Task> make_task(const std::string& name, const TaskConfig& config,
                                const Options& options);

}  // namespace headloom::tasks
