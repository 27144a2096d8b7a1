#include "headloom/base/check.h"

namespace headloom {

void fail(std::string_view where, std::string_view expected, std::string_view found,
          std::string_view advice) {
  std::string text = cat(where, ": expected ", expected, "; found ", found, ".");
  if (!advice.empty()) {
    text += cat(" ", advice);
  }
  throw Error(text);
}

}  // namespace headloom
