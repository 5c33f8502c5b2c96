// linear_match: K linear classifiers at every pixel, in one pass over the features.
//
//   out[b, k, x] = sum_c weights[k, c] * features[b, c, x] + bias[k]
//
//   features  [B, C, h, w] float32, planes contiguous, batch and channel strides free
//   weights   [K, C] float32, rows contiguous
//   bias      [K] float32
//   out       [B, K, h, w] float32, contiguous
//
// A tile with a result that is not finite is computed again in double (products of large numbers may
// cancel); Status::not_finite if it still is not.
#pragma once

#include "core/dispatch.h"
#include "core/view.h"

namespace fsseg {

struct LinearMatchArgs {
    PlaneView features;
    RowsView weights;
    const float *bias;
    float *out;
    int threads;
};

FSSEG_OP(linear_match, LinearMatchArgs)

} // namespace fsseg
