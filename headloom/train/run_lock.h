#pragma once

#include <string>

namespace headloom::train {

// Holds a run folder for one process. Error when another holds it. The lock ends with the process,
// however that ends.
class RunLock {
 public:
  explicit RunLock(const std::string& folder);
  ~RunLock();
  RunLock(const RunLock&) = delete;
  RunLock& operator=(const RunLock&) = delete;

 private:
  int descriptor_;
};

}  // namespace headloom::train
