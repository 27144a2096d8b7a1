#include "headloom/text/tokenizer.h"

#include <array>

#include "headloom/base/check.h"
#include "headloom/text/byte_level.h"
#include "headloom/text/tokenizer_parts.h"
#include "headloom/text/utf8.h"

namespace headloom::text {
namespace {

struct RoleNames {
  const char* purpose;
  std::array<const char*, 2> names;
};

RoleNames names_of(Tokenizer::Role role) {
  switch (role) {
    case Tokenizer::Role::kPad:
      return {"padding", {"[PAD]", "<pad>"}};
    case Tokenizer::Role::kBegin:
      return {"the beginning", {"[CLS]", "<s>"}};
    case Tokenizer::Role::kEnd:
      return {"the end", {"[SEP]", "</s>"}};
    case Tokenizer::Role::kMask:
      return {"masking", {"[MASK]", "<mask>"}};
    case Tokenizer::Role::kUnknown:
      break;
  }
  return {"unknown words", {"[UNK]", "<unk>"}};
}

}  // namespace

Tokenizer::Tokenizer(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;
Tokenizer::~Tokenizer() = default;

const std::string* Tokenizer::Parts::token(int64_t id) const {
  const auto found = added_by_id.find(id);
  return found != added_by_id.end() ? &found->second->content : model->vocabulary().token(id);
}

std::vector<int64_t> Tokenizer::encode(std::string_view text) const {
  std::string repaired, prefixed;
  std::vector<std::string_view> words;
  std::vector<int32_t> fresh;
  std::vector<int64_t> ids;
  WordCaches::Loan cache(parts_->caches);
  const Model& model = *parts_->model;
  const bool byte_level = parts_->pre_tokenizer.byte_level();

  const auto add_word = [&](std::string_view word) {
    WordCache::Ids known = (*cache).find(word);
    if (!known.begin) {
      fresh.clear();
      model.encode(byte_level ? std::string_view(to_byte_level(word)) : word, fresh);
      (*cache).store(word, fresh, 0);
      known = {fresh.data(), fresh.size()};
    }
    ids.insert(ids.end(), known.begin, known.begin + known.count);
  };
  parts_->added.split(
      valid_text(text, repaired), parts_->normalizer, [&](int64_t id) { ids.push_back(id); },
      [&](std::string_view piece) {
        parts_->pre_tokenizer.split(piece, words, prefixed);
        for (const std::string_view word : words) add_word(word);
      });
  return ids;
}

Encoding Tokenizer::encode_single(std::string_view text) const {
  return frame(encode(text));
}

Encoding Tokenizer::encode_pair(std::string_view first, std::string_view second) const {
  return frame(encode(first), encode(second));
}

Encoding Tokenizer::frame(const std::vector<int64_t>& ids) const {
  return parts_->post_processor.single(ids);
}

Encoding Tokenizer::frame(const std::vector<int64_t>& first,
                          const std::vector<int64_t>& second) const {
  return parts_->post_processor.pair(first, second);
}

std::string Tokenizer::decode(const std::vector<int64_t>& ids, bool skip_special) const {
  return repair(decode_bytes(ids, skip_special));
}

std::string Tokenizer::decode_bytes(const std::vector<int64_t>& ids, bool skip_special) const {
  std::vector<std::string> tokens;
  tokens.reserve(ids.size());
  for (const int64_t id : ids) {
    const std::string* token = parts_->token(id);
    HEADLOOM_CHECK(token, "tokenizer", cat("ids of tokens, below ", size()), cat(id));
    if (!skip_special || !is_special(id)) tokens.push_back(*token);
  }
  return parts_->decoder.join(tokens);
}

int64_t Tokenizer::size() const {
  return parts_->rows;
}

std::optional<int64_t> Tokenizer::id(std::string_view token) const {
  for (const AddedToken& added : parts_->added.tokens()) {
    if (added.content == token) return added.id;
  }
  return parts_->model->vocabulary().id(token);
}

std::optional<std::string> Tokenizer::token(int64_t id) const {
  const std::string* token = parts_->token(id);
  return token ? std::optional(*token) : std::nullopt;
}

bool Tokenizer::is_special(int64_t id) const {
  const auto found = parts_->added_by_id.find(id);
  return found != parts_->added_by_id.end() && found->second->special;
}

std::optional<int64_t> Tokenizer::id(Role role) const {
  for (const char* name : names_of(role).names) {
    if (const auto found = id(std::string_view(name))) return found;
  }
  return std::nullopt;
}

int64_t Tokenizer::need_id(Role role, const std::string& where) const {
  if (const auto found = id(role)) return *found;
  const RoleNames names = names_of(role);
  fail(where,
       cat("a tokenizer with a token for ", names.purpose, ", ", names.names[0], " or ",
           names.names[1]),
       "none");
}

}  // namespace headloom::text
