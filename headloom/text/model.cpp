#include "headloom/text/model.h"

#include "headloom/text/bpe.h"
#include "headloom/text/wordpiece.h"

namespace headloom::text {

std::unique_ptr<Model> make_model(const Json& part, std::unique_ptr<Vocabulary> vocabulary,
                                  Merges merges, const std::string& where) {
  if (part_type(part, {"BPE", "WordPiece"}, where) == "BPE") {
    return std::make_unique<Bpe>(part, std::move(vocabulary), std::move(merges), where);
  }
  return std::make_unique<WordPiece>(part, std::move(vocabulary), where);
}

}  // namespace headloom::text
