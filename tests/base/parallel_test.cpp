#include "headloom/base/parallel.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <atomic>
#include <mutex>
#include <thread>
#include <vector>

namespace headloom {
namespace {

class TwoThreads : public ::testing::Test {
 protected:
  void SetUp() override { at::set_num_threads(2); }
  void TearDown() override { at::set_num_threads(before_); }
  int before_ = at::get_num_threads();
};

TEST_F(TwoThreads, VisitsEachIndexOnce) {
  std::vector<std::atomic<int>> visits(1003);
  parallel_for(3, 1003, 10, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) ++visits[i];
  });
  for (int64_t i = 0; i < 1003; ++i) EXPECT_EQ(visits[i], i < 3 ? 0 : 1) << i;
}

TEST_F(TwoThreads, EmptyRangeRunsNothing) {
  parallel_for(5, 5, 1, [](int64_t, int64_t) { FAIL(); });
}

TEST_F(TwoThreads, GrainKeepsSmallRangesWhole) {
  int chunks = 0;
  parallel_for(0, 10, 10, [&](int64_t begin, int64_t end) {
    ++chunks;
    EXPECT_EQ(end - begin, 10);
  });
  EXPECT_EQ(chunks, 1);
}

TEST_F(TwoThreads, SplitsLargeRangesOverThreads) {
  EXPECT_EQ(thread_count(), 2);
  std::mutex lock;
  std::vector<int> threads;
  parallel_for(0, 2000, 1, [&](int64_t begin, int64_t end) {
    const std::lock_guard<std::mutex> hold(lock);
    EXPECT_GT(end, begin);
    EXPECT_LT(thread_index(), thread_count());
    threads.push_back(thread_index());
  });
  EXPECT_EQ(threads.size(), 2u);
  EXPECT_NE(threads.at(0), threads.at(1));
}

TEST_F(TwoThreads, NestedCallsStayOnTheirThread) {
  parallel_for(0, 2, 1, [](int64_t, int64_t) {
    const auto outer = std::this_thread::get_id();
    int chunks = 0;
    parallel_for(0, 100, 1, [&](int64_t begin, int64_t end) {
      ++chunks;
      EXPECT_EQ(end - begin, 100);
      EXPECT_EQ(std::this_thread::get_id(), outer);
      EXPECT_EQ(thread_index(), 0);
    });
    EXPECT_EQ(chunks, 1);
  });
}

TEST_F(TwoThreads, ExceptionsReachTheCaller) {
  EXPECT_THROW(parallel_for(0, 100, 1, [](int64_t, int64_t) { throw std::runtime_error("body"); }),
               std::runtime_error);
}

}  // namespace
}  // namespace headloom
