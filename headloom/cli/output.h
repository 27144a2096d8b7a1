#pragma once

#include <string>
#include <string_view>

namespace headloom::cli {

// Standard output has no reader any more, as in `headloom list | head -1`: nothing is wrong, and
// nothing is left to do for a command that only prints.
struct OutputClosed {};

// Once, before anything else: a closed pipe becomes a failed write instead of a signal, and a
// standard stream that was closed by the caller leads to /dev/null, so that no file that is opened
// later takes its place.
void prepare_streams();

// Writes all of `text` to standard output now. OutputClosed, or RunError when the write fails for
// another reason.
void print(std::string_view text);

// "headloom: <message>" on standard error.
void complain(std::string_view message);

// Writes a whole file, or RunError.
void write_file(const std::string& path, std::string_view text);

}  // namespace headloom::cli
