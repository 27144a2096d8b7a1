#pragma once

#include <optional>
#include <string>
#include <vector>

#include "headloom/train/safetensors.h"

namespace headloom::train {

// Everything that a run continues from.
struct Checkpoint {
  int64_t step = 0;
  NamedTensors model;  // parameters and buffers
  NamedTensors state;  // optimizer moments, averaged weights, generator state: names are the loop's
  std::map<std::string, std::string> values;  // counters and bests, as text that reads back exactly
  std::string recipe;                         // resolved TOML
};

// Checkpoints of a run: <folder>/step_00001000/{model,state}.safetensors, recipe.toml,
// manifest.json. A checkpoint is written under a temporary name, synced, and renamed, so that a
// name without ".tmp" is whole; the manifest has each file's size and CRC-32. One that is replaced
// waits under the name ".old" until the new one stands. One process saves at a time.
class CheckpointFolder {
 public:
  explicit CheckpointFolder(std::string folder) : folder_(std::move(folder)) {}

  // Writes, then removes all but the newest `keep` (at least 1). A checkpoint of the same step is
  // replaced; those of later steps are left alone. On failure (a full disk, say) nothing that was
  // there is lost, the temporary folder is removed, and Error says what failed.
  void save(const Checkpoint& checkpoint, int64_t keep);
  // The same under the name "best", replacing the one before it.
  void save_best(const Checkpoint& checkpoint);

  // The newest checkpoint that is whole. Torn or foreign ones are skipped; `warnings` says each
  // with its reason. Nothing when there is none; Error when there are some but none can be read.
  std::optional<Checkpoint> load_newest(std::vector<std::string>& warnings) const;
  // "best", or Error.
  Checkpoint load_best() const;
  bool has_best() const;
  // The names of those in place, in the order of their steps.
  std::vector<std::string> steps() const;
  // One folder, checked against its manifest; Error says what is wrong with it.
  static Checkpoint load(const std::string& checkpoint_folder);

 private:
  std::string folder_;
};

}  // namespace headloom::train
