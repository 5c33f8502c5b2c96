// distance_stats: the shape of the distances between all pixels and each prototype.
//
//   d[n, b, x] = 1 - cosine(features[b, :, x], prototypes[n, :])
//   out[n] = min, max, variance, skewness, kurtosis, mean of d over all b and x
//
//   features    [B, C, h, w] float32, planes contiguous, batch and channel strides free
//   prototypes  [N, C] float32, rows contiguous
//   weights     [B, 1, h, w] float32, 0 or more, or null data (all 1): weighted moments; min and max of
//               the cells whose weight is not 0; all weights 0: zeros
//   out         [N, 6] float32, contiguous
//
// Variance of the population m2, skewness m3 / m2^1.5, kurtosis m4 / m2^2 (not in excess), with
// central moments m. One pass: moments of a tile around its own mean, in double; tiles are merged in
// a fixed order (Pebay 2008, eq. 2.1), whatever the number of threads. Distances whose standard
// deviation is below 1e-6 (the rounding of a float32 cosine) are constant: the three are 0.
// The cosine with a zero vector is 0. Status::not_finite for NaN or infinity in an input, and for a
// weight below 0.
#pragma once

#include "core/dispatch.h"
#include "core/view.h"

namespace fsseg {

struct DistanceStatsArgs {
    PlaneView features;
    RowsView prototypes;
    PlaneView weights;
    float *out;
    int threads;
};

FSSEG_OP(distance_stats, DistanceStatsArgs)

} // namespace fsseg
