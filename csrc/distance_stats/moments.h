// Moments of the distances 1 - cosine: of a tile around its own mean, in double, and how tiles merge.
// What distance_stats and prototype_fusion share.
#pragma once

#include "core/simd.h"

#include <float.h>

namespace fsseg {
namespace FSSEG_NS {

constexpr double constant_deviation = 1e-6;

struct Moments {
    double weight, mean, m2, m3,
        m4;           // m2..m4: weighted sums of powers of d - mean; weight 0: no cells
    double low, high; // of cells whose weight is not 0
};

// Sums that do not wait for each other; also what lets a compiler use vectors without reordering.
constexpr int parallel_sums = 8;

static inline double sum_of(const double *parts) {
    double total = 0.0;
    for (int i = 0; i < parallel_sums; ++i) { total += parts[i]; }
    return total;
}

// Whether all n weights are 0 or more, and finite.
static inline bool weights_allowed(const float *weights, int64_t n) {
    bool allowed = true;
    int64_t x = 0;
    for (; x + lanes <= n; x += lanes) {
        allowed = allowed && all_within(load(weights + x), 0.0f, FLT_MAX, lanes);
    }
    const int rest = static_cast<int>(n - x);
    return allowed && all_within(load_n(weights + x, rest), 0.0f, FLT_MAX, rest);
}

template <bool WEIGHTED>
static Moments moments_of_cells(const float *cosines, const float *weights, int64_t n) {
    double w[parallel_sums] = {}, d[parallel_sums] = {};
    double m2[parallel_sums] = {}, m3[parallel_sums] = {}, m4[parallel_sums] = {};
    const int64_t whole = n - n % parallel_sums;
    const auto first = [&](int64_t x, int i) {
        const double weight = WEIGHTED ? static_cast<double>(weights[x]) : 1.0;
        w[i] += weight;
        d[i] += weight * (1.0 - static_cast<double>(cosines[x]));
    };
    for (int64_t x = 0; x < whole; x += parallel_sums) {
        for (int i = 0; i < parallel_sums; ++i) { first(x + i, i); }
    }
    for (int64_t x = whole; x < n; ++x) { first(x, static_cast<int>(x - whole)); }
    Moments m{sum_of(w), 0.0, 0.0, 0.0, 0.0, 0.0, 0.0};
    if (!(m.weight > 0.0)) { return m; }
    m.mean = sum_of(d) / m.weight;

    const double mean = m.mean;
    const auto second = [&](int64_t x, int i) {
        const double centred = 1.0 - static_cast<double>(cosines[x]) - mean;
        const double square = centred * centred;
        const double part = WEIGHTED ? static_cast<double>(weights[x]) * square : square;
        m2[i] += part;
        m3[i] += part * centred;
        m4[i] += part * square;
    };
    for (int64_t x = 0; x < whole; x += parallel_sums) {
        for (int i = 0; i < parallel_sums; ++i) { second(x + i, i); }
    }
    for (int64_t x = whole; x < n; ++x) { second(x, static_cast<int>(x - whole)); }
    m.m2 = sum_of(m2);
    m.m3 = sum_of(m3);
    m.m4 = sum_of(m4);

    // No cosine comes near these: the first cell that counts replaces them.
    float low = FLT_MAX, high = -FLT_MAX;
    for (int64_t x = 0; x < n; ++x) {
        if (WEIGHTED && !(weights[x] > 0.0f)) { continue; }
        low = cosines[x] < low ? cosines[x] : low;
        high = cosines[x] > high ? cosines[x] : high;
    }
    m.low = 1.0 - static_cast<double>(high);
    m.high = 1.0 - static_cast<double>(low);
    return m;
}

// weights may be null: all 1.
static inline Moments moments_of(const float *cosines, const float *weights, int64_t n) {
    return weights == nullptr ? moments_of_cells<false>(cosines, nullptr, n)
                              : moments_of_cells<true>(cosines, weights, n);
}

// Pebay 2008, eq. 2.1, with weights in the place of counts.
static inline void merge(Moments &a, const Moments &b) {
    if (!(b.weight > 0.0)) { return; }
    if (!(a.weight > 0.0)) {
        a = b;
        return;
    }
    // Shares, not weights: products of weights may leave the range of a double.
    const double n = a.weight + b.weight, p = a.weight / n, q = b.weight / n;
    const double delta = b.mean - a.mean, square = delta * delta;
    const double m4 = a.m4 + b.m4 + n * p * q * square * square * (p * p - p * q + q * q) +
                      6.0 * square * (p * p * b.m2 + q * q * a.m2) +
                      4.0 * delta * (p * b.m3 - q * a.m3);
    const double m3 =
        a.m3 + b.m3 + n * p * q * square * delta * (p - q) + 3.0 * delta * (p * b.m2 - q * a.m2);
    a.m2 += b.m2 + n * p * q * square;
    a.m3 = m3;
    a.m4 = m4;
    a.mean += delta * q;
    a.weight = n;
    a.low = b.low < a.low ? b.low : a.low;
    a.high = b.high > a.high ? b.high : a.high;
}

struct Shape {
    double low, high, variance, skewness, kurtosis, mean;
};

static inline Shape shape_of(const Moments &m) {
    Shape s{m.low, m.high, 0.0, 0.0, 0.0, m.mean};
    const double variance = m.weight > 0.0 ? m.m2 / m.weight : 0.0;
    if (variance >= constant_deviation * constant_deviation) {
        s.variance = variance;
        s.skewness = m.m3 / m.weight / (variance * ::sqrt(variance));
        s.kurtosis = m.m4 / m.weight / (variance * variance);
    }
    return s;
}

} // namespace FSSEG_NS
} // namespace fsseg
