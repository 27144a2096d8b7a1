#include <cuda_runtime.h>

#include "headloom/base/dropout_mask.h"

namespace headloom {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kMaxBlocks = 65535;

__global__ void fill_kernel(DropoutMaskArgs args) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < args.count;
       i += step) {
    args.out[i] = dropout_mask_element(args, i);
  }
}

}  // namespace

const char* fill_dropout_mask_cuda(const DropoutMaskArgs& args, void* stream) {
  if (args.count == 0) return nullptr;
  const int64_t blocks = (args.count + kThreads - 1) / kThreads;
  fill_kernel<<<static_cast<unsigned>(blocks < kMaxBlocks ? blocks : kMaxBlocks), kThreads, 0,
                static_cast<cudaStream_t>(stream)>>>(args);
  const cudaError_t error = cudaGetLastError();
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

}  // namespace headloom
