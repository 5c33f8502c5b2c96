// weighted_pool: masked average pooling with any non-negative weights (binary, soft or distilled).
//
//   out[b, m, c] = sum_x features[b, c, x] * weights[b, m, x] / (sum_x weights[b, m, x] + eps)
//
//   features  [B, C, h, w] float32, planes contiguous, batch and channel strides free
//   weights   [B, M, h, w] float32, likewise
//   out       [B, M, C] float32, contiguous
//
// Sums: float32 within a tile of pixels (one partial sum per lane), double across tiles. A result
// that is not finite is computed again in double, so features near the float32 limit are fine;
// Status::not_finite if it still is not.
#pragma once

#include "core/dispatch.h"
#include "core/view.h"

namespace fsseg {

struct WeightedPoolArgs {
    PlaneView features;
    PlaneView weights;
    float *out;
    double eps;
    int threads;
};

FSSEG_OP(weighted_pool, WeightedPoolArgs)

} // namespace fsseg
