#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "headloom/text/json.h"
#include "headloom/text/vocabulary.h"

namespace headloom::text {

using Merges = std::vector<std::pair<std::string, std::string>>;

// The "model" of a tokenizer.json: turns one word into ids.
class Model {
 public:
  virtual ~Model() = default;
  virtual void encode(std::string_view word, std::vector<int32_t>& ids) const = 0;  // appends
  const Vocabulary& vocabulary() const { return *vocabulary_; }
  virtual const Merges* merges() const { return nullptr; }

 protected:
  explicit Model(std::unique_ptr<Vocabulary> vocabulary) : vocabulary_(std::move(vocabulary)) {}

 private:
  std::unique_ptr<Vocabulary> vocabulary_;
};

// Of type BPE or WordPiece (others are refused by name), without regard to "vocab" and "merges",
// which come as arguments.
std::unique_ptr<Model> make_model(const Json& part, std::unique_ptr<Vocabulary> vocabulary,
                                  Merges merges, const std::string& where);

}  // namespace headloom::text
