#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "headloom/tasks/task.h"
#include "headloom/text/tokenizer.h"

// B batch, S source tokens, T target tokens.
namespace headloom::tasks {

// The tokenizers of both sides of an encoder-decoder model, one and the same for a joint
// vocabulary, and what they call begin, end and padding.
struct Vocabularies {
  std::shared_ptr<const text::Tokenizer> source, target;
  int64_t source_end = 0, target_begin = 0, target_end = 0;
  int64_t source_pad = 0;      // fills rows; any token serves, for padding is masked
  std::vector<int64_t> never;  // ids that no text holds: special tokens, and ids without a token
  bool is_joint() const { return source == target; }
};

// Decoders start from the begin token. Refuses tokenizers without an end, or a target's without a
// begin. `where` starts the message.
Vocabularies make_vocabularies(std::shared_ptr<const text::Tokenizer> source,
                               std::shared_ptr<const text::Tokenizer> target,
                               const std::string& where);

// Of a target whose embedding has `rows` rows, as `never` lists them.
std::vector<int64_t> ids_of_no_text(const text::Tokenizer& target, int64_t end, int64_t rows);

using TokenLists = std::vector<std::vector<int64_t>>;  // each a text, without begin and end

// Rows of source tokens with their end, [B, S], filled up with `pad`; and where they are filled,
// [B, S] bool, undefined when nowhere.
std::pair<at::Tensor, at::Tensor> source_batch(const TokenLists& rows,
                                               const Vocabularies& vocabularies);

// What a decoder reads, the begin token and the text, and what it predicts, the text and the end:
// [B, T] each, the latter with -100 behind the end.
struct TargetRows {
  at::Tensor read, predicted;
  int64_t tokens = 0;  // to predict
};
TargetRows target_rows(const TokenLists& rows, const Vocabularies& vocabularies);

// Sources and their targets. Tokens are counted on the target's side.
Batch pair_batch(const TokenLists& sources, const TokenLists& targets,
                 const Vocabularies& vocabularies);

}  // namespace headloom::tasks
