// AVX-512 (F, BW, VL, DQ): 16 lanes.
#pragma once

#include <immintrin.h>
#include <stdint.h>

#define FSSEG_NS avx512

namespace fsseg {
namespace avx512 {

constexpr int lanes = 16;
using vf = __m512;

static inline __mmask16 first(int n) {
    return static_cast<__mmask16>(n >= 16 ? 0xffffu : (1u << n) - 1u);
}
static inline vf set1(float x) { return _mm512_set1_ps(x); }
static inline vf zero() { return _mm512_setzero_ps(); }
static inline vf load(const float *p) { return _mm512_loadu_ps(p); }
static inline vf load_n(const float *p, int n) { return _mm512_maskz_loadu_ps(first(n), p); }
// Pins a value to a register: or else GCC reads memory once for each use of the value.
static inline void keep(vf &a) { __asm__("" : "+v"(a)); }
static inline void store(float *p, vf a) { _mm512_storeu_ps(p, a); }
static inline void store_n(float *p, vf a, int n) { _mm512_mask_storeu_ps(p, first(n), a); }
static inline vf add(vf a, vf b) { return _mm512_add_ps(a, b); }
static inline vf sub(vf a, vf b) { return _mm512_sub_ps(a, b); }
static inline vf mul(vf a, vf b) { return _mm512_mul_ps(a, b); }
static inline vf div(vf a, vf b) { return _mm512_div_ps(a, b); }
static inline vf fma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
static inline vf min(vf a, vf b) { return _mm512_min_ps(a, b); }
static inline vf max(vf a, vf b) { return _mm512_max_ps(a, b); }
static inline vf sqrt(vf a) { return _mm512_sqrt_ps(a); }
static inline vf round(vf a) { return _mm512_roundscale_ps(a, 0); }
static inline vf power_of_two(vf n) { return _mm512_scalef_ps(_mm512_set1_ps(1.0f), n); }
static inline vf load_u8(const uint8_t *p) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i *>(p));
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes));
}
static inline float sum(vf a) { return _mm512_reduce_add_ps(a); }
static inline float smallest(vf a) { return _mm512_reduce_min_ps(a); }
static inline float largest(vf a) { return _mm512_reduce_max_ps(a); }
static inline bool all_within(vf a, float low, float high, int n) {
    const __mmask16 within = _mm512_cmp_ps_mask(a, _mm512_set1_ps(low), _CMP_GE_OQ) &
                             _mm512_cmp_ps_mask(a, _mm512_set1_ps(high), _CMP_LE_OQ);
    return (within & first(n)) == first(n);
}

static inline vf load_u8_n(const uint8_t *p, int n) {
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(first(n), p)));
}
// Whole numbers 0 .. 255 as bytes: exactly `lanes` (or n) of them.
static inline void store_u8(uint8_t *p, vf a) {
    _mm_storeu_si128(reinterpret_cast<__m128i *>(p), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(a)));
}
static inline void store_u8_n(uint8_t *p, vf a, int n) {
    _mm512_mask_cvtepi32_storeu_epi8(p, first(n), _mm512_cvtps_epi32(a));
}
// a > b ? yes : no, lane by lane.
static inline vf select_greater(vf a, vf b, vf yes, vf no) {
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_GT_OQ), no, yes);
}
// Bit i: a and b differ in lane i.
static inline uint32_t differing(vf a, vf b) {
    // Not by a cast: where GCC 12 has no register left for the 32 bits, it stores 16 and reads 32.
    const __mmask16 mask = _mm512_cmp_ps_mask(a, b, _CMP_NEQ_UQ);
    uint32_t bits;
    __asm__("kmovw %1, %0" : "=r"(bits) : "k"(mask));
    return bits;
}

// 2 * lanes whole numbers of 16 bits.
using vi16 = __m512i;
static inline vi16 zero_i16() { return _mm512_setzero_si512(); }
static inline vi16 add_i16(vi16 a, vi16 b) { return _mm512_add_epi16(a, b); }
static inline vi16 load_u8_i16(const uint8_t *p) {
    return _mm512_cvtepu8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(p)));
}
static inline vi16 load_u8_i16_n(const uint8_t *p, int n) {
    const __mmask32 some = static_cast<__mmask32>(n >= 32 ? ~0u : (1u << n) - 1u);
    return _mm512_cvtepu8_epi16(_mm256_maskz_loadu_epi8(some, p));
}
static inline vf low_floats(vi16 a) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi16_epi32(_mm512_castsi512_si256(a)));
}
static inline vf high_floats(vi16 a) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi16_epi32(_mm512_extracti64x4_epi64(a, 1)));
}

// `lanes` whole numbers of 32 bits, and the bits of floats.
using vu = __m512i;
static inline vu set1_u(uint32_t x) { return _mm512_set1_epi32(static_cast<int>(x)); }
static inline vu count_u() {
    return _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
}
static inline vu load_u(const uint32_t *p) { return _mm512_loadu_si512(p); }
static inline void store_u(uint32_t *p, vu a) { _mm512_storeu_si512(p, a); }
static inline vu add_u(vu a, vu b) { return _mm512_add_epi32(a, b); }
static inline vu sub_u(vu a, vu b) { return _mm512_sub_epi32(a, b); }
static inline vu mul_u(vu a, vu b) { return _mm512_mullo_epi32(a, b); }
static inline vu xor_u(vu a, vu b) { return _mm512_xor_si512(a, b); }
static inline vu and_u(vu a, vu b) { return _mm512_and_si512(a, b); }
static inline vu or_u(vu a, vu b) { return _mm512_or_si512(a, b); }
template <int BITS> static inline vu right_u(vu a) { return _mm512_srli_epi32(a, BITS); }
static inline vu bits_of(vf a) { return _mm512_castps_si512(a); }
static inline vf floats_of(vu a) { return _mm512_castsi512_ps(a); }
// a < b ? yes : no, lane by lane.
static inline vf select_less_u(vu a, vu b, vf yes, vf no) {
    return _mm512_mask_blend_ps(_mm512_cmplt_epu32_mask(a, b), no, yes);
}

} // namespace avx512
} // namespace fsseg
