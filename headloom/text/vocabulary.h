#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace headloom::text {

// Tokens and their ids. Ids may leave gaps.
class Vocabulary {
 public:
  // Far beyond any vocabulary in use; keeps a false id from filling the memory.
  static constexpr int64_t kLargestId = (int64_t{1} << 24) - 1;

  // Refuses an id out of 0 .. kLargestId, and a token or an id that is there already.
  void add(std::string_view token, int64_t id, const std::string& where);

  std::optional<int32_t> id(std::string_view token) const {
    const auto found = ids_.find(token);
    if (found == ids_.end()) return std::nullopt;
    return found->second;
  }
  // nullptr for an id that no token has.
  const std::string* token(int64_t id) const {
    return id >= 0 && id < rows() ? tokens_[static_cast<size_t>(id)] : nullptr;
  }
  int64_t rows() const { return static_cast<int64_t>(tokens_.size()); }  // 1 + the largest id
  size_t size() const { return ids_.size(); }

 private:
  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
  };
  std::unordered_map<std::string, int32_t, Hash, std::equal_to<>> ids_;
  std::vector<const std::string*> tokens_;  // keys of ids_, which stay where they are
};

}  // namespace headloom::text
