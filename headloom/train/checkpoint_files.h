#pragma once

#include <string>

#include "headloom/train/checkpoint.h"

// The files of one checkpoint, in a folder whose name does not matter.
namespace headloom::train {

// Writes model, state and recipe, then the manifest, into a new folder and syncs it.
void write_checkpoint(const std::string& folder, const Checkpoint& checkpoint);

// Checks the manifest and every file against it, then reads them.
Checkpoint read_checkpoint(const std::string& folder);

}  // namespace headloom::train
