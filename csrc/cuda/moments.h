// Moments of the distances 1 - cosine of weighted cells, on the device: of 32 cells by a warp, around their own
// mean and in double; how two merge, also over a block, always in the same order; and the shape that they give.
// What csrc/distance_stats/moments.h is on the CPU; the device code of prototype_fusion.
#pragma once

#include "cuda/reduce.h"

#include <cfloat>

namespace fsseg {
namespace cuda {

constexpr double constant_deviation = 1e-6;

struct Moments {
    double weight, mean, m2, m3,
        m4;           // m2..m4: weighted sums of powers of d - mean; weight 0: no cells
    double low, high; // of cells whose weight is not 0
};

struct Shape {
    double low, high, variance, skewness, kurtosis, mean;
};

__device__ __forceinline__ Moments no_cells() { return {0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0}; }

// Of the cells of a warp, one a lane; weight 0 where a lane has none. To every lane.
__device__ inline Moments moments_of_warp(float cosine, float weight) {
    const double w = static_cast<double>(weight), d = 1.0 - static_cast<double>(cosine);
    Moments m = no_cells();
    m.weight = warp_sum(w);
    if (!(m.weight > 0.0)) { return m; }
    m.mean = warp_sum(w * d) / m.weight;
    const double centred = d - m.mean, square = centred * centred, part = w * square;
    m.m2 = warp_sum(part);
    m.m3 = warp_sum(part * centred);
    m.m4 = warp_sum(part * square);
    const float none = -FLT_MAX; // no cosine comes near it
    m.low = 1.0 - static_cast<double>(warp_max(weight > 0.0f ? cosine : none));
    m.high = 1.0 + static_cast<double>(warp_max(weight > 0.0f ? -cosine : none));
    return m;
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
    const double m4 = a.m4 + b.m4 + n * p * q * square * square * (p * p - p * q + q * q) +
                      6.0 * square * (p * p * b.m2 + q * q * a.m2) +
                      4.0 * delta * (p * b.m3 - q * a.m3);
    a.m3 += b.m3 + n * p * q * square * delta * (p - q) + 3.0 * delta * (p * b.m2 - q * a.m2);
    a.m2 += b.m2 + n * p * q * square;
    a.m4 = m4;
    a.mean += delta * q;
    a.weight = n;
    a.low = min(a.low, b.low);
    a.high = max(a.high, b.high);
}

__device__ __forceinline__ Moments of_lane(const Moments &m, int lane) {
    return {__shfl_sync(all_lanes, m.weight, lane), __shfl_sync(all_lanes, m.mean, lane),
            __shfl_sync(all_lanes, m.m2, lane),     __shfl_sync(all_lanes, m.m3, lane),
            __shfl_sync(all_lanes, m.m4, lane),     __shfl_sync(all_lanes, m.low, lane),
            __shfl_sync(all_lanes, m.high, lane)};
}

// To every lane.
__device__ inline Moments merged_of_warp(Moments m) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    for (int bit = 16; bit > 0; bit /= 2) { merge(m, of_lane(m, lane ^ bit)); }
    return of_lane(m, 0); // the order of two differs between lanes, and so may roundings
}

// To the first warp of a one-dimensional block of whole warps. `partial` is shared memory for one of each warp;
// it may be used again after the next barrier.
__device__ inline Moments merged_of_block(const Moments &m, Moments *partial) {
    const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
    const int warps = static_cast<int>(blockDim.x) / 32;
    const Moments own = merged_of_warp(m);
    if (lane == 0) { partial[warp] = own; }
    __syncthreads();
    if (warp > 0) { return own; }
    return merged_of_warp(lane < warps ? partial[lane] : no_cells());
}

__device__ inline Shape shape_of(const Moments &m) {
    Shape s{m.low, m.high, 0.0, 0.0, 0.0, m.mean};
    const double variance = m.weight > 0.0 ? m.m2 / m.weight : 0.0;
    if (variance >= constant_deviation * constant_deviation) {
        s.variance = variance;
        s.skewness = m.m3 / m.weight / (variance * sqrt(variance));
        s.kurtosis = m.m4 / m.weight / (variance * variance);
    }
    return s;
}

} // namespace cuda
} // namespace fsseg
