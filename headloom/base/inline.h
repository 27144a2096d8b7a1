#pragma once

// Functions that kernel files of every instruction set share must leave no copy of their own
// behind: the linker would keep one copy for all, perhaps the one that needs the newest processor.
// These are expanded into each caller, and run on a GPU as well.
#if defined(__CUDACC__)
#define HEADLOOM_HOST_DEVICE __host__ __device__
#define HEADLOOM_INLINE __host__ __device__ __forceinline__
#else
#define HEADLOOM_HOST_DEVICE
#define HEADLOOM_INLINE __attribute__((always_inline)) inline
#endif

// The same for a lambda, after its parameter list.
#define HEADLOOM_INLINE_LAMBDA __attribute__((always_inline))
