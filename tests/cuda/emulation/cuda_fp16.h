// __half for cuda_runtime.h: conversions only, round to nearest even.
#pragma once
#include "cuda_runtime.h"

struct __half {
    uint16_t bits;
};
struct alignas(4) __half2 {
    __half x, y;
};
static inline float __half2float(__half h) {
    const unsigned sign = (h.bits & 0x8000u) << 16, exponent = h.bits >> 10 & 31u,
                   rest = h.bits & 1023u;
    if (exponent == 31) { return __uint_as_float(sign | 0x7f800000u | rest << 13); }
    if (exponent == 0) {
        return ldexpf(static_cast<float>(rest), -24) * (sign != 0 ? -1.0f : 1.0f);
    }
    return __uint_as_float(sign | (exponent + 112) << 23 | rest << 13);
}
static inline __half __float2half_rn(float x) {
    const unsigned sign = __float_as_uint(x) >> 16 & 0x8000u;
    const float size = fabsf(x);
    if (isnan(x)) { return {static_cast<uint16_t>(0x7fff)}; }
    if (size >= 65520.0f) { return {static_cast<uint16_t>(sign | 0x7c00u)}; }
    if (size < 6.103515625e-05f) { // below the normal numbers: multiples of 2^-24
        return {static_cast<uint16_t>(sign | static_cast<unsigned>(lrintf(ldexpf(size, 24))))};
    }
    const unsigned bits = __float_as_uint(size), odd = bits >> 13 & 1u;
    return {static_cast<uint16_t>(sign | (((bits + 0xfffu + odd) >> 13) - (112u << 10)))};
}
static inline __half __float2half(float x) { return __float2half_rn(x); }
static inline float2 __half22float2(__half2 h) { return {__half2float(h.x), __half2float(h.y)}; }
static inline __half2 __floats2half2_rn(float x, float y) {
    return {__float2half_rn(x), __float2half_rn(y)};
}
static inline __half2 __float22half2_rn(float2 v) { return __floats2half2_rn(v.x, v.y); }
