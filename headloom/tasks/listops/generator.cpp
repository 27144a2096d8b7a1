#include "headloom/tasks/listops/generator.h"

#include <string_view>
#include <vector>

#include "headloom/base/check.h"
#include "headloom/base/parallel.h"
#include "headloom/tasks/random.h"

namespace headloom::tasks::listops {
namespace {

constexpr const char* kWhere = "task listops";

// One tree, written as tokens. Stops as soon as it is too long to be kept.
class Grower {
 public:
  Grower(const GeneratorConfig& config, int64_t candidate)
      : config_(config),
        stream_(config.seed, Purpose::kExpressions, static_cast<uint64_t>(candidate)) {}

  bool grow(int64_t depth) {
    constexpr double kOperator = 0.25;
    if (depth == config_.max_depth || stream_.uniform() > kOperator) {
      tokens_.push_back(static_cast<uint8_t>(kDigit0 + stream_.below(10)));
      return fits();
    }
    const uint64_t arguments = 2 + stream_.below(config_.max_args - 1);
    const size_t operation = tokens_.size();
    tokens_.push_back(kPad);
    for (uint64_t i = 0; i < arguments; ++i) {
      if (!grow(depth + 1)) return false;
    }
    tokens_[operation] = static_cast<uint8_t>(kMin + stream_.below(4));
    tokens_.push_back(kClose);
    return fits();
  }

  Tokens take() { return std::move(tokens_); }

 private:
  bool fits() const { return static_cast<int64_t>(tokens_.size()) <= config_.max_length; }

  const GeneratorConfig& config_;
  RandomStream stream_;
  Tokens tokens_;
};

struct Fnv {
  uint64_t hash = 0xcbf29ce484222325u;
  template <class Bytes>
  void add(const Bytes& bytes) {
    for (const auto byte : bytes) hash = (hash ^ static_cast<uint8_t>(byte)) * 0x100000001b3u;
  }
};

uint64_t hash(const Tokens& tokens) {
  Fnv fnv;
  fnv.add(tokens);
  return fnv.hash;
}

}  // namespace

Generator::Generator(const GeneratorConfig& config) : config_(config) {
  // The depth bounds the recursion, the length the memory.
  constexpr int64_t kLongest = 1'000'000, kDeepest = 1'000;
  HEADLOOM_CHECK(config.min_length >= 1 && config.min_length <= config.max_length &&
                     config.max_length <= kLongest,
                 kWhere, cat("1 <= min_length <= max_length <= ", kLongest),
                 cat("min_length ", config.min_length, ", max_length ", config.max_length));
  HEADLOOM_CHECK(config.max_depth >= 1 && config.max_depth <= kDeepest, kWhere,
                 cat("max_depth between 1 and ", kDeepest), cat(config.max_depth));
  HEADLOOM_CHECK(config.max_args >= 2 && config.max_args <= kLongest, kWhere,
                 cat("max_args between 2 and ", kLongest), cat(config.max_args));
}

std::optional<Tokens> Generator::candidate(int64_t index) const {
  Grower grower(config_, index);
  if (!grower.grow(1)) return std::nullopt;
  Tokens tokens = grower.take();
  if (static_cast<int64_t>(tokens.size()) < config_.min_length) return std::nullopt;
  return tokens;
}

void Generator::check_yield(int64_t wanted) const {
  constexpr int64_t kPatience = 200'000, kFewest = 10'000;
  HEADLOOM_CHECK(drawn() < kPatience || made() > drawn() / kFewest, kWhere,
                 cat(wanted, " distinct expressions of ", config_.min_length, " to ",
                     config_.max_length, " tokens"),
                 cat(made(), " in ", drawn(), " draws"),
                 "Widen min_length .. max_length, raise max_args or max_depth, or ask for fewer.");
}

Examples Generator::next(int64_t count) {
  constexpr int64_t kBlock = 8192;
  const int64_t wanted = made() + count;
  Examples examples;
  std::vector<std::optional<Tokens>> block(kBlock);
  while (made() < wanted) {
    check_yield(wanted);
    parallel_for(0, kBlock, 64, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) block[i] = candidate(next_candidate_ + i);
    });
    int64_t used = 0;
    for (; used < kBlock && made() < wanted; ++used) {
      if (!block[used] || !seen_.insert(hash(*block[used])).second) continue;
      const auto value = static_cast<uint8_t>(evaluate(*block[used], kWhere));
      examples.push_back({std::move(*block[used]), value});
    }
    next_candidate_ += used;
  }
  return examples;
}

uint64_t checksum(const Examples& examples) {
  Fnv fnv;
  for (const Example& example : examples) {
    fnv.add(cat(print(example.tokens), '\t', int(example.value), '\n'));
  }
  return fnv.hash;
}

}  // namespace headloom::tasks::listops
