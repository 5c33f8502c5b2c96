// Moments of distances on the device: the sums of a chunk of cells around its own mean, in double, by a block, and
// how chunks merge (csrc/distance_stats/moments.h is the same for the CPU).
#pragma once

#include "cuda/reduce.h"

#include <cfloat>

namespace fsseg {
namespace cuda {

struct Moments {
    double weight, mean, m2, m3,
        m4;           // m2..m4: weighted sums of powers of d - mean; weight 0: no cells
    double low, high; // of cells whose weight is not 0
};

// Of the distances 1 - cosine(i) for i = begin .. end - 1, by a block of whole warps; to every thread.
// cosine(i) and weight(i) are asked for twice. partial: shared memory for 4 x 32 values.
template <class Cosine, class Weight>
__device__ Moments block_moments(int64_t begin, int64_t end, Cosine &&cosine, Weight &&weight,
                                 double *partial) {
    double total = 0.0, sum = 0.0;
    float low = FLT_MAX, high = -FLT_MAX; // of cosines
    for (int64_t i = begin + threadIdx.x; i < end; i += blockDim.x) {
        const double w = weight(i);
        const float c = cosine(i);
        total += w;
        sum += w * (1.0 - static_cast<double>(c));
        low = w > 0.0 ? fminf(low, c) : low;
        high = w > 0.0 ? fmaxf(high, c) : high;
    }
    total = block_sum(total, partial);
    if (!(total > 0.0)) { return {}; } // all threads of the block
    const double mean = block_sum(sum, partial + 32) / total;
    double m2 = 0.0, m3 = 0.0, m4 = 0.0;
    for (int64_t i = begin + threadIdx.x; i < end; i += blockDim.x) {
        const double centred = 1.0 - static_cast<double>(cosine(i)) - mean;
        const double square = centred * centred, part = weight(i) * square;
        m2 += part;
        m3 += part * centred;
        m4 += part * square;
    }
    m2 = block_sum(m2, partial + 64);
    m3 = block_sum(m3, partial + 96);
    m4 = block_sum(m4, partial);
    // Both ends in one: the largest of a value and of the negative of the other.
    const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
    const double top = static_cast<double>(warp_max(high));
    const double bottom = static_cast<double>(warp_max(-low));
    if (lane == 0) {
        partial[32 + warp] = top;
        partial[64 + warp] = bottom;
    }
    __syncthreads();
    double largest = partial[32], negative = partial[64];
    for (int i = 1; i < static_cast<int>(blockDim.x) / 32; ++i) {
        largest = fmax(largest, partial[32 + i]);
        negative = fmax(negative, partial[64 + i]);
    }
    return {total, mean, m2, m3, m4, 1.0 - largest, 1.0 + negative};
}

// Pebay 2008, eq. 2.1, with weights in the place of counts.
__device__ inline void merge(Moments &a, const Moments &b) {
    if (!(b.weight > 0.0)) { return; }
    if (!(a.weight > 0.0)) {
        a = b;
        return;
    }
    // Shares, not weights: products of weights may leave the range of a double.
    const double n = a.weight + b.weight, p = a.weight / n, q = b.weight / n;
    const double delta = b.mean - a.mean, square = delta * delta;
    a.m4 += b.m4 + n * p * q * square * square * (p * p - p * q + q * q) +
            6.0 * square * (p * p * b.m2 + q * q * a.m2) + 4.0 * delta * (p * b.m3 - q * a.m3);
    a.m3 += b.m3 + n * p * q * square * delta * (p - q) + 3.0 * delta * (p * b.m2 - q * a.m2);
    a.m2 += b.m2 + n * p * q * square;
    a.mean += delta * q;
    a.weight = n;
    a.low = fmin(a.low, b.low);
    a.high = fmax(a.high, b.high);
}

struct Shape {
    double low, high, variance, skewness, kurtosis, mean;
};

// Distances whose standard deviation is that of rounding count as constant.
__device__ inline Shape shape_of(const Moments &m) {
    Shape s{m.low, m.high, 0.0, 0.0, 0.0, m.mean};
    const double variance = m.weight > 0.0 ? m.m2 / m.weight : 0.0;
    if (variance >= 1e-12) {
        s.variance = variance;
        s.skewness = m.m3 / m.weight / (variance * sqrt(variance));
        s.kurtosis = m.m4 / m.weight / (variance * variance);
    }
    return s;
}

} // namespace cuda
} // namespace fsseg
