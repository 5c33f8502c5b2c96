// Launching kernels. The only place that knows CUDA's launch syntax: tests/cuda/emulation compiles the same
// .cu files for a processor without a GPU.
#pragma once

#include "cuda/context.h"

#include <cuda_runtime.h>

#include <utility>

namespace fsseg {
namespace cuda {

// __global__ void kernel(int n) { FSSEG_SHARED(float, memory); ... }: the block's dynamic shared memory,
// 128-byte aligned. At most one in a kernel. (Static arrays: __shared__, as usual.)
#ifdef FSSEG_CUDA_EMULATED
#define FSSEG_SHARED(type, name) type *name = static_cast<type *>(emulation::dynamic_shared())
#else
#define FSSEG_SHARED(type, name)                                                                   \
    extern __shared__ __align__(128) unsigned char fsseg_shared_memory[];                          \
    type *name = reinterpret_cast<type *>(fsseg_shared_memory)
#endif

constexpr size_t shared_without_asking = 48 * 1024; // bytes; more needs the device's consent

// Enqueues kernel(arguments...) on the current context's stream. shared: bytes of dynamic shared memory.
template <class... P, class... A>
void launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared, A &&...arguments) {
    if (shared > shared_without_asking) {
        check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                   static_cast<int>(shared)),
              "shared memory");
    }
#ifdef FSSEG_CUDA_EMULATED
    emulation::launch(current().stream, kernel, grid, block, shared, std::forward<A>(arguments)...);
#else
    kernel<<<grid, block, shared, current().stream>>>(std::forward<A>(arguments)...);
#endif
    check(cudaGetLastError(), "launch");
}

inline unsigned divided_up(int64_t n, int64_t by) {
    return static_cast<unsigned>((n + by - 1) / by);
}

} // namespace cuda
} // namespace fsseg
