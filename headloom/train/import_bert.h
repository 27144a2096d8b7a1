#pragma once

#include <string>
#include <vector>

#include "headloom/train/recipe.h"
#include "headloom/train/safetensors.h"

// BERT and RoBERTa checkpoints in Hugging Face's form, as runs of the task masked_lm.
namespace headloom::train {

struct ImportedModel {
  Recipe recipe;                     // masked_lm, with the model of config.json
  NamedTensors weights;              // by our names
  NamedTensors pooler;               // pooler.weight, pooler.bias, or nothing
  std::vector<std::string> dropped;  // names that are not needed: copies, and other heads
};

// Reads <folder>/config.json and model.safetensors: an encoder (post-norm, learned positions, token
// types, GELU) with its masked-language-model head, and the pooler if there is one. Weights become
// float32. Positions of a RoBERTa model lose the rows that come before its first token's. Refuses,
// with file, what was expected and what was found: another model_type than bert and roberta,
// decoders, position_embedding_type other than absolute, hidden_act other than gelu, missing
// tensors, tensors of another shape than config.json says, and tensors that are not understood.
ImportedModel read_bert(const std::string& folder);

// The same as a run folder at `output`, with the model's tokenizer.json, which must be there; a
// later run names it as model.initial. Refuses an output that exists.
ImportedModel import_bert(const std::string& folder, const std::string& output);

}  // namespace headloom::train
