#include "headloom/cli/line_window.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

namespace headloom::cli {
namespace {

using testing::ElementsAre;
using Lines = std::vector<std::string>;

// A pipe whose writing end the test holds.
class Pipe {
 public:
  Pipe() { EXPECT_EQ(::pipe(ends_), 0); }
  ~Pipe() {
    close_writer();
    ::close(ends_[0]);
  }
  int reader() const { return ends_[0]; }
  void write(const std::string& text) {
    EXPECT_EQ(::write(ends_[1], text.data(), text.size()), static_cast<ssize_t>(text.size()));
  }
  void close_writer() {
    if (ends_[1] >= 0) ::close(ends_[1]);
    ends_[1] = -1;
  }

 private:
  int ends_[2] = {-1, -1};
};

TEST(LineWindow, HoldsAtMostItsSizeAndCountsLines) {
  Pipe pipe;
  pipe.write("a\nb\r\n\nd\ne");
  pipe.close_writer();
  std::vector<Lines> windows;
  std::vector<int64_t> firsts;
  for_windows(pipe.reader(), "pipe", 2, [&](const LineWindow& window) {
    windows.push_back(window.lines);
    firsts.push_back(window.first);
  });
  EXPECT_THAT(windows, ElementsAre(Lines{"a", "b"}, Lines{"", "d"}, Lines{"e"}));
  EXPECT_THAT(firsts, ElementsAre(1, 3, 5));
}

TEST(LineWindow, IsHandedOnWhenTheInputPauses) {
  Pipe pipe;
  pipe.write("a\nb\nc");
  std::vector<Lines> windows;
  for_windows(pipe.reader(), "pipe", 100, [&](const LineWindow& window) {
    windows.push_back(window.lines);
    // The answer to the first lines is what the writer waits for.
    if (windows.size() == 1) pipe.write("d\ne\n");
    if (windows.size() == 2) pipe.close_writer();
  });
  EXPECT_THAT(windows, ElementsAre(Lines{"a", "b"}, Lines{"cd", "e"}));
}

TEST(LineWindow, NothingIsNoWindow) {
  Pipe pipe;
  pipe.close_writer();
  for_windows(pipe.reader(), "pipe", 3, [](const LineWindow&) { FAIL(); });
}

}  // namespace
}  // namespace headloom::cli
