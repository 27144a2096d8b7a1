#include "headloom/tasks/text_to_text/prompts.h"

#include "headloom/base/check.h"

namespace headloom::tasks::text_to_text {
namespace {

using Ids = std::vector<int64_t>;

}  // namespace

Ids prompt(const ClassifiedTexts& row, const GlueFormat& format, const text::Tokenizer& tokenizer,
           int64_t room, const char* where) {
  // Words keep the space in front of them, so that the parts have the tokens of the whole.
  const auto after_space = [&](const std::string& text) { return tokenizer.encode(' ' + text); };
  const bool pair = format.pairs();
  Ids tokens = tokenizer.encode(cat(format.name, pair ? " sentence1:" : " sentence:"));
  const Ids between = pair ? after_space("sentence2:") : Ids();
  const auto words = static_cast<int64_t>(tokens.size() + between.size());
  HEADLOOM_CHECK(words < room, where,
                 cat("max_length of at least ", words + 2, ", for \"", format.name,
                     pair ? " sentence1: sentence2:" : " sentence:", "\", a token and the end"),
                 cat(room + 1));
  Ids first = after_space(row.sentences[0]);
  Ids second = pair ? after_space(row.sentences[1]) : Ids();
  cut_longer(first, second, static_cast<size_t>(room - words));
  for (const Ids& part : {first, between, second}) {
    tokens.insert(tokens.end(), part.begin(), part.end());
  }
  return tokens;
}

}  // namespace headloom::tasks::text_to_text
