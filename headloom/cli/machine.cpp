#include "headloom/cli/machine.h"

#include <ATen/Parallel.h>
#include <torch/version.h>
#include <unistd.h>

#include <cctype>
#include <fstream>

#include "headloom/base/check.h"
#include "headloom/report/report.h"

namespace headloom::cli {
namespace {

// With the family: virtual machines call generations alike, whose peaks differ by a factor of two.
std::string processor_name() {
  std::ifstream file("/proc/cpuinfo");
  std::string name = "unknown processor", family;
  for (std::string line; std::getline(file, line) && !line.empty();) {
    const size_t colon = line.find(": ");
    if (colon == std::string::npos) continue;
    if (line.starts_with("model name")) name = line.substr(colon + 2);
    if (line.starts_with("cpu family")) family = line.substr(colon + 2);
  }
  return family.empty() ? name : cat(name, " (family ", family, ")");
}

bool needs_no_quotes(const std::string& word) {
  for (const char c : word) {
    const bool plain = std::isalnum(static_cast<unsigned char>(c)) ||
                       std::string_view("_-./=,:+@%").find(c) != std::string_view::npos;
    if (!plain) return false;
  }
  return !word.empty();
}

}  // namespace

Machine describe_machine(int64_t threads) {
  Machine machine;
  machine.processor = processor_name();
  machine.cores = ::sysconf(_SC_NPROCESSORS_ONLN);
  machine.threads = threads > 0 ? threads : at::get_num_threads();
  machine.memory_bytes = int64_t{::sysconf(_SC_PHYS_PAGES)} * ::sysconf(_SC_PAGE_SIZE);
  machine.torch_version = TORCH_VERSION;
  machine.headloom_version = HEADLOOM_VERSION;
  return machine;
}

std::string to_string(const Machine& machine) {
  const double gib = static_cast<double>(machine.memory_bytes) / (1 << 30);
  return cat(machine.processor, ", ", machine.cores, " cores, ", machine.threads, " threads, ",
             report::format_number(gib, 3), " GiB, headloom ", machine.headloom_version, ", torch ",
             machine.torch_version);
}

std::string shell_line(const std::vector<std::string>& words) {
  std::string line;
  for (const std::string& word : words) {
    if (!line.empty()) line += ' ';
    if (needs_no_quotes(word)) {
      line += word;
      continue;
    }
    line += '\'';
    for (const char c : word) line += c == '\'' ? std::string("'\\''") : std::string(1, c);
    line += '\'';
  }
  return line;
}

}  // namespace headloom::cli
