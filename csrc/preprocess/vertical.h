// Part of preprocess.cpp: the filter along the columns of the image.
#pragma once

#include "core/simd.h"

namespace fsseg {
namespace FSSEG_NS {

constexpr int vectors_down = 4; // of neighbouring bytes at a time

struct Rows { // of the image, and the weight of each; `more`: add to what `sums` holds
    const uint8_t *p;
    const float *weights;
    int64_t count;
    bool more;
    float *sums;
};

struct Ahead { // rows that will be read soon
    const uint8_t *p;
    int64_t rows;
};

// Fetches a cache line of the image into the second level.
static inline void ask_for(const uint8_t *p) {
#if defined(__GNUC__)
    __builtin_prefetch(p, 0, 2);
#else
    (void)p;
#endif
}

// Rows to ask for at x: once a cache line. (GCC drops calls of functions that prefetch and do nothing
// else, unless it inlines them first; so the loops stand where they run.)
static inline int64_t lines_ahead(const Ahead &ahead, int64_t x) {
    return x % 64 < vectors_down * lanes ? ahead.rows : 0;
}

// sums[i] += weights[k] * p[k * stride + ..], k from `first` to `end`.
static inline void add_rows(const Rows &rows, int64_t stride, int64_t x, int64_t first, int64_t end,
                            vf *sums) {
    for (int64_t k = first; k < end; ++k) {
        const vf weight = set1(rows.weights[k]);
        for (int i = 0; i < vectors_down; ++i) {
            sums[i] = fma(load_u8(rows.p + k * stride + x + i * lanes), weight, sums[i]);
        }
    }
}

static inline void store_rows(const Rows &rows, int64_t x, const vf *sums) {
    for (int i = 0; i < vectors_down; ++i) {
        float *out = rows.sums + x + i * lanes;
        store(out, rows.more ? add(load(out), sums[i]) : sums[i]);
    }
}

// sums[x] = (sums[x] if more) + sum over k of weights[k] * p[k * stride + x], for x from `x` to n.
static inline void filter_down(const Rows &rows, int64_t stride, int64_t x, int64_t n,
                               const Ahead &ahead) {
    for (; x + vectors_down * lanes <= n; x += vectors_down * lanes) {
        vf sums[vectors_down];
        for (vf &sum : sums) { sum = zero(); }
        for (int64_t k = 0; k < lines_ahead(ahead, x); ++k) { ask_for(ahead.p + k * stride + x); }
        add_rows(rows, stride, x, 0, rows.count, sums);
        store_rows(rows, x, sums);
    }
    for (; x < n; x += lanes) {
        const int some = static_cast<int>(smaller(lanes, n - x));
        vf sum = zero();
        for (int64_t k = 0; k < rows.count; ++k) {
            sum = fma(load_u8_n(rows.p + k * stride + x, some), set1(rows.weights[k]), sum);
        }
        float *out = rows.sums + x;
        store(out, rows.more ? add(load(out), sum) : sum);
    }
}

// The same for two results, the second of which starts `lead` rows below the first and does not end
// above it: what both need is converted once.
static inline void filter_down_two(const Rows &one, const Rows &two, int64_t lead, int64_t stride,
                                   int64_t n, const Ahead &ahead) {
    const int64_t both = larger(one.count - lead, 0);
    int64_t x = 0;
    for (; x + vectors_down * lanes <= n; x += vectors_down * lanes) {
        vf sums[vectors_down], others[vectors_down];
        for (int i = 0; i < vectors_down; ++i) { sums[i] = others[i] = zero(); }
        for (int64_t k = 0; k < lines_ahead(ahead, x); ++k) { ask_for(ahead.p + k * stride + x); }
        add_rows(one, stride, x, 0, one.count - both, sums);
        for (int64_t k = 0; k < both; ++k) {
            const vf weight = set1(one.weights[one.count - both + k]);
            const vf other = set1(two.weights[k]);
            for (int i = 0; i < vectors_down; ++i) {
                const vf pixels = load_u8(two.p + k * stride + x + i * lanes);
                sums[i] = fma(pixels, weight, sums[i]);
                others[i] = fma(pixels, other, others[i]);
            }
        }
        add_rows(two, stride, x, both, two.count, others);
        store_rows(one, x, sums);
        store_rows(two, x, others);
    }
    filter_down(one, stride, x, n, {nullptr, 0});
    filter_down(two, stride, x, n, {nullptr, 0});
}

// The same as filter_down for n pixels that lie apart; they get packed.
static inline void filter_down_apart(const Rows &rows, int64_t stride, int64_t pixel_stride,
                                     int64_t n) {
    for (int64_t x = 0; x < n; ++x) {
        for (int64_t c = 0; c < 3; ++c) {
            float sum = 0.0f;
            for (int64_t k = 0; k < rows.count; ++k) {
                const uint8_t value = rows.p[k * stride + x * pixel_stride + c];
                sum += rows.weights[k] * static_cast<float>(value);
            }
            rows.sums[3 * x + c] = rows.more ? rows.sums[3 * x + c] + sum : sum;
        }
    }
}

} // namespace FSSEG_NS
} // namespace fsseg
