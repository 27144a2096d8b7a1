#pragma once

#include <algorithm>
#include <vector>

#include "headloom/tasks/listops/expression.h"

namespace headloom::tasks::listops {

// A second reading of an expression, by recursion, to check the stack machine with.
struct Tree {
  explicit Tree(const Tokens& tokens) {
    size_t at = 0;
    read(tokens, at);
  }

  int value() const {
    if (children.empty()) return token - kDigit0;
    std::vector<int> values;
    for (const Tree& child : children) values.push_back(child.value());
    return apply(values);
  }

  // By its definition: the operator on any values, in whatever order.
  int apply(std::vector<int> values) const {
    std::sort(values.begin(), values.end());
    const size_t count = values.size();
    if (token == kMin) return values.front();
    if (token == kMax) return values.back();
    if (token == kMed) {
      return count % 2 ? values[count / 2] : (values[count / 2 - 1] + values[count / 2]) / 2;
    }
    int sum = 0;
    for (const int value : values) sum += value;
    return sum % 10;
  }

  // Nested operators.
  int depth() const {
    int deepest = 0;
    for (const Tree& child : children) deepest = std::max(deepest, child.depth());
    return deepest + (children.empty() ? 0 : 1);
  }

  uint8_t token = 0;
  std::vector<Tree> children;

 private:
  Tree() = default;

  void read(const Tokens& tokens, size_t& at) {
    token = tokens.at(at++);
    if (token < kMin) return;
    while (tokens.at(at) != kClose) {
      children.push_back(Tree());
      children.back().read(tokens, at);
    }
    ++at;
  }
};

}  // namespace headloom::tasks::listops
