#pragma once

#include <filesystem>
#include <string>

namespace headloom::tasks {

// The bytes of a file, or of all regular files below a folder in the order of their paths (compared
// as bytes), with a newline after each file that does not end in one. Names that start with a dot
// are skipped in a folder. Refuses a missing path, a folder without files, a file that cannot be
// read, and compressed files.
std::string read_corpus(const std::filesystem::path& path);

}  // namespace headloom::tasks
