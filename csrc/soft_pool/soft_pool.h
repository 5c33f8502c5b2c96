// soft_pool: what each picture says about each class (PAIA eq. 2 and 4): the mean of its features, weighted
// by how likely a cell is the class, over the cells that are taken for it and near enough to it.
//
//   s[j, x]   = scale * cosine(features[b, :, x], prototype j);  j = 0: the largest of the parts of the
//               background, j = 1 + c: class c
//   z[c, x]   = 1 where class c has the largest s (ties: the background, then the lowest class)
//   y[c, x]   = softmax over j of s
//   t[c, x]   = 1 where 1 - cosine(features[b, :, x], class c) < radius[c]
//   mass[b, c]    = sum_x y z t weights[b, x]
//   vectors[b, c] = sum_x features[b, :, x] y z t weights[b, x] / mass[b, c], zero where that is 0
//
//   features    [B, C, h, w] float32, planes contiguous, batch and channel strides free
//   prototypes  [parts + N, C] float32, rows contiguous: the background's, then the classes'
//   ways        [B] int64: the class that the picture speaks for; -1: all
//   radius      [N] float32 or null: every cell is near enough
//   weights     [B, 1, h, w] float32, 0 or more, or null data (all 1)
//   vectors     [B, N, C] float32, mass [B, N] float32, contiguous
//
// One pass: cosines of a strip of cells, then the sums of the cells that count while the strip lies in a
// cache; of y and z one strip exists at a time. Sums: float32 within a chunk of cells, double across
// chunks, which do not depend on the number of threads. Status::not_finite for NaN or infinity in an
// input, and for a weight below 0.
#pragma once

#include "core/dispatch.h"
#include "core/view.h"

namespace fsseg {

struct SoftPoolArgs {
    PlaneView features;
    RowsView prototypes;
    const int64_t *ways;
    int64_t parts;
    double scale;
    const float *radius;
    PlaneView weights;
    float *vectors;
    float *mass;
    int threads;
};

FSSEG_OP(soft_pool, SoftPoolArgs)

} // namespace fsseg
