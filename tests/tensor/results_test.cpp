#include "headloom/tensor/results.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cstdio>
#include <fstream>
#include <string>

namespace headloom {
namespace {

// The flags of the mapping that an address lies in, as the system states them; empty where it does
// not.
std::string flags_of(const void* address) {
  std::ifstream maps("/proc/self/smaps");
  const auto wanted = reinterpret_cast<unsigned long>(address);
  bool here = false;
  for (std::string line; std::getline(maps, line);) {
    unsigned long begin = 0, end = 0;
    if (std::sscanf(line.c_str(), "%lx-%lx ", &begin, &end) == 2)
      here = begin <= wanted && wanted < end;
    if (here && line.rfind("VmFlags:", 0) == 0) return line + " ";
  }
  return "";
}

TEST(EmptyResult, IsAnEmptyTensor) {
  const at::Tensor result = empty_result({3, 0, 5}, at::dtype(at::kBFloat16));
  EXPECT_EQ(result.sizes(), at::IntArrayRef({3, 0, 5}));
  EXPECT_EQ(result.scalar_type(), at::kBFloat16);
  EXPECT_TRUE(result.is_contiguous());
}

TEST(EmptyResult, LargeMemoryIsAskedForInHugePages) {
  const at::Tensor result = empty_result({kFreshBytes / 4 + 1000}, at::kFloat);
  const auto* middle = result.const_data_ptr<float>() + result.numel() / 2;
  const std::string flags = flags_of(middle);
  if (flags.empty() || !std::ifstream("/sys/kernel/mm/transparent_hugepage/enabled")) {
    GTEST_SKIP() << "this system has no huge pages or does not show a mapping's flags";
  }
  EXPECT_NE(flags.find(" hg "), std::string::npos) << flags;
}

TEST(EmptyResult, FirstAndLastElementCanBeWritten) {
  at::Tensor result = empty_result({kFreshBytes / 4 + 1}, at::kFloat);
  result[0] = 1.0f;
  result[-1] = 2.0f;
  EXPECT_EQ(result[0].item<float>(), 1.0f);
  EXPECT_EQ(result[-1].item<float>(), 2.0f);
}

}  // namespace
}  // namespace headloom
