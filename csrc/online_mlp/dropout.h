// Which hidden units of a cell are kept: a counter-based generator, so the same bits on every machine,
// SIMD level and number of threads. fsseg_sdk/ops/counter.py is the same in numpy.
#pragma once

#include "core/simd.h"

namespace fsseg {
namespace FSSEG_NS {

constexpr uint64_t golden64 = 0x9E3779B97F4A7C15u;
constexpr uint32_t golden32 = 0x9E3779B9u;

// The finalizer of splitmix64.
static inline uint64_t mix64(uint64_t x) {
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return x ^ (x >> 31);
}

// Of all words of one iteration, and of one cell in it.
static inline uint64_t stream_key(uint64_t seed, uint64_t stream) {
    return mix64(seed + mix64((stream + 1) * golden64));
}
static inline uint64_t row_key(uint64_t stream, uint64_t row) {
    return mix64(stream + (row + 1) * golden64);
}

// Word i of the row for each lane i of `index`.
static inline vu random_words(uint64_t row, vu index) {
    const vu low = set1_u(static_cast<uint32_t>(row)),
             high = set1_u(static_cast<uint32_t>(row >> 32));
    vu x = add_u(mul_u(index, set1_u(golden32)), low);
    x = mul_u(xor_u(x, right_u<16>(x)), set1_u(0x7FEB352Du));
    x = add_u(x, high);
    x = mul_u(xor_u(x, right_u<15>(x)), set1_u(0x846CA68Bu));
    return xor_u(x, right_u<16>(x));
}

struct Dropout {
    bool on;
    uint32_t threshold; // words below it drop the unit
    float scale;        // of what is kept
};

static inline Dropout dropout_of(double probability) {
    const double words = ::floor(probability * 4294967296.0 + 0.5);
    const bool on = probability > 0.0;
    return {on, static_cast<uint32_t>(words < 4294967295.0 ? words : 4294967295.0),
            static_cast<float>(1.0 / (1.0 - probability))};
}

} // namespace FSSEG_NS
} // namespace fsseg
