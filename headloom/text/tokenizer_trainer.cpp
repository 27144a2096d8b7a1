#include "headloom/text/tokenizer_trainer.h"

#include <algorithm>

#include "headloom/base/check.h"
#include "headloom/text/added_tokens.h"
#include "headloom/text/byte_level.h"
#include "headloom/text/utf8.h"

namespace headloom::text {
namespace {

constexpr const char* kWhere = "tokenizer training";

TokenizerTrainerOptions with_special(TokenizerTrainerOptions options) {
  if (options.special.empty()) {
    options.special = options.algorithm == Algorithm::kBpe
                          ? std::vector<std::string>{"<s>", "<pad>", "</s>", "<unk>", "<mask>"}
                          : std::vector<std::string>{"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"};
  }
  return options;
}

// The index of the first name that is among the special tokens, or -1.
int64_t find_special(const std::vector<std::string>& special,
                     std::initializer_list<const char*> names) {
  for (const char* name : names) {
    const auto found = std::find(special.begin(), special.end(), name);
    if (found != special.end()) return found - special.begin();
  }
  return -1;
}

Json normalizer_of(const TokenizerTrainerOptions& options) {
  if (options.algorithm == Algorithm::kBpe) return Json();
  return {{"type", "BertNormalizer"},
          {"clean_text", true},
          {"handle_chinese_chars", true},
          {"strip_accents", nullptr},
          {"lowercase", options.lowercase}};
}

Json pre_tokenizer_of(const TokenizerTrainerOptions& options) {
  if (options.algorithm == Algorithm::kWordPiece) return {{"type", "BertPreTokenizer"}};
  return {{"type", "ByteLevel"},
          {"add_prefix_space", options.prefix_space},
          {"trim_offsets", true},
          {"use_regex", true}};
}

Json sequence(const char* name, int type) {
  return {{"Sequence", {{"id", name}, {"type_id", type}}}};
}

Json special_piece(const std::string& token, int type) {
  return {{"SpecialToken", {{"id", token}, {"type_id", type}}}};
}

Json post_processor_of(const TokenizerTrainerOptions& options) {
  const int64_t begin = find_special(options.special, {"[CLS]", "<s>"});
  const int64_t end = find_special(options.special, {"[SEP]", "</s>"});
  if (begin < 0 || end < 0) {
    if (options.algorithm == Algorithm::kWordPiece) return Json();
    Json plain = pre_tokenizer_of(options);
    return plain;
  }
  const std::string &first = options.special[begin], &last = options.special[end];
  Json single = {special_piece(first, 0), sequence("A", 0), special_piece(last, 0)};
  Json pair = single;
  if (options.algorithm == Algorithm::kBpe) {
    pair.insert(pair.end(), {special_piece(last, 0), sequence("B", 0), special_piece(last, 0)});
  } else {
    pair.insert(pair.end(), {sequence("B", 1), special_piece(last, 1)});
  }
  const auto entry = [](const std::string& token, int64_t id) -> Json {
    return {{"id", token}, {"ids", {id}}, {"tokens", {token}}};
  };
  return {{"type", "TemplateProcessing"},
          {"single", single},
          {"pair", pair},
          {"special_tokens", {{first, entry(first, begin)}, {last, entry(last, end)}}}};
}

Json decoder_of(const TokenizerTrainerOptions& options) {
  if (options.algorithm == Algorithm::kWordPiece) {
    return {{"type", "WordPiece"}, {"prefix", "##"}, {"cleanup", true}};
  }
  return {{"type", "ByteLevel"},
          {"add_prefix_space", true},
          {"trim_offsets", true},
          {"use_regex", true}};
}

Json model_of(const TokenizerTrainerOptions& options, const TrainedBpe& trained) {
  Json vocabulary = Json::object();
  for (size_t id = 0; id < trained.tokens.size(); ++id) vocabulary[trained.tokens[id]] = id;
  if (options.algorithm == Algorithm::kWordPiece) {
    const int64_t unknown = find_special(options.special, {"[UNK]", "<unk>"});
    return {{"type", "WordPiece"},
            {"unk_token", options.special[unknown]},
            {"continuing_subword_prefix", "##"},
            {"max_input_chars_per_word", 100},
            {"vocab", std::move(vocabulary)}};
  }
  Json merges = Json::array();
  for (const auto& [left, right] : trained.merges) merges.push_back(Json::array({left, right}));
  return {{"type", "BPE"},
          {"dropout", nullptr},
          {"unk_token", nullptr},
          {"continuing_subword_prefix", nullptr},
          {"end_of_word_suffix", nullptr},
          {"fuse_unk", false},
          {"byte_fallback", false},
          {"ignore_merges", false},
          {"vocab", std::move(vocabulary)},
          {"merges", std::move(merges)}};
}

Json added_tokens_of(const TokenizerTrainerOptions& options) {
  std::vector<AddedToken> tokens;
  for (size_t i = 0; i < options.special.size(); ++i) {
    AddedToken token;
    token.id = static_cast<int64_t>(i);
    token.content = options.special[i];
    token.normalized = false;
    token.special = true;
    tokens.push_back(token);
  }
  return to_json(tokens);
}

}  // namespace

TokenizerTrainer::TokenizerTrainer(const TokenizerTrainerOptions& options)
    : options_(with_special(options)),
      normalizer_(normalizer_of(options_), kWhere),
      pre_tokenizer_(pre_tokenizer_of(options_), kWhere) {
  HEADLOOM_CHECK(options_.size >= 1, kWhere, "a size of at least 1", cat(options_.size));
  HEADLOOM_CHECK(options_.min_frequency >= 0, kWhere, "a lowest frequency from 0 on",
                 cat(options_.min_frequency));
  HEADLOOM_CHECK(options_.alphabet_limit >= 0, kWhere, "an alphabet limit from 0 on",
                 cat(options_.alphabet_limit));
  std::vector<std::string> sorted = options_.special;
  std::sort(sorted.begin(), sorted.end());
  const auto repeated = std::adjacent_find(sorted.begin(), sorted.end());
  HEADLOOM_CHECK(repeated == sorted.end(), kWhere, "special tokens that differ",
                 cat('"', *repeated, "\" twice"));
  for (const std::string& token : sorted) {
    HEADLOOM_CHECK(!token.empty() && !first_invalid(token), kWhere,
                   "special tokens that are valid UTF-8 and not empty", cat('"', token, '"'));
  }
  HEADLOOM_CHECK(options_.algorithm == Algorithm::kBpe ||
                     find_special(options_.special, {"[UNK]", "<unk>"}) >= 0,
                 kWhere, "[UNK] or <unk> among the special tokens of WordPiece", "neither");
}

void TokenizerTrainer::add(std::string_view line) {
  std::string repaired, prefixed;
  std::string text(valid_text(line, repaired));
  if (!normalizer_.empty()) text = normalizer_.apply(text);
  std::vector<std::string_view> words;
  pre_tokenizer_.split(text, words, prefixed);
  for (const std::string_view word : words) {
    ++words_;
    if (word.size() > kLongestWord) {
      ++skipped_;
    } else {
      ++counts_[std::string(word)];
    }
  }
}

void TokenizerTrainer::add(LineReader& lines) {
  for (std::string line; lines.next(line);) add(line);
}

Tokenizer TokenizerTrainer::train() const {
  HEADLOOM_CHECK(!counts_.empty(), kWhere, "text with words", "none");
  BpeTrainerOptions options;
  options.size = static_cast<size_t>(options_.size);
  options.min_frequency = options_.min_frequency;
  options.special = options_.special;
  WordCounts printable;
  if (options_.algorithm == Algorithm::kBpe) {
    options.alphabet.assign(byte_characters().begin(), byte_characters().end());
    for (const auto& [word, count] : counts_) printable[to_byte_level(word)] = count;
  } else {
    options.continuing_prefix = "##";
    options.alphabet_limit = static_cast<size_t>(options_.alphabet_limit);
  }
  const TrainedBpe trained = train_bpe(printable.empty() ? counts_ : printable, options);
  const Json document = {{"version", "1.0"},
                         {"truncation", nullptr},
                         {"padding", nullptr},
                         {"added_tokens", added_tokens_of(options_)},
                         {"normalizer", normalizer_of(options_)},
                         {"pre_tokenizer", pre_tokenizer_of(options_)},
                         {"post_processor", post_processor_of(options_)},
                         {"decoder", decoder_of(options_)},
                         {"model", model_of(options_, trained)}};
  return Tokenizer::parse(document.dump(), kWhere);
}

}  // namespace headloom::text
