// From the moments of a class's distances to the largest distance that passes (prototype_fusion.h).
#pragma once

#include "distance_stats/moments.h"
#include "prototype_fusion/prototype_fusion.h"

namespace fsseg {
namespace FSSEG_NS {

constexpr double smallest_mean = 1e-6;

static inline double gamma_of(const ThresholdWeights &net, const double *five) {
    double gamma = net.output_bias;
    for (int64_t h = 0; h < net.hidden; ++h) {
        double total = net.hidden_bias[h];
        for (int i = 0; i < 5; ++i) { total += net.hidden_weight[h * 5 + i] * five[i]; }
        gamma += net.output_weight[h] * ::tanh(total);
    }
    return gamma;
}

// gamma; *radius becomes the distance that corresponds to it.
static inline double threshold_of(const Moments &moments, const ThresholdWeights &net,
                                  double constant, float *radius) {
    const Shape s = shape_of(moments);
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
    const double gamma = net.hidden > 0 ? gamma_of(net, five) : constant;
    // Where all distances are the same, rounding must not choose some: all pass, or none.
    if (none) {
        *radius = gamma > 0.0 ? INFINITY : -INFINITY;
    } else if (!(s.variance > 0.0)) {
        *radius = gamma > 1.0 ? INFINITY : -INFINITY;
    } else {
        *radius = static_cast<float>(gamma * m);
    }
    return gamma;
}

} // namespace FSSEG_NS
} // namespace fsseg
