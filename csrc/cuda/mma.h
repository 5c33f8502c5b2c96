// Matrix products on the tensor cores: d += a x b of one warp, a 16 x 16, b 16 x 8, d 16 x 8, sums in float.
//
// Lane l = 4 g + t (g = 0..7, t = 0..3) holds pairs of neighbours in k, the lower one in the low half:
//   a[0] row g,     k = 2t, 2t+1        a[1] row g + 8, k = 2t, 2t+1
//   a[2] row g,     k = 2t+8, 2t+9      a[3] row g + 8, k = 2t+8, 2t+9
//   b[0] column g,  k = 2t, 2t+1        b[1] column g,  k = 2t+8, 2t+9
//   d[0], d[1] row g, columns 2t, 2t+1  d[2], d[3] row g + 8, columns 2t, 2t+1
// (PTX ISA, mma.m16n8k16.) bf16 from sm_80 on; on sm_75 plain arithmetic gives the same products, slowly.
#pragma once

#include "cuda/elements.h"

namespace fsseg {
namespace cuda {

template <class T> __device__ __forceinline__ uint32_t pair_of(T low, T high) {
    static_assert(sizeof(T) == 2, "of 16 bits");
    struct Two {
        T low, high;
    } two{low, high};
    uint32_t bits;
    memcpy(&bits, &two, sizeof bits);
    return bits;
}
template <class T> __device__ __forceinline__ float low_of(uint32_t bits) {
    const uint16_t half = static_cast<uint16_t>(bits & 0xffffu);
    T value;
    memcpy(&value, &half, sizeof value);
    return to_float(value);
}
template <class T> __device__ __forceinline__ float high_of(uint32_t bits) {
    return low_of<T>(bits >> 16);
}

template <class T> __device__ __forceinline__ void
mma_by_hand(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    const int lane = static_cast<int>(threadIdx.x) % 32, g = lane / 4, t = lane % 4;
#pragma unroll 1
    for (int s = 0; s < 4; ++s) {
        for (int half = 0; half < 2; ++half) {
            const uint32_t top = __shfl_sync(0xffffffffu, a[2 * half], 4 * g + s);
            const uint32_t low = __shfl_sync(0xffffffffu, a[2 * half + 1], 4 * g + s);
            for (int j = 0; j < 2; ++j) {
                const uint32_t y = __shfl_sync(0xffffffffu, b[half], 4 * (2 * t + j) + s);
                d[j] = fmaf(low_of<T>(top), low_of<T>(y), d[j]);
                d[j] = fmaf(high_of<T>(top), high_of<T>(y), d[j]);
                d[2 + j] = fmaf(low_of<T>(low), low_of<T>(y), d[2 + j]);
                d[2 + j] = fmaf(high_of<T>(low), high_of<T>(y), d[2 + j]);
            }
        }
    }
}

#if defined(FSSEG_CUDA_EMULATED)
template <class T> void mma(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    struct Held {
        uint32_t a[4], b[2];
    } held{{a[0], a[1], a[2], a[3]}, {b[0], b[1]}};
    const unsigned char *all = emulation::warp_meet(0xffffffffu, &held, sizeof held);
    const int lane = emulation::lane(), g = lane / 4, t = lane % 4;
    for (int i = 0; i < 4; ++i) {
        const int column = 2 * t + i % 2;
        double sum = 0.0; // of exact products; the hardware's order is its own
        for (int s = 0; s < 4; ++s) {
            Held row, of_column;
            memcpy(&row, all + emulation::slot * static_cast<size_t>(4 * g + s), sizeof row);
            memcpy(&of_column, all + emulation::slot * static_cast<size_t>(4 * column + s),
                   sizeof row);
            for (int half = 0; half < 2; ++half) {
                const uint32_t x = row.a[2 * half + i / 2], y = of_column.b[half];
                sum += static_cast<double>(low_of<T>(x)) * static_cast<double>(low_of<T>(y));
                sum += static_cast<double>(high_of<T>(x)) * static_cast<double>(high_of<T>(y));
            }
        }
        d[i] = static_cast<float>(static_cast<double>(d[i]) + sum);
    }
}
#else
template <class T>
__device__ __forceinline__ void mma(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]);

template <> __device__ __forceinline__ void
mma<__nv_bfloat16>(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
        "{%8,%9}, "
        "{%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
    mma_by_hand<__nv_bfloat16>(d, a, b);
#endif
}

template <> __device__ __forceinline__ void mma<__half>(float (&d)[4], const uint32_t (&a)[4],
                                                        const uint32_t (&b)[2]) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
        "{%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
    mma_by_hand<__half>(d, a, b);
#endif
}
#endif

} // namespace cuda
} // namespace fsseg
