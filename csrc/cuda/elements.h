// Elements of features in memory (float, __half, __nv_bfloat16) and as float in registers.
#pragma once

#include "core/view.h"
#include "cuda/launch.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cfloat>

namespace fsseg {
namespace cuda {

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(__half x) { return __half2float(x); }
__device__ __forceinline__ float to_float(__nv_bfloat16 x) { return __bfloat162float(x); }

template <class T> __device__ __forceinline__ T from_float(float x);
template <> __device__ __forceinline__ float from_float<float>(float x) { return x; }
template <> __device__ __forceinline__ __half from_float<__half>(float x) {
    return __float2half_rn(x);
}
template <> __device__ __forceinline__ __nv_bfloat16 from_float<__nv_bfloat16>(float x) {
    return __float2bfloat16_rn(x);
}

// N elements that one instruction loads where N * sizeof(T) is 4, 8 or 16 and the address is aligned to that.
template <class T, int N> struct alignas(N * sizeof(T)) Elements {
    T at[N];
};
template <class T, int N> __device__ __forceinline__ Elements<T, N> load(const T *aligned) {
    return *reinterpret_cast<const Elements<T, N> *>(aligned);
}

__device__ __forceinline__ bool is_finite(float x) { return fabsf(x) <= FLT_MAX; } // false for NaN

// Features of a picture: [channels, pixels] with a contiguous plane.
template <class T> struct Planes {
    const T *data;
    int64_t batch, channels, pixels;
    int64_t batch_stride, channel_stride;
};
template <class T> Planes<T> planes_of(const PlaneView &view) {
    return {reinterpret_cast<const T *>(view.data),
            view.batch,
            view.channels,
            view.height * view.width,
            view.batch_stride,
            view.channel_stride};
}

// work(T()) with the T that the dtype names. Returns what work returns.
template <class Work> auto with_type(DType dtype, Work &&work) {
    switch (dtype) {
    case DType::f16: return work(__half());
    case DType::bf16: return work(__nv_bfloat16());
    default: return work(0.0f);
    }
}

// Whether loads of N elements from every plane are aligned (planes and strides; of each batch).
template <class T> bool aligned_planes(const Planes<T> &p, int n) {
    const uintptr_t bytes = static_cast<uintptr_t>(n) * sizeof(T);
    const auto fits = [&](int64_t stride) { return stride % n == 0; };
    return reinterpret_cast<uintptr_t>(p.data) % bytes == 0 && fits(p.pixels) &&
           fits(p.batch_stride) && fits(p.channel_stride);
}

} // namespace cuda
} // namespace fsseg
