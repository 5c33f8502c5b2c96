// cosine_match: scaled cosine of every pixel with every prototype, in one pass over the features.
//
//   out[b, p, x] = scale * cosine(features[b, :, x], prototypes[b, p, :])
//   softmax: out[b, :, x] = softmax over p of that
//
//   features    [B, C, h, w] float32, planes contiguous, batch and channel strides free
//   prototypes  [P, C] (shared by all batches) or [B, P, C] float32, rows contiguous
//   out         [B, P, h, w] float32, contiguous
//
// The cosine with a zero vector is 0. Any finite float32 values: where squares would over- or
// underflow, the pixel is computed in double. Status::not_finite for NaN or infinity in an input.
#pragma once

#include "core/dispatch.h"
#include "core/view.h"

namespace fsseg {

struct CosineMatchArgs {
    PlaneView features;
    RowsView prototypes;
    float *out;
    double scale;
    bool softmax;
    int threads;
};

FSSEG_OP(cosine_match, CosineMatchArgs)

} // namespace fsseg
