// prototype_fusion: the loop of PAIA (eq. 3 to 5). Each step finds with the prototypes of the step before
// what the pictures say about each class, and takes the mean of that and of the support.
//
//   given: sums[c] of counts[c] support vectors; start: prototype of c = sums[c] / counts[c]
//   step:  distances d[c, x] = 1 - cosine of all cells of all pictures, weighted by `weights`; their mean
//          m[c] and the five figures min / m, max / m, variance / m^2, skewness, kurtosis
//          gamma[c] = output_weight . tanh(hidden_weight . five + hidden_bias) + output_bias,
//                     or the constant `radius` without such a network
//          vectors, mass = soft_pool(features, radius = gamma m)          (csrc/soft_pool/soft_pool.h)
//          prototype of c = (sums[c] + sum of the vectors with mass) / (counts[c] + how many they are)
//
// Distances are compared as d / m < gamma. Where m is below 1e-6, d / m is 0 everywhere and so are the
// five figures; where distances are constant (csrc/distance_stats/distance_stats.h), d / m is 1.
// distilled = false: every cell is near enough, and gamma is infinite. The background stays as it is.
//
//   features    [B, C, h, w] float32, planes contiguous, batch and channel strides free; B may be 0
//   ways        [B] int64: the class that the picture speaks for; -1: all
//   background  [P, C] float32, rows contiguous
//   sums        [N, C] float32, counts [N] float32, contiguous; counts 0 or more
//   weights     [B, 1, h, w] float32, 0 or more, or null data (all 1)
//   out         prototypes [P + N, C], sums [N, C], counts [N], mass [steps, B, N], thresholds (gamma)
//               [steps, N]; float32, contiguous
//
// A step reads the features once for the cosines, which are kept, and the cells that count once more.
// The same bits for every number of threads. Status::not_finite for NaN or infinity in an input, and
// for a weight below 0; without a step, features and weights are not read.
#pragma once

#include "core/dispatch.h"
#include "core/view.h"

namespace fsseg {

// hidden 0: no network.
struct ThresholdWeights {
    const float *hidden_weight; // [hidden, 5]
    const float *hidden_bias;   // [hidden]
    const float *output_weight; // [hidden]
    double output_bias;
    int64_t hidden;
};

struct FusionOut {
    float *prototypes, *sums, *counts, *mass, *thresholds;
};

struct PrototypeFusionArgs {
    PlaneView features;
    const int64_t *ways;
    RowsView background;
    const float *sums, *counts;
    int64_t classes, steps;
    double scale;
    bool distilled;
    ThresholdWeights threshold;
    double radius;
    PlaneView weights;
    FusionOut out;
    int threads;
};

FSSEG_OP(prototype_fusion, PrototypeFusionArgs)

} // namespace fsseg
