// Plain C++: works everywhere, and is what the other levels are compared with.
#pragma once

#include <math.h>
#include <stdint.h>
#include <string.h>

#define FSSEG_NS generic

namespace fsseg {
namespace generic {

constexpr int lanes = 4;

struct vf {
    float lane[lanes];
};

#define FSSEG_EACH(expression)                                                                     \
    vf r;                                                                                          \
    for (int i = 0; i < lanes; ++i) { r.lane[i] = (expression); }                                  \
    return r

static inline vf set1(float x) { FSSEG_EACH(x); }
static inline vf zero() { return set1(0.0f); }
static inline vf load(const float *p) { FSSEG_EACH(p[i]); }
static inline vf load_n(const float *p, int n) { FSSEG_EACH(i < n ? p[i] : 0.0f); }
static inline void keep(vf &) {}
static inline void store(float *p, vf a) {
    for (int i = 0; i < lanes; ++i) { p[i] = a.lane[i]; }
}
static inline void store_n(float *p, vf a, int n) {
    for (int i = 0; i < n; ++i) { p[i] = a.lane[i]; }
}
static inline vf add(vf a, vf b) { FSSEG_EACH(a.lane[i] + b.lane[i]); }
static inline vf sub(vf a, vf b) { FSSEG_EACH(a.lane[i] - b.lane[i]); }
static inline vf mul(vf a, vf b) { FSSEG_EACH(a.lane[i] * b.lane[i]); }
static inline vf div(vf a, vf b) { FSSEG_EACH(a.lane[i] / b.lane[i]); }
static inline vf fma(vf a, vf b, vf c) { FSSEG_EACH(a.lane[i] * b.lane[i] + c.lane[i]); }
static inline vf min(vf a, vf b) { FSSEG_EACH(a.lane[i] < b.lane[i] ? a.lane[i] : b.lane[i]); }
static inline vf max(vf a, vf b) { FSSEG_EACH(a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i]); }
static inline vf sqrt(vf a) { FSSEG_EACH(::sqrtf(a.lane[i])); }
static inline vf round(vf a) { FSSEG_EACH(::nearbyintf(a.lane[i])); }
static inline vf power_of_two(vf n) { FSSEG_EACH(::ldexpf(1.0f, static_cast<int>(n.lane[i]))); }
static inline vf load_u8(const uint8_t *p) { FSSEG_EACH(static_cast<float>(p[i])); }
static inline float sum(vf a) { return (a.lane[0] + a.lane[2]) + (a.lane[1] + a.lane[3]); }
static inline float smallest(vf a) {
    vf b = min(a, vf{{a.lane[2], a.lane[3], a.lane[0], a.lane[1]}});
    return b.lane[0] < b.lane[1] ? b.lane[0] : b.lane[1];
}
static inline float largest(vf a) {
    vf b = max(a, vf{{a.lane[2], a.lane[3], a.lane[0], a.lane[1]}});
    return b.lane[0] > b.lane[1] ? b.lane[0] : b.lane[1];
}
// low <= a <= high in the first n lanes; false for NaN.
static inline bool all_within(vf a, float low, float high, int n) {
    bool within = true;
    for (int i = 0; i < n; ++i) { within = within && a.lane[i] >= low && a.lane[i] <= high; }
    return within;
}

static inline vf load_u8_n(const uint8_t *p, int n) {
    vf r = zero();
    for (int i = 0; i < n && i < lanes; ++i) { r.lane[i] = static_cast<float>(p[i]); }
    return r;
}
// Whole numbers 0 .. 255 as bytes: exactly `lanes` (or n) of them.
static inline void store_u8_n(uint8_t *p, vf a, int n) {
    for (int i = 0; i < n && i < lanes; ++i) { p[i] = static_cast<uint8_t>(a.lane[i]); }
}
static inline void store_u8(uint8_t *p, vf a) { store_u8_n(p, a, lanes); }
// a > b ? yes : no, lane by lane.
static inline vf select_greater(vf a, vf b, vf yes, vf no) {
    vf r;
    for (int i = 0; i < lanes; ++i) {
        r.lane[i] = a.lane[i] > b.lane[i] ? yes.lane[i] : no.lane[i];
    }
    return r;
}
// Bit i: a and b differ in lane i.
static inline uint32_t differing(vf a, vf b) {
    uint32_t bits = 0;
    for (int i = 0; i < lanes; ++i) { bits |= (a.lane[i] != b.lane[i] ? 1u : 0u) << i; }
    return bits;
}

// 2 * lanes whole numbers of 16 bits.
struct vi16 {
    int16_t lane[2 * lanes];
};
static inline vi16 zero_i16() {
    vi16 r;
    for (int i = 0; i < 2 * lanes; ++i) { r.lane[i] = 0; }
    return r;
}
static inline vi16 add_i16(vi16 a, vi16 b) {
    vi16 r;
    for (int i = 0; i < 2 * lanes; ++i) { r.lane[i] = static_cast<int16_t>(a.lane[i] + b.lane[i]); }
    return r;
}
static inline vi16 load_u8_i16(const uint8_t *p) {
    vi16 r;
    for (int i = 0; i < 2 * lanes; ++i) { r.lane[i] = p[i]; }
    return r;
}
static inline vi16 load_u8_i16_n(const uint8_t *p, int n) {
    vi16 r = zero_i16();
    for (int i = 0; i < n && i < 2 * lanes; ++i) { r.lane[i] = p[i]; }
    return r;
}
static inline vf low_floats(vi16 a) {
    vf r;
    for (int i = 0; i < lanes; ++i) { r.lane[i] = a.lane[i]; }
    return r;
}
static inline vf high_floats(vi16 a) {
    vf r;
    for (int i = 0; i < lanes; ++i) { r.lane[i] = a.lane[lanes + i]; }
    return r;
}

#undef FSSEG_EACH
#define FSSEG_EACH(expression)                                                                     \
    vu r;                                                                                          \
    for (int i = 0; i < lanes; ++i) { r.lane[i] = (expression); }                                  \
    return r

// `lanes` whole numbers of 32 bits, and the bits of floats.
struct vu {
    uint32_t lane[lanes];
};
static inline vu set1_u(uint32_t x) { FSSEG_EACH(x); }
static inline vu count_u() { FSSEG_EACH(static_cast<uint32_t>(i)); }
static inline vu load_u(const uint32_t *p) { FSSEG_EACH(p[i]); }
static inline void store_u(uint32_t *p, vu a) {
    for (int i = 0; i < lanes; ++i) { p[i] = a.lane[i]; }
}
static inline vu add_u(vu a, vu b) { FSSEG_EACH(a.lane[i] + b.lane[i]); }
static inline vu sub_u(vu a, vu b) { FSSEG_EACH(a.lane[i] - b.lane[i]); }
static inline vu mul_u(vu a, vu b) { FSSEG_EACH(a.lane[i] * b.lane[i]); }
static inline vu xor_u(vu a, vu b) { FSSEG_EACH(a.lane[i] ^ b.lane[i]); }
static inline vu and_u(vu a, vu b) { FSSEG_EACH(a.lane[i] & b.lane[i]); }
static inline vu or_u(vu a, vu b) { FSSEG_EACH(a.lane[i] | b.lane[i]); }
template <int BITS> static inline vu right_u(vu a) { FSSEG_EACH(a.lane[i] >> BITS); }
static inline vu bits_of(vf a) {
    vu r;
    memcpy(&r, &a, sizeof r);
    return r;
}
static inline vf floats_of(vu a) {
    vf r;
    memcpy(&r, &a, sizeof r);
    return r;
}
// a < b ? yes : no, lane by lane.
static inline vf select_less_u(vu a, vu b, vf yes, vf no) {
    vf r;
    for (int i = 0; i < lanes; ++i) {
        r.lane[i] = a.lane[i] < b.lane[i] ? yes.lane[i] : no.lane[i];
    }
    return r;
}

#undef FSSEG_EACH

} // namespace generic
} // namespace fsseg
