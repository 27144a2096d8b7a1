#include "headloom/base/caches.h"

#include <gtest/gtest.h>

#include <fstream>
#include <string>

namespace headloom {
namespace {

TEST(Caches, LastLevelIsThatOfOneProcessor) {
  std::ifstream file("/sys/devices/system/cpu/cpu0/cache/index3/size");
  std::string size;
  if (!(file >> size)) GTEST_SKIP() << "this system does not state the size of its caches";
  ASSERT_EQ(size.back(), 'K') << size;
  EXPECT_EQ(last_level_cache_bytes(), std::stoll(size) * 1024);
}

TEST(Caches, SizeIsPlausible) {
  EXPECT_GE(last_level_cache_bytes(), int64_t{1} << 20);
  EXPECT_LE(last_level_cache_bytes(), int64_t{4} << 30);
}

}  // namespace
}  // namespace headloom
