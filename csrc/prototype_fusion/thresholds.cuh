// From the moments of a class's distances to the largest distance that passes (prototype_fusion.h), on the device.
#pragma once

#include "cuda/elements.h"
#include "cuda/moments.h"
#include "prototype_fusion/prototype_fusion.h"

namespace fsseg {
namespace cuda {

constexpr double smallest_mean = 1e-6;

struct Thresholds {
    ThresholdWeights net;
    double constant;        // gamma without a network
    int64_t classes, tiles; // tiles: of all pictures
    Moments *moments;       // [tiles, classes]
    float *radius, *gamma;  // [classes]
    int *report;

    // gamma of the five figures; by one warp, to every lane.
    __device__ double gamma_of(const double (&five)[5]) const {
        double gamma = 0.0;
        for (int64_t h = threadIdx.x % 32; h < net.hidden; h += 32) {
            double total = static_cast<double>(net.hidden_bias[h]);
            for (int i = 0; i < 5; ++i) {
                total = fma(static_cast<double>(net.hidden_weight[h * 5 + i]), five[i], total);
            }
            gamma = fma(static_cast<double>(net.output_weight[h]), tanh(total), gamma);
        }
        return warp_sum(gamma) + net.output_bias;
    }

    // Of one class; by one warp.
    __device__ void decide(int64_t n, const Moments &all) const {
        const Shape s = shape_of(all);
        const double m = s.mean;
        const bool none = !(m >= smallest_mean);
        double five[5] = {0.0, 0.0, 0.0, 0.0, 0.0};
        if (!none) {
            five[0] = s.low / m;
            five[1] = s.high / m;
            five[2] = s.variance / (m * m);
            five[3] = s.skewness;
            five[4] = s.kurtosis;
        }
        const double chosen = net.hidden > 0 ? gamma_of(five) : constant;
        if (threadIdx.x % 32 != 0) { return; }
        // Where all distances are the same, rounding must not choose some: all pass, or none.
        if (none) {
            radius[n] = chosen > 0.0 ? INFINITY : -INFINITY;
        } else if (!(s.variance > 0.0)) {
            radius[n] = chosen > 1.0 ? INFINITY : -INFINITY;
        } else {
            radius[n] = static_cast<float>(chosen * m);
        }
        gamma[n] = static_cast<float>(chosen);
        if (!is_finite(gamma[n])) { atomicOr(report, static_cast<int>(not_finite)); }
    }

    // Of all classes; by a block, after all moments are written. partial: one for each warp.
    __device__ void decide_all(Moments *partial) const {
        for (int64_t n = 0; n < classes; ++n) {
            Moments own = no_cells();
            for (int64_t tile = threadIdx.x; tile < tiles; tile += blockDim.x) {
                merge(own, moments[tile * classes + n]);
            }
            const Moments all = merged_of_block(own, partial);
            if (threadIdx.x < 32) { decide(n, all); }
            __syncthreads();
        }
    }
};

} // namespace cuda
} // namespace fsseg
