#pragma once

#include <cstdint>
#include <vector>

#include "headloom/tasks/task.h"

// Sequences of bytes with a class each, as the tasks of the Long Range Arena have them.
namespace headloom::tasks {

struct Example {
  std::vector<uint8_t> tokens;
  uint8_t value = 0;                 // its class
  std::vector<uint8_t> second = {};  // tasks of pairs: the other sequence
};
using Examples = std::vector<Example>;

// How bytes become a batch.
struct BatchForm {
  int64_t shift = 0;        // a token is a byte plus this; 1 keeps 0 for padding alone
  bool pairs = false;       // 2 B rows: the first sequences, then the second ones
  bool mask_zeros = false;  // token 0 is padding wherever it stands
};

// Tokens [B, T] (pairs: [2 B, T]), padded on the right with 0 to the longest; targets [B]. The
// padding mask is left undefined when nothing is padding.
Batch make_batch(const Examples& examples, const std::vector<int64_t>& rows,
                 const BatchForm& form = {});

// Of each example, of a pair that of the longer one.
std::vector<int64_t> lengths(const Examples& examples);

}  // namespace headloom::tasks
