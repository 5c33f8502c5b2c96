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

// Sums of N values over the lanes that differ in the first STEPS bits of the lane's number, from the highest
// bit down, each lane keeping a share: N / 2^STEPS values, which then are v[0], v[1], ..., those that were
// v[share * (lane >> (5 - STEPS))] and following. Fewer shuffles than N sums: about N instead of STEPS * N.
template <int STEPS, int N, int BIT = 16>
__device__ __forceinline__ void scatter_sums(float (&v)[N]) {
    if constexpr (STEPS > 0) {
        constexpr int half = N * BIT / 32; // of the N * BIT / 16 that this lane still holds
        static_assert(half * 32 == N * BIT, "equal shares");
        const bool upper = (threadIdx.x & BIT) != 0;
#pragma unroll
        for (int i = 0; i < half; ++i) {
            const float given = upper ? v[i] : v[i + half], kept = upper ? v[i + half] : v[i];
            v[i] = kept + __shfl_xor_sync(all_lanes, given, BIT);
        }
        scatter_sums<STEPS - 1, N, BIT / 2>(v);
    }
}

// The sums of N values (a power of two, 32 at most) over the warp: lane l gets that of v[l / (32 / N)].
template <int N> __device__ __forceinline__ float warp_sums(float (&v)[N]) {
    static_assert(N > 0 && N <= 32 && (N & (N - 1)) == 0, "a power of two");
    constexpr int steps = N == 1 ? 0 : N == 2 ? 1 : N == 4 ? 2 : N == 8 ? 3 : N == 16 ? 4 : 5;
    scatter_sums<steps>(v);
    float sum = v[0];
#pragma unroll
    for (int bit = 16 >> steps; bit > 0; bit /= 2) { sum += __shfl_xor_sync(all_lanes, sum, bit); }
    return sum;
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
