// grid_weights: pushes masks down to the feature grid with the transpose of bilinear upsampling.
//
//   out[b, i, j] = sum over y, x of masks[b, y, x] * W(y, i) * W(x, j)
//
// W(y, i) is the weight of cell i in the interpolation at pixel y (core/axis.h), so for every
// feature map F: sum(upsample(F) * mask) == sum(F * out). Cells that no pixel touches are 0.
//
//   masks  [B, H, W] uint8 or float32, last axis contiguous, strides of batch and rows free
//   extent the part of the grid that the image covers, in cells; 0 < extent <= (h, w)
//   out    [B, h, w] float32, contiguous
//
// Sums of bytes are exact in whole numbers for 16 rows at a time, float32 for 64 pixels, then
// double. Scratch memory: 45 kB a thread and 4 bytes a column. Status::not_finite if a result is
// not finite.
#pragma once

#include "core/dispatch.h"

#include <stdint.h>

namespace fsseg {

struct GridWeightsArgs {
    const void *masks;
    bool bytes; // uint8, else float32
    int64_t batch, height, width;
    int64_t batch_stride, row_stride; // in elements
    double extent_h, extent_w;
    int64_t grid_h, grid_w;
    float *out;
    int threads;
};

FSSEG_OP(grid_weights, GridWeightsArgs)

} // namespace fsseg
