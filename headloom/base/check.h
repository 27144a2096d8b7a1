#pragma once

#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>

namespace headloom {

// Bad input. what() reads "<operator>: expected <...>; found <...>. <what to do>".
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// A run that failed through no fault of its input: a loss that is not finite, a disk that is full
// at the end. The command line exits with 1 for it and with 2 for Error.
class RunError : public Error {
 public:
  using Error::Error;
};

// Concatenates anything that has operator<<.
template <class... Parts>
std::string cat(const Parts&... parts) {
  std::ostringstream text;
  (text << ... << parts);
  return text.str();
}

// Raises Error in the house's form. `advice` is a whole sentence, or empty.
[[noreturn]] void fail(std::string_view where, std::string_view expected, std::string_view found,
                       std::string_view advice = {});

}  // namespace headloom

// The strings are built only when the condition is false.
#define HEADLOOM_CHECK(condition, where, expected, ...)   \
  do {                                                    \
    if (!(condition)) {                                   \
      ::headloom::fail((where), (expected), __VA_ARGS__); \
    }                                                     \
  } while (false)
