// Part of preprocess.cpp: a short vector of floats seen as neighbouring pixels of PITCH floats
// each, two with AVX2, else one. (Two with AVX-512, too: most loads of 64 bytes would cross cache
// lines.)
#pragma once

#include "core/simd.h"

namespace fsseg {
namespace FSSEG_NS {

#if defined(FSSEG_SIMD_AVX512) || defined(FSSEG_SIMD_AVX2)

using Pixels = __m256;
constexpr int pixels_in_vector = 2;

static inline Pixels no_pixels() { return _mm256_setzero_ps(); }
static inline Pixels plus(Pixels a, Pixels b) { return _mm256_add_ps(a, b); }

// sum + weights[i] * pixel i, 0 * what lies behind the last pixel. Reads 8 floats of p.
template <int PITCH>
static inline Pixels add_weighted(Pixels sum, const float *weights, const float *p) {
    const __m256i pixel = PITCH == 3 ? _mm256_setr_epi32(0, 0, 0, 1, 1, 1, 2, 2)
                                     : _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1);
    const __m128i two = _mm_loadl_epi64(reinterpret_cast<const __m128i *>(weights)); // and 0, 0
    const __m256 all = _mm256_castps128_ps256(_mm_castsi128_ps(two));
    return _mm256_fmadd_ps(_mm256_permutevar8x32_ps(all, pixel), _mm256_loadu_ps(p), sum);
}

// out[0 .. 3] = sum over the pixels (something in out[3] if PITCH is 3).
template <int PITCH> static inline void store_sum(float *out, Pixels a) {
    const __m256i second = _mm256_setr_epi32(PITCH, PITCH + 1, PITCH + 2, PITCH + 3, 0, 0, 0, 0);
    const __m128 other = _mm256_castps256_ps128(_mm256_permutevar8x32_ps(a, second));
    _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(a), other));
}

#else

static_assert(lanes == 4, "one pixel a vector");
using Pixels = vf;
constexpr int pixels_in_vector = 1;

static inline Pixels no_pixels() { return zero(); }
static inline Pixels plus(Pixels a, Pixels b) { return add(a, b); }
template <int PITCH>
static inline Pixels add_weighted(Pixels sum, const float *weights, const float *p) {
    return fma(load(p), set1(*weights), sum);
}
template <int PITCH> static inline void store_sum(float *out, Pixels a) { store(out, a); }

#endif

// [n, 4] -> three rows, a plane apart: value * factor[c] + offset[c].
static inline void split_channels(const float *pixels, int64_t n, const float *factor,
                                  const float *offset, int64_t plane, float *out) {
    int64_t x = 0;
#if defined(FSSEG_SIMD_AVX512) || defined(FSSEG_SIMD_AVX2)
    for (; x + 4 <= n; x += 4) {
        __m128 channel[4];
        for (int i = 0; i < 4; ++i) { channel[i] = _mm_loadu_ps(pixels + 4 * (x + i)); }
        _MM_TRANSPOSE4_PS(channel[0], channel[1], channel[2], channel[3]);
        for (int c = 0; c < 3; ++c) {
            const __m128 scale = _mm_set1_ps(factor[c]), shift = _mm_set1_ps(offset[c]);
            _mm_storeu_ps(out + c * plane + x, _mm_fmadd_ps(channel[c], scale, shift));
        }
    }
#elif defined(FSSEG_SIMD_NEON)
    for (; x + 4 <= n; x += 4) {
        const float32x4x4_t four = vld4q_f32(pixels + 4 * x);
        for (int c = 0; c < 3; ++c) {
            store(out + c * plane + x, fma(four.val[c], set1(factor[c]), set1(offset[c])));
        }
    }
#endif
    for (; x < n; ++x) {
        for (int c = 0; c < 3; ++c) {
            out[c * plane + x] = pixels[4 * x + c] * factor[c] + offset[c];
        }
    }
}

} // namespace FSSEG_NS
} // namespace fsseg
