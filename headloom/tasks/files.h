#pragma once

#include <filesystem>
#include <string>
#include <string_view>

namespace headloom::tasks {

// A path of a recipe: relative ones start at the base folder.
std::filesystem::path resolve(const std::string& base_folder, const std::string& path);

// All bytes of a regular file. Refuses a missing or unreadable one, a folder, and a compressed one
// (.xz, .gz, .bz2, .zst, by its name), each with what to do.
std::string read_file(const std::filesystem::path& path);

// Writes a whole file under another name and renames it, so that a reader never sees a part; makes
// missing folders. RunError when it cannot.
void write_file(const std::filesystem::path& path, std::string_view bytes);

// Text as an error message quotes it: in quotation marks, control bytes as \xNN, cut to 60 bytes.
std::string excerpt(std::string_view text);

}  // namespace headloom::tasks
