// NEON of aarch64: 4 lanes.
#pragma once

#include <arm_neon.h>
#include <stdint.h>
#include <string.h>

#define FSSEG_NS neon

namespace fsseg {
namespace neon {

constexpr int lanes = 4;
using vf = float32x4_t;

static inline vf set1(float x) { return vdupq_n_f32(x); }
static inline vf zero() { return vdupq_n_f32(0.0f); }
static inline vf load(const float *p) { return vld1q_f32(p); }
static inline vf load_n(const float *p, int n) {
    float t[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    for (int i = 0; i < n && i < 4; ++i) { t[i] = p[i]; }
    return vld1q_f32(t);
}
static inline void keep(vf &) {}
static inline void store(float *p, vf a) { vst1q_f32(p, a); }
static inline void store_n(float *p, vf a, int n) {
    float t[4];
    vst1q_f32(t, a);
    for (int i = 0; i < n && i < 4; ++i) { p[i] = t[i]; }
}
static inline vf add(vf a, vf b) { return vaddq_f32(a, b); }
static inline vf sub(vf a, vf b) { return vsubq_f32(a, b); }
static inline vf mul(vf a, vf b) { return vmulq_f32(a, b); }
static inline vf div(vf a, vf b) { return vdivq_f32(a, b); }
static inline vf fma(vf a, vf b, vf c) { return vfmaq_f32(c, a, b); }
static inline vf min(vf a, vf b) { return vminq_f32(a, b); }
static inline vf max(vf a, vf b) { return vmaxq_f32(a, b); }
static inline vf sqrt(vf a) { return vsqrtq_f32(a); }
static inline vf round(vf a) { return vrndnq_f32(a); }
static inline vf power_of_two(vf n) {
    const int32x4_t biased = vaddq_s32(vcvtq_s32_f32(n), vdupq_n_s32(127));
    return vreinterpretq_f32_s32(vshlq_n_s32(biased, 23));
}
static inline vf load_u8(const uint8_t *p) {
    uint32_t word;
    memcpy(&word, p, 4);
    const uint8x8_t bytes = vcreate_u8(word);
    return vcvtq_f32_u32(vmovl_u16(vget_low_u16(vmovl_u8(bytes))));
}
static inline float sum(vf a) { return vaddvq_f32(a); }
static inline float smallest(vf a) { return vminvq_f32(a); }
static inline float largest(vf a) { return vmaxvq_f32(a); }
static inline bool all_within(vf a, float low, float high, int n) {
    const uint32x4_t within = vandq_u32(vcgeq_f32(a, set1(low)), vcleq_f32(a, set1(high)));
    uint32_t t[4];
    vst1q_u32(t, within);
    bool all = true;
    for (int i = 0; i < n && i < 4; ++i) { all = all && t[i] != 0; }
    return all;
}

static inline vf load_u8_n(const uint8_t *p, int n) {
    uint8_t bytes[4] = {0, 0, 0, 0};
    for (int i = 0; i < n && i < 4; ++i) { bytes[i] = p[i]; }
    return load_u8(bytes);
}
// Whole numbers 0 .. 255 as bytes: exactly `lanes` (or n) of them.
static inline void store_u8(uint8_t *p, vf a) {
    const uint16x4_t words = vmovn_u32(vcvtq_u32_f32(a));
    const uint8x8_t bytes = vmovn_u16(vcombine_u16(words, words));
    const uint32_t word = vget_lane_u32(vreinterpret_u32_u8(bytes), 0);
    memcpy(p, &word, 4);
}
static inline void store_u8_n(uint8_t *p, vf a, int n) {
    uint8_t bytes[4];
    store_u8(bytes, a);
    for (int i = 0; i < n && i < 4; ++i) { p[i] = bytes[i]; }
}
// a > b ? yes : no, lane by lane.
static inline vf select_greater(vf a, vf b, vf yes, vf no) {
    return vbslq_f32(vcgtq_f32(a, b), yes, no);
}
// Bit i: a and b differ in lane i.
static inline uint32_t differing(vf a, vf b) {
    const uint32x4_t bit = {1u, 2u, 4u, 8u};
    return vaddvq_u32(vbicq_u32(bit, vceqq_f32(a, b)));
}

// 2 * lanes whole numbers of 16 bits.
using vi16 = int16x8_t;
static inline vi16 zero_i16() { return vdupq_n_s16(0); }
static inline vi16 add_i16(vi16 a, vi16 b) { return vaddq_s16(a, b); }
static inline vi16 load_u8_i16(const uint8_t *p) {
    return vreinterpretq_s16_u16(vmovl_u8(vld1_u8(p)));
}
static inline vi16 load_u8_i16_n(const uint8_t *p, int n) {
    uint8_t bytes[8] = {0, 0, 0, 0, 0, 0, 0, 0};
    for (int i = 0; i < n && i < 8; ++i) { bytes[i] = p[i]; }
    return load_u8_i16(bytes);
}
static inline vf low_floats(vi16 a) { return vcvtq_f32_s32(vmovl_s16(vget_low_s16(a))); }
static inline vf high_floats(vi16 a) { return vcvtq_f32_s32(vmovl_s16(vget_high_s16(a))); }

// `lanes` whole numbers of 32 bits, and the bits of floats.
using vu = uint32x4_t;
static inline vu set1_u(uint32_t x) { return vdupq_n_u32(x); }
static inline vu count_u() { return vu{0u, 1u, 2u, 3u}; }
static inline vu load_u(const uint32_t *p) { return vld1q_u32(p); }
static inline void store_u(uint32_t *p, vu a) { vst1q_u32(p, a); }
static inline vu add_u(vu a, vu b) { return vaddq_u32(a, b); }
static inline vu sub_u(vu a, vu b) { return vsubq_u32(a, b); }
static inline vu mul_u(vu a, vu b) { return vmulq_u32(a, b); }
static inline vu xor_u(vu a, vu b) { return veorq_u32(a, b); }
static inline vu and_u(vu a, vu b) { return vandq_u32(a, b); }
static inline vu or_u(vu a, vu b) { return vorrq_u32(a, b); }
template <int BITS> static inline vu right_u(vu a) { return vshrq_n_u32(a, BITS); }
static inline vu bits_of(vf a) { return vreinterpretq_u32_f32(a); }
static inline vf floats_of(vu a) { return vreinterpretq_f32_u32(a); }
// a < b ? yes : no, lane by lane.
static inline vf select_less_u(vu a, vu b, vf yes, vf no) {
    return vbslq_f32(vcltq_u32(a, b), yes, no);
}

} // namespace neon
} // namespace fsseg
