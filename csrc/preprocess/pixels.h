// Part of preprocess.cpp: neighbouring pixels of PITCH floats each in a short vector, as many as fit
// (five or four with AVX-512, two with AVX2, else one), for `rows_at_once` rows of the result.
#pragma once

#include "core/simd.h"

namespace fsseg {
namespace FSSEG_NS {

constexpr int rows_at_once = 4; // they share each weight that is loaded

#if defined(FSSEG_SIMD_AVX512)

using Pixels = __m512;
constexpr int pixels_in_vector(int64_t pitch) { return pitch == 3 ? 5 : 4; }
static inline Pixels no_pixels() { return _mm512_setzero_ps(); }
static inline Pixels plus(Pixels a, Pixels b) { return _mm512_add_ps(a, b); }

// Each weight in the lanes of its pixel. Reads 8 weights.
template <int PITCH> static inline Pixels load_weights(const float *weights) {
    const __m512i pixel = PITCH == 3
                              ? _mm512_setr_epi32(0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4, 4)
                              : _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
    return _mm512_permutexvar_ps(pixel, _mm512_castps256_ps512(_mm256_loadu_ps(weights)));
}
static inline Pixels add_weighted(Pixels sum, Pixels weights, const float *p) {
    return _mm512_fmadd_ps(weights, _mm512_loadu_ps(p), sum);
}

// Two vectors -> pixels 0 + 2 (+ 4) and 1 + 3 of the first, the same of the second.
template <int PITCH> static inline __m512 fold(__m512 a, __m512 b) {
    constexpr int p = PITCH, q = 16 + PITCH; // pixel 1 of a, of b
    const __m512i front = _mm512_setr_epi32(0, 1, 2, 3, p, p + 1, p + 2, p + 3, 16, 17, 18, 19, q,
                                            q + 1, q + 2, q + 3);
    const __m512i back = _mm512_add_epi32(front, _mm512_set1_epi32(2 * p));
    __m512 sum =
        _mm512_add_ps(_mm512_permutex2var_ps(a, front, b), _mm512_permutex2var_ps(a, back, b));
    if (PITCH == 3) {
        const __m512i last =
            _mm512_setr_epi32(12, 13, 14, 15, 0, 0, 0, 0, 28, 29, 30, 31, 0, 0, 0, 0);
        sum = _mm512_add_ps(sum, _mm512_maskz_permutex2var_ps(0x0f0f, a, last, b));
    }
    return sum;
}

// out [rows, 4] = the sum over the pixels of each row (something in the fourth if PITCH is 3).
template <int PITCH> static inline void store_sums(float *out, const Pixels *rows) {
    const __m512 a = fold<PITCH>(rows[0], rows[1]), b = fold<PITCH>(rows[2], rows[3]);
    const __m512 even = _mm512_shuffle_f32x4(a, b, 0x88), odd = _mm512_shuffle_f32x4(a, b, 0xdd);
    _mm512_storeu_ps(out, _mm512_add_ps(even, odd));
}

#elif defined(FSSEG_SIMD_AVX2)

using Pixels = __m256;
constexpr int pixels_in_vector(int64_t) { return 2; }
static inline Pixels no_pixels() { return _mm256_setzero_ps(); }
static inline Pixels plus(Pixels a, Pixels b) { return _mm256_add_ps(a, b); }

// Each weight in the lanes of its pixel, 0 in those behind.
template <int PITCH> static inline Pixels load_weights(const float *weights) {
    const __m256i pixel = PITCH == 3 ? _mm256_setr_epi32(0, 0, 0, 1, 1, 1, 2, 2)
                                     : _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1);
    const __m128i two = _mm_loadl_epi64(reinterpret_cast<const __m128i *>(weights)); // and 0, 0
    const __m256 all = _mm256_castps128_ps256(_mm_castsi128_ps(two));
    return _mm256_permutevar8x32_ps(all, pixel);
}
static inline Pixels add_weighted(Pixels sum, Pixels weights, const float *p) {
    return _mm256_fmadd_ps(weights, _mm256_loadu_ps(p), sum);
}

// out [rows, 4] = the sum over the pixels of each row (something in the fourth if PITCH is 3).
template <int PITCH> static inline void store_sums(float *out, const Pixels *rows) {
    const __m256i second = _mm256_setr_epi32(PITCH, PITCH + 1, PITCH + 2, PITCH + 3, 0, 0, 0, 0);
    for (int row = 0; row < rows_at_once; ++row) {
        const __m128 other = _mm256_castps256_ps128(_mm256_permutevar8x32_ps(rows[row], second));
        _mm_storeu_ps(out + 4 * row, _mm_add_ps(_mm256_castps256_ps128(rows[row]), other));
    }
}

#else

static_assert(lanes == 4, "one pixel a vector");
using Pixels = vf;
constexpr int pixels_in_vector(int64_t) { return 1; }
static inline Pixels no_pixels() { return zero(); }
static inline Pixels plus(Pixels a, Pixels b) { return add(a, b); }
template <int PITCH> static inline Pixels load_weights(const float *weights) {
    return set1(*weights);
}
static inline Pixels add_weighted(Pixels sum, Pixels weights, const float *p) {
    return fma(load(p), weights, sum);
}
template <int PITCH> static inline void store_sums(float *out, const Pixels *rows) {
    for (int row = 0; row < rows_at_once; ++row) { store(out + 4 * row, rows[row]); }
}

#endif

// pixels [n, rows_at_once, 4] -> three rows, a plane apart: value * factor[c] + offset[c].
static inline void split_channels(const float *pixels, int64_t n, const float *factor,
                                  const float *offset, int64_t plane, float *out) {
    constexpr int apart = 4 * rows_at_once;
    int64_t x = 0;
#if defined(FSSEG_SIMD_AVX512) || defined(FSSEG_SIMD_AVX2)
    for (; x + 4 <= n; x += 4) {
        __m128 channel[4];
        for (int i = 0; i < 4; ++i) { channel[i] = _mm_loadu_ps(pixels + apart * (x + i)); }
        _MM_TRANSPOSE4_PS(channel[0], channel[1], channel[2], channel[3]);
        for (int c = 0; c < 3; ++c) {
            const __m128 scale = _mm_set1_ps(factor[c]), shift = _mm_set1_ps(offset[c]);
            _mm_storeu_ps(out + c * plane + x, _mm_fmadd_ps(channel[c], scale, shift));
        }
    }
#elif defined(FSSEG_SIMD_NEON)
    for (; x + 4 <= n; x += 4) {
        vf pixel[4];
        for (int i = 0; i < 4; ++i) { pixel[i] = load(pixels + apart * (x + i)); }
        const float32x4x2_t even = vzipq_f32(pixel[0], pixel[2]);
        const float32x4x2_t odd = vzipq_f32(pixel[1], pixel[3]);
        const float32x4x2_t red_green = vzipq_f32(even.val[0], odd.val[0]);
        const float32x4x2_t blue = vzipq_f32(even.val[1], odd.val[1]);
        const vf channel[3] = {red_green.val[0], red_green.val[1], blue.val[0]};
        for (int c = 0; c < 3; ++c) {
            store(out + c * plane + x, fma(channel[c], set1(factor[c]), set1(offset[c])));
        }
    }
#endif
    for (; x < n; ++x) {
        for (int c = 0; c < 3; ++c) {
            out[c * plane + x] = pixels[apart * x + c] * factor[c] + offset[c];
        }
    }
}

} // namespace FSSEG_NS
} // namespace fsseg
