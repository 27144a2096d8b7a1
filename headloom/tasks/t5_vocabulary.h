#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "headloom/tasks/tokenizer_options.h"
#include "headloom/tasks/vocabularies.h"

// One vocabulary for both sides of an encoder-decoder model, with T5's conventions (Raffel et al.,
// 2020): what span_corruption and text_to_text share, so that the weights of one fit the other.
namespace headloom::tasks {

struct T5Options {
  int64_t sentinels = 100;     // ids appended to the vocabulary, unless the tokenizer has its own
  bool start_with_pad = true;  // what a decoder reads first: padding, as in T5, or the begin token
  bool tie_output = true;      // the output projection is the embedding, as in T5 1.0
};

// The lines that describe the options in `headloom list`.
extern const char* const kT5Help;
T5Options read_t5_options(OptionReader& reader, const std::string& where);

// The ids that stand for the spans of a text, of the first, the second, ...: the tokens
// <extra_id_0>, <extra_id_1>, ... of a tokenizer that has the first of them. Otherwise the
// `options.sentinels` ids from `vocabulary` on, which no token has; also without a tokenizer,
// because one that is learned has no sentinels.
std::vector<int64_t> sentinel_ids(const text::Tokenizer* tokenizer, int64_t vocabulary,
                                  const T5Options& options);

// Rows of the embedding: the vocabulary and the sentinels that are appended to it. Reads a
// tokenizer that is there already, and no text.
int64_t embedding_rows(const TokenizerOptions& tokenizer, const T5Options& options,
                       const TaskConfig& config, const std::string& where);

// Both sides are `tokenizer`. Refuses one without an end, or without what the decoder starts from.
Vocabularies t5_vocabularies(std::shared_ptr<const text::Tokenizer> tokenizer, int64_t rows,
                             const T5Options& options, const std::string& where);

// The model of a recipe with one embedding of `rows` rows for source and target.
std::shared_ptr<Model> make_t5_model(const nn::TransformerConfig& config,
                                     const EncoderDecoderParts& parts, int64_t rows,
                                     const T5Options& options);

}  // namespace headloom::tasks
