#include "headloom/train/checkpoint.h"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <iomanip>
#include <sstream>
#include <string_view>

#include "headloom/base/check.h"
#include "headloom/base/nearest.h"
#include "headloom/train/checkpoint_files.h"

namespace headloom::train {
namespace {

constexpr std::string_view kTemporary = ".tmp", kOld = ".old", kStep = "step_";
constexpr const char* kBest = "best";
constexpr int kStepDigits = 8;

std::string step_name(int64_t step) {
  std::ostringstream name;
  name << kStep << std::setw(kStepDigits) << std::setfill('0') << step;
  return name.str();
}

bool take_suffix(std::string_view& name, std::string_view suffix) {
  if (!name.ends_with(suffix)) return false;
  name.remove_suffix(suffix.size());
  return true;
}

// The step of a name as step_name() makes it, or nothing.
std::optional<int64_t> step_of(std::string_view name) {
  if (!name.starts_with(kStep)) return std::nullopt;
  const std::string_view digits = name.substr(kStep.size());
  int64_t step = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), step);
  if (error != std::errc() || end != digits.data() + digits.size()) return std::nullopt;
  if (step < 0 || step_name(step) != name) return std::nullopt;
  return step;
}

bool is_checkpoint_name(std::string_view name) {
  return name == kBest || step_of(name);
}

std::vector<std::string> names_in(const std::string& folder) {
  std::vector<std::string> names;
  std::error_code error;
  for (std::filesystem::directory_iterator entry(folder, error), end; !error && entry != end;
       entry.increment(error)) {
    names.push_back(entry->path().filename().string());
  }
  const bool missing = error == std::errc::no_such_file_or_directory;
  HEADLOOM_CHECK(!error || missing, folder, "to list the folder", error.message());
  return names;
}

// A checkpoint by step: `name` is the folder's, which may end in ".old".
struct Candidate {
  int64_t step;
  bool old;
  std::string name;
};

// Newest first; of one step, the one in place before the one set aside.
std::vector<Candidate> candidates(const std::string& folder) {
  std::vector<Candidate> found;
  for (const std::string& name : names_in(folder)) {
    std::string_view base = name;
    const bool old = take_suffix(base, kOld);
    if (const auto step = step_of(base)) found.push_back({*step, old, name});
  }
  std::sort(found.begin(), found.end(), [](const Candidate& a, const Candidate& b) {
    return std::pair(-a.step, a.old) < std::pair(-b.step, b.old);
  });
  return found;
}

// Clears what a save that was cut short has left: unfinished folders, and checkpoints set aside,
// which go back to their place when nothing has taken it.
void recover(const std::string& folder) {
  for (const std::string& name : names_in(folder)) {
    std::string_view base = name;
    const std::string path = folder + "/" + name;
    if (take_suffix(base, kTemporary)) {
      if (is_checkpoint_name(base)) remove_path(path);
    } else if (take_suffix(base, kOld) && is_checkpoint_name(base)) {
      const std::string place = folder + "/" + std::string(base);
      if (is_folder(place)) {
        remove_path(path);
      } else {
        rename_path(path, place);
      }
    }
  }
}

// A whole checkpoint moves to `place`. At every moment one of place and place.old is whole if
// place was.
void put_in_place(const std::string& temporary, const std::string& place) {
  const std::string old = place + std::string(kOld);
  const bool replaces = is_folder(place);
  if (replaces) rename_path(place, old);
  try {
    rename_path(temporary, place);
  } catch (const Error&) {
    if (replaces && !is_folder(place)) rename_path(old, place);
    throw;
  }
  if (replaces) remove_path(old);
}

void save_as(const std::string& folder, const std::string& name, const Checkpoint& checkpoint) {
  HEADLOOM_CHECK(checkpoint.step >= 0, folder, "a checkpoint of step 0 or more",
                 cat("step ", checkpoint.step));
  create_folder(folder);
  recover(folder);
  const std::string place = folder + "/" + name;
  const std::string temporary = place + std::string(kTemporary);
  try {
    write_checkpoint(temporary, checkpoint);
    put_in_place(temporary, place);
  } catch (...) {
    std::error_code ignored;
    std::filesystem::remove_all(temporary, ignored);
    throw;
  }
}

// Removes by way of the temporary name, so that a removal that is cut short leaves nothing that
// looks like a checkpoint.
void discard(const std::string& path) {
  const std::string temporary = path + std::string(kTemporary);
  rename_path(path, temporary);
  remove_path(temporary);
}

}  // namespace

void CheckpointFolder::save(const Checkpoint& checkpoint, int64_t keep) {
  HEADLOOM_CHECK(keep >= 1, folder_, "to keep at least 1 checkpoint", cat(keep));
  save_as(folder_, step_name(checkpoint.step), checkpoint);
  int64_t kept = 0;
  for (const Candidate& candidate : candidates(folder_)) {
    // Later ones are of another attempt, or damaged: they do not count, and this does not judge.
    if (candidate.step > checkpoint.step || ++kept <= keep) continue;
    discard(folder_ + "/" + candidate.name);
  }
}

void CheckpointFolder::save_best(const Checkpoint& checkpoint) {
  save_as(folder_, kBest, checkpoint);
}

std::optional<Checkpoint> CheckpointFolder::load_newest(std::vector<std::string>& warnings) const {
  std::vector<std::string> reasons;
  for (const Candidate& candidate : candidates(folder_)) {
    try {
      Checkpoint checkpoint = load(folder_ + "/" + candidate.name);
      for (const std::string& reason : reasons) warnings.push_back("skipped " + reason);
      return checkpoint;
    } catch (const Error& error) {
      reasons.emplace_back(error.what());
    }
  }
  HEADLOOM_CHECK(reasons.empty(), folder_, "a checkpoint that can be read",
                 cat("only these:\n  ", join(reasons, "\n  ")),
                 "Move them away to start from the first step.");
  return std::nullopt;
}

Checkpoint CheckpointFolder::load_best() const {
  const std::string place = folder_ + "/" + kBest;
  const std::string old = place + std::string(kOld);
  return load(!is_folder(place) && is_folder(old) ? old : place);
}

bool CheckpointFolder::has_best() const {
  const std::string place = folder_ + "/" + kBest;
  return is_folder(place) || is_folder(place + std::string(kOld));
}

std::vector<std::string> CheckpointFolder::steps() const {
  std::vector<std::string> names;
  for (const Candidate& candidate : candidates(folder_)) {
    if (!candidate.old) names.push_back(candidate.name);
  }
  std::reverse(names.begin(), names.end());
  return names;
}

Checkpoint CheckpointFolder::load(const std::string& checkpoint_folder) {
  return read_checkpoint(checkpoint_folder);
}

}  // namespace headloom::train
