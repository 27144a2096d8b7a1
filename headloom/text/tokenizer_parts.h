#pragma once

#include <map>
#include <memory>

#include "headloom/text/added_tokens.h"
#include "headloom/text/decoder.h"
#include "headloom/text/model.h"
#include "headloom/text/normalizer.h"
#include "headloom/text/post_processor.h"
#include "headloom/text/pre_tokenizer.h"
#include "headloom/text/tokenizer.h"
#include "headloom/text/word_cache.h"

namespace headloom::text {

// What a tokenizer.json consists of.
struct Tokenizer::Parts {
  Json document;  // without the vocabulary and the merges
  Normalizer normalizer;
  PreTokenizer pre_tokenizer;
  std::unique_ptr<Model> model;
  AddedTokens added;
  std::map<int64_t, const AddedToken*> added_by_id;
  PostProcessor post_processor;
  Decoder decoder;
  int64_t rows = 0;
  WordCaches caches;

  const std::string* token(int64_t id) const;
};

}  // namespace headloom::text
