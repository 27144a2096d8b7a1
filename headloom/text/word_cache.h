#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

namespace headloom::text {

// Remembers the ids of short words: few words make up most of a text.
class WordCache {
 public:
  struct Ids {
    const int32_t* begin = nullptr;  // nullptr: not here
    size_t count = 0;
  };

  WordCache() : slots_(size_t{1} << kBits) {}

  // The result holds until the next store().
  Ids find(std::string_view word) const {
    const Slot& slot = slots_[place(word)];
    if (slot.key != word) return {};
    return {slot.ids.data(), slot.ids.size()};
  }

  // Takes the place of another word, if need be.
  void store(std::string_view word, const std::vector<int32_t>& ids, size_t from) {
    if (word.size() > kLongest || word.empty()) return;
    Slot& slot = slots_[place(word)];
    slot.key.assign(word);
    slot.ids.assign(ids.begin() + static_cast<std::ptrdiff_t>(from), ids.end());
  }

 private:
  // 32,768 places hold the words of a large corpus but for rare ones in 3 MB.
  static constexpr int kBits = 15;
  static constexpr size_t kLongest = 64;  // bytes

  struct Slot {
    std::string key;  // no word is empty, so an empty key is a free place
    std::vector<int32_t> ids;
  };

  static size_t place(std::string_view word) {
    return std::hash<std::string_view>()(word) & ((size_t{1} << kBits) - 1);
  }

  std::vector<Slot> slots_;
};

// Lends a cache to each caller at a time, so that threads never wait for each other's.
class WordCaches {
 public:
  class Loan {
   public:
    explicit Loan(WordCaches& owner) : owner_(owner), cache_(owner.take()) {}
    ~Loan() { owner_.give_back(std::move(cache_)); }
    Loan(const Loan&) = delete;
    Loan& operator=(const Loan&) = delete;
    WordCache& operator*() { return *cache_; }

   private:
    WordCaches& owner_;
    std::unique_ptr<WordCache> cache_;
  };

 private:
  std::unique_ptr<WordCache> take() {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (idle_.empty()) return std::make_unique<WordCache>();
    std::unique_ptr<WordCache> cache = std::move(idle_.back());
    idle_.pop_back();
    return cache;
  }
  void give_back(std::unique_ptr<WordCache> cache) {
    const std::lock_guard<std::mutex> lock(mutex_);
    idle_.push_back(std::move(cache));
  }

  std::mutex mutex_;
  std::vector<std::unique_ptr<WordCache>> idle_;
};

}  // namespace headloom::text
