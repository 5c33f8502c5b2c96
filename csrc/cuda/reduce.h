// Sums and largest values of a warp or a block, always in the same order.
#pragma once

#include "cuda/launch.h"

namespace fsseg {
namespace cuda {

constexpr unsigned all_lanes = 0xffffffffu;

// To every lane.
template <class T> __device__ __forceinline__ T warp_sum(T value) {
    for (int bits = 16; bits > 0; bits /= 2) { value += __shfl_xor_sync(all_lanes, value, bits); }
    return value;
}
template <class T> __device__ __forceinline__ T warp_max(T value) {
    for (int bits = 16; bits > 0; bits /= 2) {
        value = max(value, __shfl_xor_sync(all_lanes, value, bits));
    }
    return value;
}

// To every thread of a one-dimensional block of whole warps. `partial` is shared memory for 32 values;
// it may be used again after the next barrier.
template <class T> __device__ __forceinline__ T block_sum(T value, T *partial) {
    const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
    const int warps = static_cast<int>(blockDim.x) / 32;
    value = warp_sum(value);
    if (lane == 0) { partial[warp] = value; }
    __syncthreads();
    T sum = T(0);
    for (int i = 0; i < warps; ++i) { sum += partial[i]; }
    return sum;
}

} // namespace cuda
} // namespace fsseg
