#pragma once

#include <array>
#include <optional>
#include <string_view>

#include "headloom/text/pair_table.h"

namespace headloom::text {

// Strings with ids, for finding the longest that a text starts with.
class ByteTrie {
 public:
  using Node = uint32_t;
  static constexpr Node kRoot = 0;

  void add(std::string_view word, int32_t id) {
    Node node = kRoot;
    for (const char c : word) node = child_or_new(node, static_cast<unsigned char>(c));
    ids_[node] = id;
    if (!word.empty()) starts_[static_cast<unsigned char>(word[0])] = true;
  }

  // The node that `word` leads to from the root.
  std::optional<Node> find(std::string_view word) const {
    Node node = kRoot;
    for (const char c : word) {
      const uint64_t* next = edges_.find(key(node, static_cast<unsigned char>(c)));
      if (!next) return std::nullopt;
      node = static_cast<Node>(*next);
    }
    return node;
  }

  struct Match {
    int32_t id = -1;
    size_t bytes = 0;  // 0: nothing matches
  };
  // The longest word that text.substr(at) starts with, when words are read from `node` on.
  Match longest(std::string_view text, size_t at, Node node = kRoot) const {
    Match best;
    for (size_t end = at; end < text.size();) {
      const uint64_t* next = edges_.find(key(node, static_cast<unsigned char>(text[end])));
      if (!next) break;
      node = static_cast<Node>(*next);
      ++end;
      if (ids_[node] >= 0) best = {ids_[node], end - at};
    }
    return best;
  }

  // Whether some word starts with this byte.
  bool starts(char byte) const { return starts_[static_cast<unsigned char>(byte)]; }
  bool empty() const { return ids_.size() == 1; }

 private:
  static uint64_t key(Node node, unsigned char byte) { return pair_key(node, byte); }

  Node child_or_new(Node node, unsigned char byte) {
    if (const uint64_t* next = edges_.find(key(node, byte))) return static_cast<Node>(*next);
    ids_.push_back(-1);
    const Node made = static_cast<Node>(ids_.size() - 1);
    edges_.set(key(node, byte), made);
    return made;
  }

  PairTable edges_;
  std::vector<int32_t> ids_{-1};  // of the word that ends at a node, or -1
  std::array<bool, 256> starts_{};
};

}  // namespace headloom::text
