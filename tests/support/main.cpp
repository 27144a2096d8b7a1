#include <gtest/gtest.h>
#include <torch/torch.h>

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  // In this mode torch fills fresh memory with NaN, so an output or workspace that a kernel leaves
  // unwritten shows.
  at::globalContext().setDeterministicAlgorithms(true, /*warn_only=*/false);
  at::globalContext().setDeterministicFillUninitializedMemory(true);
  torch::manual_seed(1);
  return RUN_ALL_TESTS();
}
