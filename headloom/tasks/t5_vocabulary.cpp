#include "headloom/tasks/t5_vocabulary.h"

#include <numeric>

#include "headloom/base/check.h"
#include "headloom/tasks/encoder_decoder_model.h"

namespace headloom::tasks {
namespace {

using Role = text::Tokenizer::Role;

std::optional<int64_t> own_sentinel(const text::Tokenizer* tokenizer, size_t number) {
  return tokenizer ? tokenizer->id(cat("<extra_id_", number, '>')) : std::nullopt;
}

}  // namespace

const char* const kT5Help =
    "sentinels (100): ids appended to the vocabulary, a row of the embedding each, which stand "
    "for\n"
    "  spans of span_corruption; a tokenizer's own, <extra_id_0> and so on, take their place\n"
    "decoder_start (pad): pad or begin, the token that the decoder reads first\n"
    "tie_output (true): one matrix for the embedding and the output";

T5Options read_t5_options(OptionReader& reader, const std::string& where) {
  T5Options options;
  options.sentinels = reader.integer("sentinels", options.sentinels);
  options.start_with_pad = reader.choice("decoder_start", "pad", {"pad", "begin"}) == "pad";
  options.tie_output = reader.boolean("tie_output", options.tie_output);
  HEADLOOM_CHECK(options.sentinels >= 0, where, "sentinels of at least 0", cat(options.sentinels));
  return options;
}

std::vector<int64_t> sentinel_ids(const text::Tokenizer* tokenizer, int64_t vocabulary,
                                  const T5Options& options) {
  std::vector<int64_t> ids;
  while (const auto id = own_sentinel(tokenizer, ids.size())) ids.push_back(*id);
  if (!ids.empty()) return ids;
  ids.resize(static_cast<size_t>(options.sentinels));
  std::iota(ids.begin(), ids.end(), vocabulary);
  return ids;
}

int64_t embedding_rows(const TokenizerOptions& tokenizer, const T5Options& options,
                       const TaskConfig& config, const std::string& where) {
  const std::optional<text::Tokenizer> stored = stored_tokenizer(tokenizer, config, where);
  const bool own = own_sentinel(stored ? &*stored : nullptr, 0).has_value();
  return tokenizer.vocabulary + (own ? 0 : options.sentinels);
}

Vocabularies t5_vocabularies(std::shared_ptr<const text::Tokenizer> tokenizer, int64_t rows,
                             const T5Options& options, const std::string& where) {
  Vocabularies made;
  made.source_end = made.target_end = tokenizer->need_id(Role::kEnd, where);
  made.source_pad = tokenizer->id(Role::kPad).value_or(made.source_end);
  made.target_begin = tokenizer->need_id(options.start_with_pad ? Role::kPad : Role::kBegin, where);
  made.never = ids_of_no_text(*tokenizer, made.target_end, rows);
  made.source = made.target = std::move(tokenizer);
  return made;
}

std::shared_ptr<Model> make_t5_model(const nn::TransformerConfig& config,
                                     const EncoderDecoderParts& parts, int64_t rows,
                                     const T5Options& options) {
  nn::EncoderDecoderConfig model = encoder_decoder_config(config, parts);
  model.source_vocabulary = model.target_vocabulary = rows;
  model.share_embeddings = true;
  model.tie_output = options.tie_output;
  return std::make_shared<EncoderDecoderModel>(model);
}

}  // namespace headloom::tasks
