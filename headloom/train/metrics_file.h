#pragma once

#include <cstdint>
#include <string>

namespace headloom::train {

// A file of JSON lines that only grows, and reads as one run however often the run was stopped.
class MetricsFile {
 public:
  // Drops the lines beyond `last_step`, and torn ones; all lines when last_step is 0.
  MetricsFile(const std::string& path, int64_t last_step);
  ~MetricsFile();
  MetricsFile(const MetricsFile&) = delete;
  MetricsFile& operator=(const MetricsFile&) = delete;

  // Adds a line. What the disk refuses is kept and tried again with the next line; false as long
  // as something waits.
  bool append(const std::string& line);
  // Puts everything on the disk.
  void sync();

 private:
  bool flush();

  int descriptor_;
  int64_t size_ = 0;     // bytes of whole lines in the file
  std::string waiting_;  // lines not yet in the file
};

}  // namespace headloom::train
