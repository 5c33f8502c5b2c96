// AVX2 + FMA: 8 lanes.
#pragma once

#include <immintrin.h>
#include <stdint.h>

#define FSSEG_NS avx2

namespace fsseg {
namespace avx2 {

constexpr int lanes = 8;
using vf = __m256;

static inline __m256i first(int n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
static inline vf set1(float x) { return _mm256_set1_ps(x); }
static inline vf zero() { return _mm256_setzero_ps(); }
static inline vf load(const float *p) { return _mm256_loadu_ps(p); }
static inline vf load_n(const float *p, int n) { return _mm256_maskload_ps(p, first(n)); }
// Pins a value to a register: or else GCC reads memory once for each use of the value.
static inline void keep(vf &a) { __asm__("" : "+x"(a)); }
static inline void store(float *p, vf a) { _mm256_storeu_ps(p, a); }
static inline void store_n(float *p, vf a, int n) { _mm256_maskstore_ps(p, first(n), a); }
static inline vf add(vf a, vf b) { return _mm256_add_ps(a, b); }
static inline vf sub(vf a, vf b) { return _mm256_sub_ps(a, b); }
static inline vf mul(vf a, vf b) { return _mm256_mul_ps(a, b); }
static inline vf div(vf a, vf b) { return _mm256_div_ps(a, b); }
static inline vf fma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
static inline vf min(vf a, vf b) { return _mm256_min_ps(a, b); }
static inline vf max(vf a, vf b) { return _mm256_max_ps(a, b); }
static inline vf sqrt(vf a) { return _mm256_sqrt_ps(a); }
static inline vf round(vf a) {
    return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
static inline vf power_of_two(vf n) {
    const __m256i biased = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
    return _mm256_castsi256_ps(_mm256_slli_epi32(biased, 23));
}
static inline vf load_u8(const uint8_t *p) {
    const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i *>(p));
    return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes));
}
static inline float sum(vf a) {
    __m128 x = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    x = _mm_add_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_add_ss(x, _mm_shuffle_ps(x, x, 1)));
}
static inline float smallest(vf a) {
    __m128 x = _mm_min_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    x = _mm_min_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_min_ss(x, _mm_shuffle_ps(x, x, 1)));
}
static inline float largest(vf a) {
    __m128 x = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    x = _mm_max_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_max_ss(x, _mm_shuffle_ps(x, x, 1)));
}
static inline bool all_within(vf a, float low, float high, int n) {
    const vf within = _mm256_and_ps(_mm256_cmp_ps(a, _mm256_set1_ps(low), _CMP_GE_OQ),
                                    _mm256_cmp_ps(a, _mm256_set1_ps(high), _CMP_LE_OQ));
    const int wanted = (1 << (n < 8 ? n : 8)) - 1;
    return (_mm256_movemask_ps(within) & wanted) == wanted;
}

static inline vf load_u8_n(const uint8_t *p, int n) {
    uint8_t bytes[8] = {0, 0, 0, 0, 0, 0, 0, 0};
    for (int i = 0; i < n && i < 8; ++i) { bytes[i] = p[i]; }
    return load_u8(bytes);
}
// Whole numbers 0 .. 255 as bytes: exactly `lanes` (or n) of them.
static inline void store_u8(uint8_t *p, vf a) {
    const __m256i whole = _mm256_cvtps_epi32(a);
    const __m128i words =
        _mm_packus_epi32(_mm256_castsi256_si128(whole), _mm256_extracti128_si256(whole, 1));
    _mm_storel_epi64(reinterpret_cast<__m128i *>(p), _mm_packus_epi16(words, words));
}
static inline void store_u8_n(uint8_t *p, vf a, int n) {
    uint8_t bytes[8];
    store_u8(bytes, a);
    for (int i = 0; i < n && i < 8; ++i) { p[i] = bytes[i]; }
}
// a > b ? yes : no, lane by lane.
static inline vf select_greater(vf a, vf b, vf yes, vf no) {
    return _mm256_blendv_ps(no, yes, _mm256_cmp_ps(a, b, _CMP_GT_OQ));
}
// Bit i: a and b differ in lane i.
static inline uint32_t differing(vf a, vf b) {
    return static_cast<uint32_t>(_mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_NEQ_UQ)));
}

// 2 * lanes whole numbers of 16 bits.
using vi16 = __m256i;
static inline vi16 zero_i16() { return _mm256_setzero_si256(); }
static inline vi16 add_i16(vi16 a, vi16 b) { return _mm256_add_epi16(a, b); }
static inline vi16 load_u8_i16(const uint8_t *p) {
    return _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i *>(p)));
}
static inline vi16 load_u8_i16_n(const uint8_t *p, int n) {
    uint8_t bytes[16] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0};
    for (int i = 0; i < n && i < 16; ++i) { bytes[i] = p[i]; }
    return load_u8_i16(bytes);
}
static inline vf low_floats(vi16 a) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(_mm256_castsi256_si128(a)));
}
static inline vf high_floats(vi16 a) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(_mm256_extracti128_si256(a, 1)));
}

// `lanes` whole numbers of 32 bits, and the bits of floats.
using vu = __m256i;
static inline vu set1_u(uint32_t x) { return _mm256_set1_epi32(static_cast<int>(x)); }
static inline vu count_u() { return _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7); }
static inline vu load_u(const uint32_t *p) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i *>(p));
}
static inline void store_u(uint32_t *p, vu a) {
    _mm256_storeu_si256(reinterpret_cast<__m256i *>(p), a);
}
static inline vu add_u(vu a, vu b) { return _mm256_add_epi32(a, b); }
static inline vu sub_u(vu a, vu b) { return _mm256_sub_epi32(a, b); }
static inline vu mul_u(vu a, vu b) { return _mm256_mullo_epi32(a, b); }
static inline vu xor_u(vu a, vu b) { return _mm256_xor_si256(a, b); }
static inline vu and_u(vu a, vu b) { return _mm256_and_si256(a, b); }
static inline vu or_u(vu a, vu b) { return _mm256_or_si256(a, b); }
template <int BITS> static inline vu right_u(vu a) { return _mm256_srli_epi32(a, BITS); }
static inline vu bits_of(vf a) { return _mm256_castps_si256(a); }
static inline vf floats_of(vu a) { return _mm256_castsi256_ps(a); }
// a < b ? yes : no, lane by lane.
static inline vf select_less_u(vu a, vu b, vf yes, vf no) {
    const vu top = set1_u(0x80000000u); // the comparison is one of signed numbers
    const vu less = _mm256_cmpgt_epi32(xor_u(b, top), xor_u(a, top));
    return _mm256_blendv_ps(no, yes, floats_of(less));
}

} // namespace avx2
} // namespace fsseg
