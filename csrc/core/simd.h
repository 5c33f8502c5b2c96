// The vector that kernels are written in: `vf` holds `lanes` floats. The build compiles each
// <op>.cpp once per level with one of FSSEG_SIMD_AVX512, _AVX2, _NEON or none (generic) defined, and
// everything here and in the op lies in namespace fsseg::FSSEG_NS, one namespace per level: two
// levels never share a symbol. For the same reason no file that is built per level may use inline
// templates of the standard library (std::max, std::vector, ...): use the functions below.
#pragma once

#include "core/parallel.h"
#include "core/status.h"
#include "core/view.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(FSSEG_SIMD_AVX512)
#include "core/simd_avx512.h"
#elif defined(FSSEG_SIMD_AVX2)
#include "core/simd_avx2.h"
#elif defined(FSSEG_SIMD_NEON)
#include "core/simd_neon.h"
#else
#include "core/simd_generic.h"
#endif

namespace fsseg {
namespace FSSEG_NS {

static inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }
static inline int64_t round_up(int64_t a, int64_t b) { return divide_up(a, b) * b; }

// Asks for the cache line of p[ahead], which will be read soon, in the first or the second level. It
// may lie outside the array.
template <int LEVEL> static inline void prefetch(const float *p, int64_t ahead) {
#if defined(__GNUC__)
    const intptr_t bytes = static_cast<intptr_t>(ahead) * static_cast<intptr_t>(sizeof(float));
    __builtin_prefetch(reinterpret_cast<const void *>(reinterpret_cast<intptr_t>(p) + bytes), 0,
                       LEVEL == 1 ? 3 : 2);
#else
    (void)p, (void)ahead;
#endif
}

// isfinite() may be an inline function of the standard library; this one is ours.
static inline bool finite(double x) { return x - x == 0.0; }

// e^x within 2 ulp for -87 <= x <= 88, clamped outside (so never infinite, never 0).
static inline vf exp(vf x) {
    x = max(min(x, set1(88.0f)), set1(-87.0f));
    const vf n = round(mul(x, set1(1.44269504f))); // x = n ln2 + r, |r| <= ln2 / 2
    vf r = fma(n, set1(-0.693359375f), x);         // ln2 in two parts
    r = fma(n, set1(2.12194440e-4f), r);
    vf p = set1(1.9875691500e-4f); // Cephes expf
    p = fma(p, r, set1(1.3981999507e-3f));
    p = fma(p, r, set1(8.3334519073e-3f));
    p = fma(p, r, set1(4.1665795894e-2f));
    p = fma(p, r, set1(1.6666665459e-1f));
    p = fma(p, r, set1(5.0000001201e-1f));
    p = fma(p, mul(r, r), add(r, set1(1.0f)));
    return mul(p, power_of_two(n));
}

// log x within 2 ulp for normal x >= 1 (and infinity, NaN: not finite).
static inline vf log(vf x) {
    const vu bits = bits_of(x);
    // x = 2^e m, 1 <= m < 2; then m in [sqrt(1/2), sqrt(2)), so that log m has no large terms.
    vu exponent = right_u<23>(bits);
    vf m = floats_of(or_u(and_u(bits, set1_u(0x007fffffu)), set1_u(0x3f800000u)));
    const vf high = select_greater(m, set1(1.41421356f), set1(1.0f), zero());
    m = sub(m, mul(mul(m, high), set1(0.5f)));
    // 2^23 + e as bits of a float: a conversion that every level has.
    vf e = sub(floats_of(or_u(exponent, set1_u(0x4b000000u))), set1(8388608.0f + 127.0f));
    e = add(e, high);
    const vf r = sub(m, set1(1.0f)), square = mul(r, r);
    vf p = set1(7.0376836292e-2f); // Cephes logf
    p = fma(p, r, set1(-1.1514610310e-1f));
    p = fma(p, r, set1(1.1676998740e-1f));
    p = fma(p, r, set1(-1.2420140846e-1f));
    p = fma(p, r, set1(1.4249322787e-1f));
    p = fma(p, r, set1(-1.6668057665e-1f));
    p = fma(p, r, set1(2.0000714765e-1f));
    p = fma(p, r, set1(-2.4999993993e-1f));
    p = fma(p, r, set1(3.3333331174e-1f));
    p = mul(mul(p, r), square);
    p = fma(e, set1(-2.12194440e-4f), p);
    p = fma(square, set1(-0.5f), p);
    return fma(e, set1(0.693359375f), add(p, r));
}

// Rounded to the nearest bfloat16 (ties to even), as a float. Finite values only.
static inline vf to_bf16(vf x) {
    const vu bits = bits_of(x);
    const vu odd = and_u(right_u<16>(bits), set1_u(1u));
    return floats_of(and_u(add_u(bits, add_u(odd, set1_u(0x7fffu))), set1_u(0xffff0000u)));
}
// The two of a lane side by side, as products of pairs want them: low in the lower half.
static inline vu bf16_pair(vf low, vf high) {
    return or_u(right_u<16>(bits_of(to_bf16(low))), bits_of(to_bf16(high)));
}

// Memory for one call, 64-byte aligned, freed with the object; data is null if there is none.
struct Scratch {
    void *data;
    explicit Scratch(int64_t bytes)
        : data(aligned_alloc(64, static_cast<size_t>(round_up(larger(bytes, 64), 64)))) {}
    ~Scratch() { free(data); }
    Scratch(const Scratch &) = delete;
    Scratch &operator=(const Scratch &) = delete;
};

// for_each(count, threads, [&](int64_t index, int worker) {...}): parallel_for with a lambda.
template <class Body> static void for_each(int64_t count, int threads, const Body &body) {
    parallel_for(
        count, threads,
        [](void *context, int64_t index, int worker) {
            (*static_cast<const Body *>(context))(index, worker);
        },
        const_cast<void *>(static_cast<const void *>(&body)));
}

// Threads that are worth waking (about 5 us each) for work that takes one thread `microseconds`.
static inline int worthwhile(int threads, double microseconds) {
    const double most = microseconds / 20.0;
    return most < 1.0 ? 1 : (most < threads ? static_cast<int>(most) : threads);
}

} // namespace FSSEG_NS
} // namespace fsseg
