#include "headloom/text/vocabulary.h"

#include "headloom/base/check.h"

namespace headloom::text {

void Vocabulary::add(std::string_view token, int64_t id, const std::string& where) {
  HEADLOOM_CHECK(id >= 0 && id <= kLargestId, where, cat("ids from 0 to ", kLargestId),
                 cat(id, " for \"", token, '"'));
  HEADLOOM_CHECK(!this->token(id), where, "one token for each id",
                 cat("id ", id, " for \"", *this->token(id), "\" and \"", token, '"'));
  const auto [entry, is_new] = ids_.emplace(std::string(token), static_cast<int32_t>(id));
  HEADLOOM_CHECK(is_new, where, "one id for each token",
                 cat("ids ", entry->second, " and ", id, " for \"", token, '"'));
  if (id >= rows()) tokens_.resize(static_cast<size_t>(id) + 1, nullptr);
  tokens_[static_cast<size_t>(id)] = &entry->first;
}

}  // namespace headloom::text
