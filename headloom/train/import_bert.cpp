#include "headloom/train/import_bert.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <filesystem>
#include <map>

#include "headloom/base/check.h"
#include "headloom/tasks/files.h"
#include "headloom/tasks/tokenizer_options.h"
#include "headloom/text/json.h"
#include "headloom/text/tokenizer.h"
#include "headloom/train/checkpoint.h"
#include "headloom/train/files.h"
#include "headloom/train/initial.h"

// V vocabulary, C model width, F hidden width of the feed-forward part.
namespace headloom::train {
namespace {

namespace fs = std::filesystem;
using at::Tensor;
using text::Json;

using Shape = std::vector<int64_t>;

// The tensors of a file by their names, without those taken.
class Source {
 public:
  Source(std::string where, const NamedTensors& tensors) : where_(std::move(where)) {
    for (const auto& [name, tensor] : tensors) left_.emplace(current_name(name), tensor);
  }

  bool has(const std::string& name) const { return left_.count(name) > 0; }
  const std::string& where() const { return where_; }

  // Refuses a missing tensor and another shape.
  Tensor take(const std::string& name, const Shape& shape) {
    const auto found = left_.find(name);
    HEADLOOM_CHECK(found != left_.end(), where_, cat("a tensor ", name), "none of that name");
    const Tensor tensor = found->second;
    HEADLOOM_CHECK(tensor.sizes() == at::IntArrayRef(shape), where_,
                   cat(name, " of shape ", at::IntArrayRef(shape), ", as config.json has it"),
                   cat("shape ", tensor.sizes()));
    left_.erase(found);
    return tensor.to(at::kFloat).contiguous();
  }

  void drop(const std::string& name, std::vector<std::string>& dropped) {
    if (left_.erase(name) > 0) dropped.push_back(name);
  }
  void refuse_the_rest() const {
    if (left_.empty()) return;
    fail(where_, "the tensors of a model with a masked-language-model head",
         cat(left_.size(), " more, e.g. ", left_.begin()->first));
  }

 private:
  // Norms of old files have a gamma and a beta.
  static std::string current_name(std::string name) {
    for (const auto& [old_end, new_end] : std::map<std::string, std::string>{
             {"LayerNorm.gamma", "LayerNorm.weight"}, {"LayerNorm.beta", "LayerNorm.bias"}}) {
      const size_t kept = name.size() - std::min(name.size(), old_end.size());
      if (name.substr(kept) == old_end) return name.substr(0, kept) + new_end;
    }
    return name;
  }

  std::string where_;
  std::map<std::string, Tensor> left_;
};

// What config.json says.
struct Description {
  bool roberta = false;
  int64_t padding = 0;    // the id; positions of a RoBERTa model begin after it
  int64_t positions = 0;  // rows of the table
  int64_t vocabulary = 0;
  nn::TransformerConfig model;
};

Description describe(const std::string& path) {
  const Json config = text::parse_json(read_text(path, uint64_t{1} << 20), path);
  const auto whole = [&](const char* key) { return text::need<int64_t>(config, key, path); };
  const auto number = [&](const char* key, double fallback) {
    return text::optional_value<double>(config, key, fallback, path);
  };
  const auto type = text::need<std::string>(config, "model_type", path);
  HEADLOOM_CHECK(type == "bert" || type == "roberta", path, "model_type \"bert\" or \"roberta\"",
                 cat('"', type, '"'));
  const auto positions =
      text::optional_value<std::string>(config, "position_embedding_type", "absolute", path);
  HEADLOOM_CHECK(positions == "absolute", path, "position_embedding_type \"absolute\"",
                 cat('"', positions, '"'));
  const auto activation = text::optional_value<std::string>(config, "hidden_act", "gelu", path);
  HEADLOOM_CHECK(activation == "gelu", path, "hidden_act \"gelu\"", cat('"', activation, '"'));
  HEADLOOM_CHECK(!text::optional_value<bool>(config, "is_decoder", false, path), path, "an encoder",
                 "is_decoder = true");
  Description result;
  result.roberta = type == "roberta";
  result.padding =
      text::optional_value<int64_t>(config, "pad_token_id", result.roberta ? 1 : 0, path);
  result.positions = whole("max_position_embeddings");
  result.vocabulary = whole("vocab_size");
  nn::TransformerConfig& model = result.model;
  model.dim = whole("hidden_size");
  model.layers = whole("num_hidden_layers");
  model.heads = whole("num_attention_heads");
  model.ffn = whole("intermediate_size");
  model.max_length = result.positions - (result.roberta ? result.padding + 1 : 0);
  model.segments = whole("type_vocab_size");
  model.norm = "post";
  model.embedding_norm = true;
  model.norm_eps = number("layer_norm_eps", 1e-12);
  model.dropout = number("hidden_dropout_prob", 0.1);
  model.mixing_dropout = number("attention_probs_dropout_prob", 0.1);
  model.vocabulary = result.vocabulary;
  nn::check_config(model);
  return result;
}

// Renames as it reads.
class Reader {
 public:
  Reader(Source& source, NamedTensors& weights) : source_(source), weights_(weights) {}

  void one(const std::string& theirs, const std::string& ours, const Shape& shape) {
    weights_.emplace_back(ours, source_.take(theirs, shape));
  }
  // weight [out, in] and bias [out]
  void linear(const std::string& theirs, const std::string& ours, int64_t out, int64_t in) {
    one(theirs + ".weight", ours + ".weight", {out, in});
    one(theirs + ".bias", ours + ".bias", {out});
  }
  void norm(const std::string& theirs, const std::string& ours, int64_t dim) {
    one(theirs + ".weight", ours + ".weight", {dim});
    one(theirs + ".bias", ours + ".bias", {dim});
  }

 private:
  Source& source_;
  NamedTensors& weights_;
};

void read_encoder(const Description& is, const std::string& prefix, Source& source,
                  NamedTensors& weights) {
  const int64_t C = is.model.dim, F = is.model.ffn;
  Reader read(source, weights);
  const std::string embeddings = prefix + "embeddings.";
  read.one(embeddings + "word_embeddings.weight", "encoder.embedding.weight", {is.vocabulary, C});
  const Tensor positions =
      source.take(embeddings + "position_embeddings.weight", {is.positions, C});
  weights.emplace_back("encoder.positions",
                       positions.slice(0, is.positions - is.model.max_length).clone());
  read.one(embeddings + "token_type_embeddings.weight", "encoder.segments", {is.model.segments, C});
  read.norm(embeddings + "LayerNorm", "encoder.embedding_norm", C);
  for (int64_t i = 0; i < is.model.layers; ++i) {
    const std::string theirs = cat(prefix, "encoder.layer.", i, '.');
    const std::string ours = cat("encoder.blocks.", i, '.');
    for (const auto& [name, short_name] : std::vector<std::pair<std::string, std::string>>{
             {"query", "q"}, {"key", "k"}, {"value", "v"}}) {
      read.linear(theirs + "attention.self." + name, ours + "mixer." + short_name + "_proj", C, C);
    }
    read.linear(theirs + "attention.output.dense", ours + "mixer.out_proj", C, C);
    read.norm(theirs + "attention.output.LayerNorm", ours + "mixer_norm", C);
    read.linear(theirs + "intermediate.dense", ours + "ffn_in", F, C);
    read.linear(theirs + "output.dense", ours + "ffn_out", C, F);
    read.norm(theirs + "output.LayerNorm", ours + "ffn_norm", C);
  }
}

// Whether the output projection is the embedding.
bool read_head(const Description& is, Source& source, ImportedModel& result) {
  const int64_t C = is.model.dim, V = is.vocabulary;
  const std::string head = is.roberta ? "lm_head." : "cls.predictions.";
  const std::string transform = is.roberta ? head : head + "transform.";
  Reader read(source, result.weights);
  read.linear(transform + "dense", "dense", C, C);
  read.norm(transform + (is.roberta ? "layer_norm" : "LayerNorm"), "norm", C);
  // Newer files leave out the copy, older ones the original.
  const bool original = source.has(head + "bias");
  read.one(head + (original ? "bias" : "decoder.bias"), "bias", {V});
  source.drop(head + "decoder.bias", result.dropped);
  const std::string decoder = head + "decoder.weight";
  if (!source.has(decoder)) return true;
  const Tensor output = source.take(decoder, {V, C});
  if (at::equal(output, result.weights.front().second)) {
    result.dropped.push_back(decoder);
    return true;
  }
  result.weights.emplace_back("output.weight", output);
  return false;
}

}  // namespace

ImportedModel read_bert(const std::string& folder) {
  HEADLOOM_CHECK(fs::is_directory(folder), folder,
                 "a folder with config.json, model.safetensors and tokenizer.json",
                 "no such folder");
  const std::string path = folder + "/model.safetensors";
  HEADLOOM_CHECK(fs::exists(path), path, "a file of weights in safetensors form", "no such file",
                 "Save the model with save_pretrained(folder, safe_serialization=True).");
  const Description is = describe(folder + "/config.json");
  Source source(path, read_safetensors(path).tensors);
  const std::string prefix = is.roberta ? "roberta." : "bert.";
  ImportedModel result;
  read_encoder(is, prefix, source, result.weights);
  const bool tied = read_head(is, source, result);
  const std::string pooler = prefix + "pooler.dense";
  if (source.has(pooler + ".weight")) {
    Reader(source, result.pooler).linear(pooler, "pooler", is.model.dim, is.model.dim);
  }
  for (const std::string& name :
       {prefix + "embeddings.position_ids", std::string("cls.seq_relationship.weight"),
        std::string("cls.seq_relationship.bias")}) {
    source.drop(name, result.dropped);
  }
  source.refuse_the_rest();

  Recipe& recipe = result.recipe;
  recipe.task = "masked_lm";
  recipe.task_options = {{"path", std::string("text.txt")},
                         {"context", std::min<int64_t>(is.model.max_length, 512)},
                         {"vocabulary", is.vocabulary},
                         {"tie_embedding", tied}};
  recipe.model = is.model;
  recipe.model.vocabulary = 0;  // the task's
  return result;
}

ImportedModel import_bert(const std::string& folder, const std::string& output) {
  HEADLOOM_CHECK(!fs::exists(output), output, "a folder that does not exist yet", "one that does",
                 "Give another --output.");
  ImportedModel model = read_bert(folder);
  const std::string tokenizer_path = folder + "/tokenizer.json";
  const text::Tokenizer tokenizer =
      text::Tokenizer::parse(tasks::read_file(tokenizer_path), tokenizer_path);
  const int64_t vocabulary = std::get<int64_t>(model.recipe.task_options.at("vocabulary"));
  HEADLOOM_CHECK(tokenizer.size() <= vocabulary, tokenizer_path,
                 cat("at most ", vocabulary, " tokens, the rows of the embedding"),
                 cat(tokenizer.size()));
  create_folder(output);
  model.recipe.base_folder = fs::absolute(output).lexically_normal().string();
  Checkpoint checkpoint;
  checkpoint.model = model.weights;
  checkpoint.recipe = to_toml(model.recipe);
  write_text(output + "/recipe.toml", checkpoint.recipe);
  tasks::keep_tokenizer(tokenizer, output);
  if (!model.pooler.empty()) write_safetensors(output + '/' + kPoolerFile, model.pooler);
  CheckpointFolder(output + "/checkpoints").save_best(checkpoint);
  return model;
}

}  // namespace headloom::train
