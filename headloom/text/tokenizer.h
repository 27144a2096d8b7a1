#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "headloom/text/post_processor.h"

namespace headloom::text {

// A tokenizer as the ecosystem's tokenizer.json describes it: byte-level BPE (GPT-2, RoBERTa) and
// WordPiece (BERT) with their normalisers, pre-tokenisers, post-processors and decoders. What each
// part may be is in its header (normalizer.h, pre_tokenizer.h, bpe.h, wordpiece.h,
// post_processor.h, decoder.h, added_tokens.h); anything else is refused by name, with the part.
//
// Ids are those of the tokenizers package for the same file, with two exceptions: "truncation" and
// "padding" are kept but not applied, and text that is not valid UTF-8, which the package cannot be
// given, is repaired first (utf8.h). Any text is legal, of any length, with NUL or without spaces;
// the time is n log n in the length of its longest word.
//
// Safe to use from several threads at once.
class Tokenizer {
 public:
  // Refuses what is not a tokenizer.json, ids that contradict each other and merges of unknown
  // tokens. `where` is what messages call it, e.g. its path.
  static Tokenizer parse(std::string_view json, const std::string& where);
  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;
  ~Tokenizer();

  // The file again, indented: what it said, with ids in order and merges as pairs.
  std::string to_json() const;

  // Without special tokens, those that stand in the text excepted.
  std::vector<int64_t> encode(std::string_view text) const;
  // With the special tokens of the post-processor around one text or two.
  Encoding encode_single(std::string_view text) const;
  Encoding encode_pair(std::string_view first, std::string_view second) const;
  // The same around ids that encode() gave and that were cut, say.
  Encoding frame(const std::vector<int64_t>& ids) const;
  Encoding frame(const std::vector<int64_t>& first, const std::vector<int64_t>& second) const;

  // Ids that no token has are refused. Bytes that do not make characters become U+FFFD, unless they
  // are asked for as they are (decode_bytes), e.g. because more tokens follow.
  std::string decode(const std::vector<int64_t>& ids, bool skip_special = true) const;
  std::string decode_bytes(const std::vector<int64_t>& ids, bool skip_special = true) const;

  // Rows of an embedding: one more than the largest id.
  int64_t size() const;
  std::optional<int64_t> id(std::string_view token) const;
  std::optional<std::string> token(int64_t id) const;
  bool is_special(int64_t id) const;

  // The special token for a purpose under the names in use: kPad [PAD] <pad>; kBegin [CLS] <s>;
  // kEnd [SEP] </s>; kMask [MASK] <mask>; kUnknown [UNK] <unk>.
  enum class Role { kPad, kBegin, kEnd, kMask, kUnknown };
  std::optional<int64_t> id(Role role) const;
  // The same, refusing a tokenizer without one. `where` starts the message.
  int64_t need_id(Role role, const std::string& where) const;

 private:
  struct Parts;
  explicit Tokenizer(std::unique_ptr<Parts> parts);
  std::unique_ptr<Parts> parts_;
};

}  // namespace headloom::text
