// float32 products on the tensor cores: a float is the exact sum of three bfloat16 (8 + 8 + 8 bits), and of
// the nine products of two such sums all but the three smallest (below 2^-23 of the whole) are taken. The
// sums of 16 products are added to `d` by rounding additions, as the tensor cores cut off what does not fit.
//
// With PARTS = 1 a number is one bfloat16, rounded, and the products are those of mma.h.
#pragma once

#include "cuda/mma.h"

namespace fsseg {
namespace cuda {

// x and y, in the low and high halves of the words of each part.
template <int PARTS>
__device__ __forceinline__ void split(float x, float y, uint32_t (&words)[PARTS]) {
    if constexpr (PARTS == 1) {
        words[0] = pair_of(from_float<__nv_bfloat16>(x), from_float<__nv_bfloat16>(y));
    } else {
        for (int p = 0; p < PARTS; ++p) { // cut off, so that the largest floats stay finite
            const uint32_t of_x = __float_as_uint(x) & 0xffff0000u;
            const uint32_t of_y = __float_as_uint(y) & 0xffff0000u;
            words[p] = of_x >> 16 | of_y;
            x -= __uint_as_float(of_x);
            y -= __uint_as_float(of_y);
        }
    }
}

// The same products without tensor cores, each of the whole floats.
template <int N> __device__ __forceinline__ void
split_by_hand(float (&d)[N][4], const uint32_t (&a)[3][4], const uint32_t (&b)[3][N][2]) {
    const int lane = static_cast<int>(threadIdx.x) % 32, g = lane / 4, t = lane % 4;
    float left[4][2], right[N][2][2]; // [word][half]
    for (int i = 0; i < 4; ++i) {
        left[i][0] = low_of<__nv_bfloat16>(a[0][i]) +
                     (low_of<__nv_bfloat16>(a[1][i]) + low_of<__nv_bfloat16>(a[2][i]));
        left[i][1] = high_of<__nv_bfloat16>(a[0][i]) +
                     (high_of<__nv_bfloat16>(a[1][i]) + high_of<__nv_bfloat16>(a[2][i]));
    }
    for (int n = 0; n < N; ++n) {
        for (int i = 0; i < 2; ++i) {
            right[n][i][0] =
                low_of<__nv_bfloat16>(b[0][n][i]) +
                (low_of<__nv_bfloat16>(b[1][n][i]) + low_of<__nv_bfloat16>(b[2][n][i]));
            right[n][i][1] =
                high_of<__nv_bfloat16>(b[0][n][i]) +
                (high_of<__nv_bfloat16>(b[1][n][i]) + high_of<__nv_bfloat16>(b[2][n][i]));
        }
    }
#pragma unroll 1
    for (int s = 0; s < 4; ++s) {
        for (int half = 0; half < 2; ++half) {
            for (int k = 0; k < 2; ++k) {
                const float top = __shfl_sync(0xffffffffu, left[2 * half][k], 4 * g + s);
                const float low = __shfl_sync(0xffffffffu, left[2 * half + 1][k], 4 * g + s);
                for (int n = 0; n < N; ++n) {
                    for (int j = 0; j < 2; ++j) {
                        const float y =
                            __shfl_sync(0xffffffffu, right[n][half][k], 4 * (2 * t + j) + s);
                        d[n][j] = fmaf(top, y, d[n][j]);
                        d[n][2 + j] = fmaf(low, y, d[n][2 + j]);
                    }
                }
            }
        }
    }
}

// d[n] += a x b[n] for N tiles of 8 columns; lanes hold what mma.h says, in each part.
template <int N> __device__ __forceinline__ void
products(float (&d)[N][4], const uint32_t (&a)[1][4], const uint32_t (&b)[1][N][2]) {
#pragma unroll
    for (int n = 0; n < N; ++n) { mma<__nv_bfloat16>(d[n], a[0], b[0][n]); }
}
template <int N> __device__ __forceinline__ void
products(float (&d)[N][4], const uint32_t (&a)[3][4], const uint32_t (&b)[3][N][2]) {
#if defined(FSSEG_CUDA_EMULATED) || (defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800)
    float sums[N][4] = {};
#pragma unroll
    for (int size = 2; size >= 0; --size) { // the small ones first
#pragma unroll
        for (int p = 0; p <= size; ++p) {
#pragma unroll
            for (int n = 0; n < N; ++n) { mma<__nv_bfloat16>(sums[n], a[p], b[size - p][n]); }
        }
    }
#pragma unroll
    for (int n = 0; n < N; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) { d[n][i] += sums[n][i]; }
    }
#else
    split_by_hand<N>(d, a, b);
#endif
}

} // namespace cuda
} // namespace fsseg
