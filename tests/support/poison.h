#pragma once

// Memory that betrays whoever reads it before writing it.
namespace headloom::testing {

// For its lifetime malloc and operator new hand out memory filled with NaN (kNaN) or with huge
// finite numbers (kHuge) in every floating type, also for blocks that were freed before.
class Poison {
 public:
  enum class Pattern { kNaN, kHuge };
  explicit Poison(Pattern pattern);
  ~Poison();
  Poison(const Poison&) = delete;
  Poison& operator=(const Poison&) = delete;
};

}  // namespace headloom::testing
