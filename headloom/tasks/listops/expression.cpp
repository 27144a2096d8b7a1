#include "headloom/tasks/listops/expression.h"

#include <algorithm>
#include <array>
#include <numeric>

#include "headloom/base/check.h"
#include "headloom/base/nearest.h"
#include "headloom/tasks/files.h"

namespace headloom::tasks::listops {
namespace {

const std::array<std::string, kVocabulary>& names() {
  static const std::array<std::string, kVocabulary> names = {
      "<pad>", "0", "1",    "2",    "3",    "4",   "5", "6",        "7",
      "8",     "9", "[MIN", "[MAX", "[MED", "[SM", "]", "<unknown>"};
  return names;
}

bool is_digit(uint8_t token) {
  return token >= kDigit0 && token < kDigit0 + 10;
}

bool is_operator(uint8_t token) {
  return token >= kMin && token <= kSm;
}

using Values = std::vector<int>;

int apply(uint8_t operation, Values::iterator begin, Values::iterator end) {
  switch (operation) {
    case kMin:
      return *std::min_element(begin, end);
    case kMax:
      return *std::max_element(begin, end);
    case kSm:
      return std::accumulate(begin, end, 0) % 10;
    default: {
      std::sort(begin, end);
      const auto count = end - begin;
      return (begin[(count - 1) / 2] + begin[count / 2]) / 2;
    }
  }
}

uint8_t find_token(std::string_view word, std::string_view where) {
  const auto begin = names().begin() + kDigit0, end = names().begin() + kClose + 1;
  const auto found = std::find(begin, end, word);
  if (found == end) {
    const std::string nearest = nearest_name(word, {begin, end});
    fail(where, "tokens among 0-9 [MIN [MAX [MED [SM ] ( )", excerpt(word),
         nearest.empty() ? "" : cat("Did you mean \"", nearest, "\"?"));
  }
  return static_cast<uint8_t>(found - names().begin());
}

// The number of arguments of each operator, by its position.
std::vector<int> count_arguments(const Tokens& tokens) {
  std::vector<int> counts(tokens.size());
  std::vector<size_t> open;
  for (size_t at = 0; at < tokens.size(); ++at) {
    if (is_operator(tokens[at])) {
      open.push_back(at);
      continue;
    }
    if (tokens[at] == kClose) open.pop_back();
    if (!open.empty()) ++counts[open.back()];
  }
  return counts;
}

}  // namespace

int evaluate(const Tokens& tokens, std::string_view where) {
  struct Open {
    uint8_t operation;
    size_t first;  // of its arguments in `values`
  };
  std::vector<Open> open;
  Values values;
  for (size_t at = 0; at < tokens.size(); ++at) {
    const uint8_t token = tokens[at];
    HEADLOOM_CHECK(is_digit(token) || is_operator(token) || token == kClose, where,
                   "token ids 1 to 15", cat(int(token), " at position ", at));
    HEADLOOM_CHECK(at == 0 || !open.empty(), where, "one expression",
                   cat("\"", names()[token], "\" after its end, at token ", at + 1));
    if (is_digit(token)) {
      values.push_back(token - kDigit0);
    } else if (is_operator(token)) {
      open.push_back({token, values.size()});
    } else {
      HEADLOOM_CHECK(!open.empty(), where, "an expression", "\"]\" before any operator");
      const auto [operation, first] = open.back();
      HEADLOOM_CHECK(values.size() > first, where, "operators with arguments",
                     cat("\"", names()[operation], " ]\" at token ", at + 1));
      const int value = apply(operation, values.begin() + first, values.end());
      values.resize(first);
      values.push_back(value);
      open.pop_back();
    }
  }
  HEADLOOM_CHECK(!tokens.empty(), where, "an expression", "nothing");
  HEADLOOM_CHECK(open.empty(), where, "a \"]\" for every operator",
                 cat(open.size(), " never closed"));
  return values.front();
}

Example parse(std::string_view text, std::string_view where) {
  Example example;
  int64_t parentheses = 0;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find(' ', begin), text.size());
    const std::string_view word = text.substr(begin, end - begin);
    begin = end + 1;
    if (word == "(") {
      ++parentheses;
    } else if (word == ")") {
      HEADLOOM_CHECK(parentheses > 0, where, "parentheses that match", "\")\" without \"(\"");
      --parentheses;
    } else if (!word.empty()) {
      example.tokens.push_back(find_token(word, where));
    }
  }
  HEADLOOM_CHECK(parentheses == 0, where, "parentheses that match",
                 cat(parentheses, " \"(\" without \")\""));
  example.value = static_cast<uint8_t>(evaluate(example.tokens, where));
  return example;
}

std::string print(const Tokens& tokens) {
  std::string text;
  for (const uint8_t token : tokens) {
    if (!text.empty()) text += ' ';
    text += names()[token];
  }
  return text;
}

std::string print_tree(const Tokens& tokens) {
  const std::vector<int> counts = count_arguments(tokens);
  std::string text;
  size_t depth = 0;
  for (size_t at = 0; at < tokens.size(); ++at) {
    if (at > 0) text += ' ';
    for (int i = 0; is_operator(tokens[at]) && i <= counts[at]; ++i) text += "( ";
    text += names()[tokens[at]];
    if (is_operator(tokens[at])) {
      ++depth;
      continue;
    }
    if (tokens[at] == kClose) {
      text += " )";
      --depth;
    }
    if (depth > 0) text += " )";
  }
  return text;
}

}  // namespace headloom::tasks::listops
